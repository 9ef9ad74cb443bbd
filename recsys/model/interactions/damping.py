"""Bounds what one user can do to the model in one batch: a function of its rows and the settings.

Events of a user with one item beyond a bound count no more, and neither do the repeats of a user beyond another one. A
user who does something once with each of very many items is bounded by neither. The log has all events, so a rebuild,
with the same bounds or others, sees what the stream saw; `share_that_counts` answers why an event counted little.
Bounds are in events of the heaviest type, so they hold whatever the unit of the weights.
"""

import numpy as np

from recsys.config import Settings
from recsys.contracts import InteractionBatch
from recsys.model.common.arrays import FloatArray
from recsys.model.interactions.merge import merge_pairs
from recsys.model.interactions.vocab import Vocabulary

# Batches of more events take longer to come, so a user may do more in them.
_BATCH = 40_000
_TINY = 1e-300


def to_learn(batch: InteractionBatch, settings: Settings) -> tuple[InteractionBatch, dict[str, float]]:
    """The rows of a batch as the model learns them: one for each (user, item), with the weights that count.

    Args:
        batch: rows sorted by user, item and time.
        settings: the sections weights, decay and robustness.

    Returns:
        The batch, and figures for the ledger: `damped_pairs`, the pairs that count less than they weigh, and
        `damped_weight_share`, the share of all weight that does not count. None for an empty batch.
    """
    merged = merge_pairs(batch, settings.decay.half_life_days)
    if not len(merged):
        return merged, {}
    share = share_that_counts(merged, settings)
    damped = share < 1
    if not damped.any():
        return merged, {"damped_pairs": 0.0, "damped_weight_share": 0.0}
    weight = np.abs(merged.weights)
    total = float(weight.sum())
    counted = InteractionBatch(
        user_ids=merged.user_ids,
        item_ids=merged.item_ids,
        weights=merged.weights * share,
        events=np.maximum(np.ceil(merged.events * share), 1).astype(np.int64),
        times=merged.times,
        left=merged.left,
        contents=merged.contents,
    )
    lost = float((weight * (1 - share)).sum()) / total if total else 0.0
    return counted, {"damped_pairs": float(damped.sum()), "damped_weight_share": lost}


def share_that_counts(merged: InteractionBatch, settings: Settings) -> FloatArray:
    """(n,) shares of the rows' weights that count, 1 for all but floods.

    Args:
        merged: n rows, one for each (user, item).
        settings: the sections weights and robustness.
    """
    limits = settings.robustness
    weights = [abs(one.weight) for one in settings.weights.values() if one.weight] or [1.0]
    # What cancels out, such as views and dislikes, has no weight, but many events move clocks that count events.
    size = np.maximum(np.abs(merged.weights) / max(weights), merged.events * min(weights) / max(weights))
    pair = np.inf if limits.events_per_pair is None else limits.events_per_pair
    # One flood does not raise the bounds.
    scale = max(1.0, float(np.minimum(merged.events, pair).sum()) / _BATCH)
    share = np.minimum(1.0, pair * scale / np.maximum(size, _TINY))
    if limits.repeats_per_user is not None:
        users = Vocabulary().extend(merged.user_ids)
        counted = size * share
        repeats = np.maximum(counted - 1, 0)
        of_user = np.bincount(users, weights=repeats)
        left = np.minimum(1.0, limits.repeats_per_user * scale / np.maximum(of_user, _TINY))[users]
        share *= np.where(left < 1, 1 - repeats * (1 - left) / np.maximum(counted, _TINY), 1.0)
    counts: FloatArray = share
    return counts

"""Makes one row of the rows of a pair in a batch, before anything is learned from it."""

import numpy as np

from recsys.contracts import InteractionBatch
from recsys.model.interactions.decay import SECONDS_PER_DAY


def merge_pairs(batch: InteractionBatch, half_life_days: float | None) -> InteractionBatch:
    """Make one row of the rows of each (user, item): what is older has decayed by the time of the newest.

    Args:
        batch: rows sorted by user, item and time.
        half_life_days: days after which a weight counts half; None: weights never age.

    Returns:
        The same batch if no pair has several rows.
    """
    users, items = batch.user_ids, batch.item_ids
    first = np.ones(len(batch), dtype=bool)
    first[1:] = [users[row] != users[row - 1] or items[row] != items[row - 1] for row in range(1, len(batch))]
    if first.all():
        return batch
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(batch)) - 1
    weights = batch.weights
    if half_life_days is not None:
        ages = np.repeat(batch.times[ends], np.diff(starts, append=len(batch))) - batch.times
        weights = weights * np.exp2(-ages / (half_life_days * SECONDS_PER_DAY))
    return InteractionBatch(
        user_ids=[users[row] for row in starts.tolist()],
        item_ids=[items[row] for row in starts.tolist()],
        weights=np.add.reduceat(weights, starts),
        events=np.add.reduceat(batch.events, starts),
        times=batch.times[ends],
        left=batch.left,
        contents=batch.contents,
    )

"""Why an event counts little: what of a batch the model did not learn, computed from the log."""

import numpy as np
import pyarrow as pa

from recsys.config import Settings
from recsys.contracts import EVENTS, ITEM, USER, WEIGHT
from recsys.model.interactions.damping import share_that_counts
from recsys.model.interactions.merge import merge_pairs
from recsys.tables.log import to_batch


def damped(rows: pa.Table, settings: Settings) -> pa.Table:
    """The pairs of a batch that count less than they weigh, those that count least first.

    Args:
        rows: a batch, from `tables.log.read_batch`.
        settings: the settings of the generation; the sections weights, decay and robustness are used.

    Returns:
        `user_id`, `item_id`, `events`, `weight`, `share` (of each of these events that counts) and `user_events` (all
        events of the user in the batch). `share` follows from the first two bounds of `robustness`: the pair's own if
        it has many events, and the user's if all of them are many.
    """
    merged = merge_pairs(to_batch(rows), settings.decay.half_life_days)
    share = share_that_counts(merged, settings) if len(merged) else np.empty(0)
    users, places = np.unique(np.array(merged.user_ids, dtype=object), return_inverse=True)
    of_user = np.bincount(places, weights=merged.events, minlength=len(users)).astype(np.int64)
    table = pa.table(
        {
            USER: pa.array(merged.user_ids, pa.large_string()),
            ITEM: pa.array(merged.item_ids, pa.large_string()),
            EVENTS: merged.events,
            WEIGHT: merged.weights,
            "share": share,
            "user_events": of_user[places],
        }
    )
    return table.filter(share < 1).sort_by("share")

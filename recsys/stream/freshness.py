"""How long it takes from an event to the model that has learned it."""

import numpy as np

from recsys.contracts import InteractionBatch


def figures(batch: InteractionBatch, planned_at: float, learned_at: float) -> dict[str, float]:
    """Median and 95th percentile of the seconds from an event to the end of learning, and the lag of the source.

    The lag is the age of the newest event when the batch was planned. It grows while a stream falls behind, and where
    events come late. The percentiles are over the events of the batch. The log keeps the last time of a (user, item)
    only, so its earlier events in the batch count as young as the last.

    Args:
        batch: the batch.
        planned_at: when Spark planned it, seconds since 1970 UTC.
        learned_at: when the model had learned it, seconds since 1970 UTC.

    Returns:
        Metrics by name; none for a batch without events.
    """
    if not len(batch):
        return {}
    seconds = learned_at - batch.times
    order = np.argsort(seconds)
    learned = np.cumsum(batch.events[order])
    # The youngest age that at least this share of the events does not exceed.
    median, late = (seconds[order][np.searchsorted(learned, share * learned[-1])] for share in (0.5, 0.95))
    return {
        "source_lag_seconds": float(planned_at - batch.times.max()),
        "freshness_p50_seconds": float(median),
        "freshness_p95_seconds": float(late),
    }

"""Cuts a history by time into the batches that a model learns one by one."""

import numpy as np
import numpy.typing as npt

# The re-ranker and the expert weights are trained batch by batch: a hundred batches train them well.
_BATCHES = 100
# Smaller batches have too few users to evaluate on, and cost more time than they are worth.
_FEWEST_EVENTS = 1_000


def events_per_batch(events: int, most: int | None = None) -> int:
    """Choose the number of events per batch: a hundredth of the history, within bounds.

    Args:
        events: number of events in the history.
        most: upper bound, from `source.max_records_per_batch`; None: no bound.

    Returns:
        Approximate number of events per batch, at least 1.
    """
    wanted = max(_FEWEST_EVENTS, -(-events // _BATCHES))
    return wanted if most is None else min(wanted, most)


def batch_starts(
    times: npt.NDArray[np.generic], size: int, events: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int64]:
    """Cut a history by time into batches of about equal size; events of the same time stay together.

    Args:
        times: (n,) times in any unit, ascending.
        size: approximate number of events per batch; it determines the number of batches. A single time with more
            events is one batch.
        events: (n,) number of events at each time; None: one each.

    Returns:
        (batches,) positions in `times` at which a batch begins, the first of them 0; empty for an empty history.
    """
    if not len(times):
        return np.empty(0, dtype=np.int64)
    counts = np.ones(len(times), dtype=np.int64) if events is None else events.astype(np.int64)
    before = np.cumsum(counts) - counts
    total = int(before[-1] + counts[-1])
    instants = np.flatnonzero(np.concatenate([[True], times[1:] != times[:-1]]))
    # In integers, so that every machine cuts in the same places.
    batches = before[instants] * -(-total // size) // total
    starts: npt.NDArray[np.int64] = instants[np.concatenate([[True], batches[1:] != batches[:-1]])]
    return starts

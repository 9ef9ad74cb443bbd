"""How a history is cut by time into the batches that a model learns from, one after the other."""

import numpy as np
import numpy.typing as npt

# The re-ranker and the choice among members are learned batch by batch: a hundred batches train them well.
_BATCHES = 100
# Smaller batches hold too few users to measure anything, and cost more time than they teach.
_FEWEST_EVENTS = 1_000


def events_per_batch(events: int, most: int | None = None) -> int:
    """Choose how many events of a history make a batch: a hundredth of them, within bounds.

    Args:
        events: events of the whole history.
        most: upper bound, as `source.max_records_per_batch` sets it; None: no bound.

    Returns:
        About how many events a batch holds, at least 1.
    """
    wanted = max(_FEWEST_EVENTS, -(-events // _BATCHES))
    return wanted if most is None else min(wanted, most)


def batch_starts(
    times: npt.NDArray[np.generic], size: int, events: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int64]:
    """Cut a history by time into batches of about equal numbers of events; those of one instant stay together.

    Args:
        times: (n,) times in any unit, ascending; equal times are one instant.
        size: about how many events a batch holds. As many batches are made as that takes, and all hold about the same;
            an instant that holds more is one batch.
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
    # In whole numbers, so that every machine cuts alike.
    batches = before[instants] * -(-total // size) // total
    starts: npt.NDArray[np.int64] = instants[np.concatenate([[True], batches[1:] != batches[:-1]])]
    return starts

"""The ledger as series over the micro-batches, thinned to what a plot can show."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from recsys.contracts import LedgerRow, StepId
from recsys.stream.plots import BATCHES_PER_MEAN

Array = npt.NDArray[np.float64]

MOST_POINTS = 240
REBUILD = "rebuild_seconds"  # The metric that only the row of a rebuild has.


class Points:
    """Places along the horizontal axis of a plot.

    Args:
        positions: Where they are, ascending.
        steps: What each is called.
    """

    def __init__(self, positions: Sequence[int], steps: Sequence[str]) -> None:
        self.positions = positions
        self.steps = steps

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def window(self) -> int:
        """Points of a trailing mean."""
        return max(1, min(10, len(self) // BATCHES_PER_MEAN))


class Timeline(Points):
    """The batches of a stream in order, as at most `MOST_POINTS` runs of consecutive batches.

    Args:
        rows: Rows of the ledger, in order; those of rebuilds are left out, because they are no batches.

    Attributes:
        rows: The batches.
        size: Batches of a point; the last point may have fewer.
        positions: Batch id of each point; where a rebuild made the ids begin again, the number of the batch.
        steps: The batch of each point, or its first and last one.
    """

    def __init__(self, rows: Sequence[LedgerRow]) -> None:
        self.rows = [row for row in rows if REBUILD not in row.metrics]
        self.size = max(1, -(-len(self.rows) // MOST_POINTS))
        ids = [row.step.batch_id for row in self.rows]
        if any(before >= after for before, after in pairwise(ids)):
            ids = list(range(len(ids)))
        runs = [self.rows[begin : begin + self.size] for begin in range(0, len(self.rows), self.size)]
        super().__init__(
            [ids[begin] for begin in range(0, len(ids), self.size)],
            [str(run[0].step) if len(run) == 1 else f"{run[0].step} to {run[-1].step}" for run in runs],
        )
        self._points = {row.step: number // self.size for number, row in enumerate(self.rows)}

    def position(self, step: StepId) -> int | None:
        """Position of the point that a batch is in; None for a batch that is not here."""
        point = self._points.get(step)
        return None if point is None else self.positions[point]

    def metric(self, name: str) -> Array:
        """(points,) mean of a metric over the batches that have it, NaN where none has."""
        return self.mean(lambda row: row.metrics.get(name, np.nan))

    def mean(self, of: Callable[[LedgerRow], float]) -> Array:
        """(points,) mean of a figure over the batches for which it is a number, NaN where there is none."""
        values = np.array([of(row) for row in self.rows], dtype=np.float64)
        known = np.isfinite(values)
        counts, sums = self._added(known.astype(np.float64)), self._added(np.where(known, values, 0.0))
        return np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan)

    @property
    def spoken(self) -> str:
        """The batches of a trailing mean, in words."""
        return f"{self.window * self.size} batches"

    def total(self, name: str) -> float:
        """Sum of a metric over all batches."""
        return sum(row.metrics.get(name, 0.0) for row in self.rows)

    def names(self, prefix: str) -> list[str]:
        """What follows a prefix in the names of metrics, sorted."""
        found = {name for row in self.rows for name in row.metrics if name.startswith(prefix)}
        return sorted(name.removeprefix(prefix) for name in found)

    def _added(self, values: Array) -> Array:
        return np.add.reduceat(values, np.arange(0, len(values), self.size)) if len(values) else values


def last_mean(values: Iterable[float], count: int) -> float:
    """Mean of the last values that are numbers; NaN if there are none."""
    known = [value for value in values if np.isfinite(value)][-count:]
    return float(np.mean(known)) if known else float("nan")

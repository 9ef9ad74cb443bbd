"""Rows of the history to be solved, read in place."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recsys.model.common.arrays import FloatArray, IntArray
from recsys.model.interactions.adjacency import RaggedRows
from recsys.model.interactions.history import Rows
from recsys.serving.arrays import ragged_ranges


@dataclass(frozen=True)
class Selection:
    """Some rows of one side, and how many of their pairs are used.

    A row that is longer than the cap is represented by a systematic sample of its pairs, which are in the order of
    their first appearance: pair number (j * length + phase) // used for j = 0, 1, ..., used - 1, each weight multiplied
    by length / used. Every pair is drawn with the same probability, and the sample covers the whole time range.

    Attributes:
        table: all rows of the side.
        rows: (n,) the selected rows.
        totals: (n,) current sum of |weight| over all pairs of each.
        scale: factor from stored weights to current ones.
        used: (n,) pairs used of each row.
        phases: (n,) offset of the sample, below the row's length; 0 where all pairs are used.
    """

    table: RaggedRows
    rows: IntArray
    totals: FloatArray
    scale: float
    used: IntArray
    phases: IntArray

    @classmethod
    def of(
        cls,
        table: RaggedRows,
        rows: IntArray,
        totals: FloatArray,
        scale: float = 1.0,
        cap: int | None = None,
        generator: np.random.Generator | None = None,
    ) -> "Selection":
        """Select rows (n,) with totals (n,); at most `cap` pairs of each are used, sampled by the generator."""
        lengths = table.lengths[rows]
        used = lengths if cap is None else np.minimum(lengths, cap)
        phases = np.zeros_like(lengths)
        long = np.flatnonzero(used < lengths)
        if len(long):
            assert generator is not None
            phases[long] = generator.integers(lengths[long])
        return cls(table, rows, totals, scale, used, phases)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def pairs(self) -> int:
        """Pairs that are read when all rows are gathered once."""
        return int(self.used.sum())

    def part(self, begin: int, end: int) -> "Selection":
        """Rows number begin to end - 1 of this selection."""
        return Selection(
            self.table,
            self.rows[begin:end],
            self.totals[begin:end],
            self.scale,
            self.used[begin:end],
            self.phases[begin:end],
        )

    def parts(self, pairs: int) -> Iterator["Selection"]:
        """The rows in their order, in parts of about `pairs` pairs; a longer row forms its own part."""
        cuts = np.flatnonzero(np.diff(np.cumsum(self.used) // pairs)) + 1
        for begin, end in zip([0, *cuts], [*cuts, len(self)], strict=True):
            if end > begin:
                yield self.part(int(begin), int(end))

    def gather(self) -> Rows:
        """Copy the pairs that are used, row after row."""
        lengths = self.table.lengths[self.rows]
        if (self.used == lengths).all():
            within = ragged_ranges(np.zeros_like(lengths), lengths)
        else:
            order = ragged_ranges(np.zeros_like(self.used), self.used)
            within = (order * np.repeat(lengths, self.used) + np.repeat(self.phases, self.used)) // np.repeat(
                self.used, self.used
            )
        places = within + np.repeat(self.table.starts[self.rows], self.used)
        share = np.repeat(self.scale * lengths / np.maximum(self.used, 1), self.used)
        return Rows(self.used, self.table.others[places], self.table.weights[places] * share)

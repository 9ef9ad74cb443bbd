"""Rows of a side in blocks: each is made and solved where its interactions are, see `conjugate_gradient.solve_rows`."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from recsys.model.als.conjugate_gradient import Work, solve_rows
from recsys.model.als.conjugate_gradient_kernel import Vector
from recsys.model.als.selection import Selection
from recsys.model.common.arrays import Float32Array, FloatArray, Int32Array, IntArray, offsets_of
from recsys.model.interactions.adjacency import RaggedRows
from recsys.model.interactions.history import Orientation


@dataclass(frozen=True)
class Block:
    """The pairs of consecutive rows, one row after the other, in the order in which they appeared.

    Attributes:
        lengths: (rows,) int64 pairs of each row.
        others: (pairs,) int32 codes of the other side.
        weights: (pairs,) float32 stored weights.
        totals: (rows,) float64 sum of |stored weight| of each row.
    """

    lengths: IntArray
    others: Int32Array
    weights: Float32Array
    totals: FloatArray

    @classmethod
    def of(cls, rows: IntArray, others: IntArray, amounts: Float32Array, count: int) -> Self:
        """From interactions in their order; see `Orientation.of`."""
        pairs = Orientation.of(rows, others, amounts, count)
        return cls(*pairs.lists.gather(np.arange(count)), pairs.total.values)

    def solve(self, asked: "BlockStart", work: Work, scale: float, cap: int) -> tuple[Vector, int]:
        """Improve a solution.

        Args:
            asked: What is asked of this block.
            work: What all rows share.
            scale: Factor from stored weights to current ones.
            cap: `model.history_cap`.

        Returns:
            The solution (rows, factors), and the number of rows that are not within the tolerance after all steps.
        """
        table = RaggedRows(offsets_of(self.lengths)[:-1], self.lengths, self.others, self.weights)
        used = np.minimum(self.lengths, cap)
        selection = Selection(table, np.arange(len(self.lengths)), self.totals * scale, scale, used, asked.phases)
        solution = asked.solution.copy()  # A task that is repeated in the same process starts from the same.
        return solution, solve_rows(selection, asked.penalties, work, solution)


@dataclass(frozen=True)
class BlockStart:
    """What is asked of a block in a half-step.

    Attributes:
        phases: (rows,) int64, see `Selection`.
        penalties: (rows,) float64.
        solution: (rows, factors), where to start from.
    """

    phases: IntArray
    penalties: FloatArray
    solution: Vector


def cut(sizes: IntArray, blocks: int) -> IntArray:
    """Bounds of blocks of consecutive rows of about the same size: block b is rows bounds[b] to bounds[b + 1] - 1.

    Args:
        sizes: (rows,) interactions of each row.
        blocks: How many, at most; each has a row.
    """
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    inner = np.searchsorted(ends, np.linspace(0, total, blocks + 1)[1:-1]) + 1
    bounds: IntArray = np.unique(np.concatenate([[0], inner[inner < len(sizes)], [len(sizes)]]).astype(np.int64))
    return bounds

"""The items of each user, or the users of each item, with their weights."""

from dataclasses import dataclass

import numpy as np

from recsys.model.common.arrays import Float32Array, FloatArray, Int32Array, IntArray
from recsys.model.common.jit import compiled
from recsys.model.common.ragged import RaggedPool


@dataclass(frozen=True)
class RaggedRows:
    """Where the entries of all rows lie, without a copy: valid until rows or entries are added.

    Entry j of row r is at place starts[r] + j of the pool, for j below lengths[r].

    Attributes:
        starts: (rows,) int64, place of the first entry.
        lengths: (rows,) int64, number of entries.
        others: (pool,) int32, codes of the other side.
        weights: (pool,) float32.
    """

    starts: IntArray
    lengths: IntArray
    others: Int32Array
    weights: Float32Array


class AdjacencyLists:
    """Lists of (other, weight), one per row, in the order of appending, whose weights can be added to."""

    def __init__(self) -> None:
        self._pool = RaggedPool({"others": np.int32, "weights": np.float32})

    def __len__(self) -> int:
        return len(self._pool)

    @property
    def lengths(self) -> IntArray:
        """(rows,) int64, as a view."""
        return self._pool.lengths

    @property
    def nbytes(self) -> int:
        """Bytes held, spare room included."""
        return self._pool.nbytes

    def view(self) -> RaggedRows:
        """All rows, where they lie."""
        return RaggedRows(self._pool.starts, self._pool.lengths, **self._pool.columns)

    def add_rows(self, rows: int) -> None:
        """Have `rows` rows; new ones are empty."""
        self._pool.add_rows(rows)

    def append(self, rows: IntArray, others: IntArray, weights: Float32Array) -> Int32Array:
        """Append (others[i], weights[i]) to row rows[i] for each i in order, all (n,).

        Returns:
            (n,) int32, the place of each new entry within its row.

        Raises:
            IndexError: there is no such row.
        """
        return self._pool.append(rows, others=others, weights=weights)

    def add_weights(self, rows: IntArray, ordinals: Int32Array, amounts: Float32Array) -> FloatArray:
        """Add amounts[i] to entry ordinals[i] of row rows[i], for each i in order, all (n,).

        Returns:
            (n,) float64, by how much the absolute value of the weight grew each time.
        """
        return _add_weights(rows, ordinals, amounts, self._pool.starts, self._pool.columns["weights"])

    def weights_at(self, rows: IntArray, ordinals: Int32Array) -> Float32Array:
        """Weights (n,) of entries ordinals[i] of rows rows[i]."""
        weights: Float32Array = self._pool.columns["weights"][self._pool.starts[rows] + ordinals]
        return weights

    def gather(self, rows: IntArray) -> tuple[IntArray, Int32Array, Float32Array]:
        """A copy of the lists of rows (n,), one after the other.

        Returns:
            Their lengths (n,) int64, and all others int32 and weights float32, (sum of lengths,).

        Raises:
            IndexError: there is no such row.
        """
        lengths, columns = self._pool.gather(rows)
        return lengths, columns["others"], columns["weights"]

    def scale(self, halvings: int) -> None:
        """Divide all weights by 2^halvings, which is exact for all that stay above 2^-126."""
        weights = self._pool.columns["weights"]
        weights *= np.float32(0.5**halvings)


@compiled
def _add_weights(
    rows: IntArray, ordinals: Int32Array, amounts: Float32Array, starts: IntArray, weights: Float32Array
) -> FloatArray:
    """Add to weights in the order of events; by how much the absolute value of each grew, (n,)."""
    grown = np.empty(len(rows), dtype=np.float64)
    for i in range(len(rows)):
        place = starts[rows[i]] + ordinals[i]
        before = weights[place]
        weights[place] = before + amounts[i]
        grown[i] = np.float64(abs(weights[place])) - np.float64(abs(before))
    return grown

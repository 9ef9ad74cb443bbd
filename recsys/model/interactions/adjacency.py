"""Rows of growing length in one pool: the items of each user, or the users of each item, with their weights."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from recsys.model.common.arrays import Float32Array, FloatArray, GrowingArray, Int32Array, IntArray
from recsys.model.common.jit import compiled

Pool = TypeVar("Pool", Int32Array, Float32Array)


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
    """Lists of (other, weight), one per row, appended to in batches. The order in a row is the order of appending.

    All lists lie in one pool. A list has room for a power of two of entries; one that outgrows it moves to the end of
    the pool, with room for the next one. When the pool is full, all lists are packed into a new one that is half as
    large again as their rooms. So memory and the time of all appends stay proportional to what is stored.
    """

    def __init__(self) -> None:
        self._starts = GrowingArray((), np.int64)
        self._lengths = GrowingArray((), np.int64)
        self._rooms = GrowingArray((), np.int64)
        self._others: Int32Array = np.zeros(0, dtype=np.int32)
        self._weights: Float32Array = np.zeros(0, dtype=np.float32)
        # Places of the pool before this one are in use or abandoned.
        self._end = 0

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def lengths(self) -> IntArray:
        """(rows,) int64, as a view."""
        return self._lengths.values

    @property
    def nbytes(self) -> int:
        """Bytes held, spare room included."""
        rows = self._starts.nbytes + self._lengths.nbytes + self._rooms.nbytes
        return rows + self._others.nbytes + self._weights.nbytes

    def view(self) -> RaggedRows:
        """All rows, where they lie."""
        return RaggedRows(self._starts.values, self._lengths.values, self._others, self._weights)

    def add_rows(self, rows: int) -> None:
        """Have `rows` rows; new ones are empty."""
        for array in (self._starts, self._lengths, self._rooms):
            array.resize(rows)

    def append(self, rows: IntArray, others: IntArray, weights: Float32Array) -> Int32Array:
        """Append (others[i], weights[i]) to row rows[i] for each i in order.

        Args:
            rows: (n,) row numbers, repeated where a row gets more than one entry.
            others, weights: (n,) what is appended.

        Returns:
            (n,) int32, the place of each new entry within its row.

        Raises:
            IndexError: there is no such row.
        """
        self._check(rows)
        ordinals, moving = _count(rows, self._lengths.values, self._rooms.values)
        if self._end + moving > len(self._others):
            self._pack(moving)
        self._end = _move(rows, ordinals, self._end, *self._lists(), self._rooms.values)
        _write(rows, ordinals, others, weights, self._starts.values, self._others, self._weights)
        return ordinals

    def add_weights(self, rows: IntArray, ordinals: Int32Array, amounts: Float32Array) -> FloatArray:
        """Add amounts[i] to entry ordinals[i] of row rows[i], for each i in order, all (n,).

        Returns:
            (n,) float64, by how much the absolute value of the weight grew each time.
        """
        return _add_weights(rows, ordinals, amounts, self._starts.values, self._weights)

    def weights_at(self, rows: IntArray, ordinals: Int32Array) -> Float32Array:
        """Weights (n,) of entries ordinals[i] of rows rows[i]."""
        weights: Float32Array = self._weights[self._starts.values[rows] + ordinals]
        return weights

    def gather(self, rows: IntArray) -> tuple[IntArray, Int32Array, Float32Array]:
        """A copy of the lists of rows (n,), one after the other.

        Returns:
            Their lengths (n,) int64, and all others int32 and weights float32, (sum of lengths,).

        Raises:
            IndexError: there is no such row.
        """
        self._check(rows)
        return _gather(rows, *self._lists())

    def scale(self, halvings: int) -> None:
        """Divide all weights by 2^halvings, which is exact for all that stay above 2^-126."""
        self._weights *= np.float32(0.5**halvings)

    def _lists(self) -> tuple[IntArray, IntArray, Int32Array, Float32Array]:
        return self._starts.values, self._lengths.values, self._others, self._weights

    def _check(self, rows: IntArray) -> None:
        """Compiled loops do not look where they write."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")

    def _pack(self, moving: int) -> None:
        """Lay all lists into a new pool, each with the room it has; `moving` places are about to be taken."""
        rooms, starts = self._rooms.values, self._starts.values
        # New entries are counted already, but not yet written.
        kept = np.minimum(self._lengths.values, rooms)
        packed = np.cumsum(rooms) - rooms
        self._end = int(rooms.sum())
        size = (self._end + moving) * 3 // 2
        # One after the other, so that the old pool of the one is gone before the new pool of the other is filled.
        self._others = _copied(self._others, starts, packed, kept, size)
        self._weights = _copied(self._weights, starts, packed, kept, size)
        starts[:] = packed


def _copied(pool: Pool, starts: IntArray, new_starts: IntArray, lengths: IntArray, size: int) -> Pool:
    """A pool of `size` into which runs of given lengths, all (rows,), are copied from another one."""
    # What is not written to takes no memory yet.
    copied = np.zeros(size, dtype=pool.dtype)
    _copy(pool, starts, copied, new_starts, lengths)
    return copied


@compiled
def _power_of_two(number: int) -> int:
    """The smallest power of two that is not below a number."""
    power = 1
    while power < number:
        power *= 2
    return power


@compiled
def _outgrown(row: int, ordinal: int, lengths: IntArray, rooms: IntArray) -> bool:
    """Whether this is the last entry of a list that no longer has room."""
    return bool(ordinal + 1 == lengths[row] and lengths[row] > rooms[row])


@compiled
def _count(rows: IntArray, lengths: IntArray, rooms: IntArray) -> tuple[Int32Array, int]:
    """Make lists longer by what is appended to rows (n,).

    Returns:
        (n,) place of each new entry within its row, and how much room lists that move need.
    """
    ordinals = np.empty(len(rows), dtype=np.int32)
    for i in range(len(rows)):
        ordinals[i] = lengths[rows[i]]
        lengths[rows[i]] += 1
    moving = 0
    for i in range(len(rows)):
        if _outgrown(rows[i], ordinals[i], lengths, rooms):
            moving += _power_of_two(lengths[rows[i]])
    return ordinals, moving


@compiled
def _move(
    rows: IntArray,
    ordinals: Int32Array,
    end: int,
    starts: IntArray,
    lengths: IntArray,
    others: Int32Array,
    weights: Float32Array,
    rooms: IntArray,
) -> int:
    """Give the lists that have outgrown their room a new place from `end` on; the end after them."""
    for i in range(len(rows)):
        row = rows[i]
        if _outgrown(row, ordinals[i], lengths, rooms):
            for j in range(rooms[row]):
                others[end + j] = others[starts[row] + j]
                weights[end + j] = weights[starts[row] + j]
            starts[row] = end
            rooms[row] = _power_of_two(lengths[row])
            end += rooms[row]
    return end


@compiled
def _write(
    rows: IntArray,
    ordinals: Int32Array,
    others: IntArray,
    weights: Float32Array,
    starts: IntArray,
    pool_others: Int32Array,
    pool_weights: Float32Array,
) -> None:
    """Write new entries (n,) where they belong."""
    for i in range(len(rows)):
        place = starts[rows[i]] + ordinals[i]
        pool_others[place] = others[i]
        pool_weights[place] = weights[i]


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


@compiled
def _gather(
    rows: IntArray, starts: IntArray, lengths: IntArray, others: Int32Array, weights: Float32Array
) -> tuple[IntArray, Int32Array, Float32Array]:
    """Lengths, others and weights of rows (n,), one after the other."""
    counts = lengths[rows]
    total = counts.sum()
    found_others, found_weights = np.empty(total, dtype=np.int32), np.empty(total, dtype=np.float32)
    begin = 0
    for i in range(len(rows)):
        for j in range(counts[i]):
            found_others[begin + j] = others[starts[rows[i]] + j]
            found_weights[begin + j] = weights[starts[rows[i]] + j]
        begin += counts[i]
    return counts, found_others, found_weights


@compiled
def _copy(source: Pool, starts: IntArray, target: Pool, new_starts: IntArray, lengths: IntArray) -> None:
    """Copy runs of given lengths (rows,) from one pool to another."""
    for row in range(len(lengths)):
        for j in range(lengths[row]):
            target[new_starts[row] + j] = source[starts[row] + j]

"""Rows of growing length in one pool, with a number in each of several columns for every entry."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.model.common.arrays import GrowingArray, Int32Array, IntArray
from recsys.model.common.jit import compiled

Column = npt.NDArray[Any]


class RaggedPool:
    """Rows of entries that are appended to in batches. The order in a row is the order of appending.

    All rows lie in one pool: entry j of row r is at place starts[r] + j of every column, for j below lengths[r]. A row
    has room for a power of two of entries. One that outgrows its room moves to the end of the pool, with room for the
    next power of two. When the pool is full, all rows are packed into a new one that is half as large again as their
    rooms. So memory and the time of all appends stay proportional to what is stored.

    Args:
        dtypes: Type of each column, by name.
        lengths, columns: Lengths (rows,) and columns (entries,), as `gather` gives them, to begin with.
    """

    def __init__(
        self,
        dtypes: Mapping[str, npt.DTypeLike],
        lengths: npt.ArrayLike = (),
        columns: Mapping[str, Column] | None = None,
    ) -> None:
        self._lengths = GrowingArray(lengths, np.int64)
        self._rooms = GrowingArray(lengths, np.int64)
        self._starts = GrowingArray(np.cumsum(self.lengths) - self.lengths, np.int64)
        # Places of the pool before this one are in use or abandoned.
        self._end = self._size = int(self.lengths.sum())
        given = columns or {}
        self._columns: dict[str, Column] = {
            name: np.array(given.get(name, ()), dtype=dtype) for name, dtype in dtypes.items()
        }

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def lengths(self) -> IntArray:
        """(rows,) int64 number of entries of each row, as a view."""
        return self._lengths.values

    @property
    def starts(self) -> IntArray:
        """(rows,) int64 place of the first entry of each row, as a view."""
        return self._starts.values

    @property
    def columns(self) -> dict[str, Column]:
        """The columns (pool,) by name, where they lie: valid until rows are given room."""
        return dict(self._columns)

    @property
    def nbytes(self) -> int:
        """Bytes held, spare room included."""
        rows = self._starts.nbytes + self._lengths.nbytes + self._rooms.nbytes
        return rows + sum(column.nbytes for column in self._columns.values())

    def add_rows(self, rows: int) -> None:
        """Have `rows` rows; new ones are empty."""
        for array in (self._starts, self._lengths, self._rooms):
            array.resize(rows)

    def append(self, rows: IntArray, **values: Column) -> Int32Array:
        """Append an entry to row rows[i] for each i in order.

        Args:
            rows: (n,) row numbers, repeated where a row gets more than one entry.
            **values: (n,) what is written to each column.

        Returns:
            (n,) int32, the place of each new entry within its row.

        Raises:
            IndexError: there is no such row.
        """
        self._check(rows)
        ordinals, outgrown = _extend(rows, self.lengths, self._rooms.values)
        self._move(outgrown, self.lengths[outgrown])
        for name, column in self._columns.items():
            _write(rows, ordinals, values[name], self.starts, column)
        return ordinals

    def reserve(self, rows: IntArray, lengths: IntArray) -> None:
        """Give distinct rows (n,) room for at least so many entries (n,); their lengths stay as they are.

        Raises:
            IndexError: there is no such row.
        """
        self._check(rows)
        short = self._rooms.values[rows] < lengths
        self._move(rows[short], lengths[short])

    def gather(self, rows: IntArray) -> tuple[IntArray, dict[str, Column]]:
        """A copy of rows (n,), one after the other.

        Returns:
            Their lengths (n,) int64, and the columns (sum of lengths,) by name.

        Raises:
            IndexError: there is no such row.
        """
        self._check(rows)
        starts, lengths = self.starts[rows], self.lengths[rows]
        ends = np.cumsum(lengths)
        size = int(ends[-1]) if len(ends) else 0
        return lengths, {
            name: _copied(column, starts, np.empty(size, dtype=column.dtype), ends - lengths, lengths)
            for name, column in self._columns.items()
        }

    def _check(self, rows: IntArray) -> None:
        """Compiled loops do not look where they write."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")

    def _move(self, rows: IntArray, lengths: IntArray) -> None:
        """Move distinct rows (n,) to the end of the pool, with room for so many entries (n,)."""
        if not len(rows):
            return
        rooms = _powers_of_two(lengths)
        size = int(rooms.sum())
        if self._end + size > self._size:
            self._pack(size)
        starts = self._end + np.cumsum(rooms) - rooms
        for column in self._columns.values():
            _copied(column, self.starts[rows], column, starts, self._rooms.values[rows])
        self.starts[rows], self._rooms.values[rows] = starts, rooms
        self._end += size

    def _pack(self, moving: int) -> None:
        """Lay all rows into a new pool, each with the room it has; `moving` places are about to be taken."""
        rooms = self._rooms.values
        # New entries are counted already, but not yet written.
        kept = np.minimum(self.lengths, rooms)
        packed = np.cumsum(rooms) - rooms
        self._end = int(rooms.sum())
        self._size = (self._end + moving) * 3 // 2
        # One after the other, so that the old pool of the one is gone before the new pool of the other is filled. What
        # is not written to takes no memory yet.
        for name in self._columns:
            grown = np.zeros(self._size, dtype=self._columns[name].dtype)
            self._columns[name] = _copied(self._columns[name], self.starts, grown, packed, kept)
        self.starts[:] = packed


@compiled
def order_in_rows(lengths: IntArray, values: Int32Array) -> IntArray:
    """Places that put the values (n,) of rows of some lengths (rows,) in ascending order within each row, (n,)."""
    order, begin = np.empty(len(values), dtype=np.int64), 0
    for row in range(len(lengths)):
        end = begin + lengths[row]
        order[begin:end] = begin + np.argsort(values[begin:end], kind="mergesort")
        begin = end
    return order


@compiled
def _powers_of_two(numbers: IntArray) -> IntArray:
    """The smallest powers of two that are not below numbers (n,)."""
    powers = np.ones(len(numbers), dtype=np.int64)
    for i in range(len(numbers)):
        while powers[i] < numbers[i]:
            powers[i] *= 2
    return powers


@compiled
def _extend(rows: IntArray, lengths: IntArray, rooms: IntArray) -> tuple[Int32Array, IntArray]:
    """Make rows longer by what is appended to rows (n,).

    Returns:
        (n,) place of each new entry within its row, and the distinct rows that no longer have room, in the order of
        their last new entry.
    """
    ordinals = np.empty(len(rows), dtype=np.int32)
    for i in range(len(rows)):
        ordinals[i] = lengths[rows[i]]
        lengths[rows[i]] += 1
    outgrown = np.empty(len(rows), dtype=np.int64)
    count = 0
    for i in range(len(rows)):
        length = lengths[rows[i]]
        if ordinals[i] + 1 == length and length > rooms[rows[i]]:
            outgrown[count] = rows[i]
            count += 1
    return ordinals, outgrown[:count].copy()


@compiled
def _write(rows: IntArray, ordinals: Int32Array, values: Column, starts: IntArray, column: Column) -> None:
    """Write new entries (n,) where they belong."""
    for i in range(len(rows)):
        column[starts[rows[i]] + ordinals[i]] = values[i]


@compiled
def _copied(source: Column, starts: IntArray, target: Column, new_starts: IntArray, lengths: IntArray) -> Column:
    """Copy runs of given lengths (rows,) from one column into another, or to places of its own that are free."""
    for row in range(len(lengths)):
        for j in range(lengths[row]):
            target[new_starts[row] + j] = source[starts[row] + j]
    return target

"""Rows of growing length in one pool: the pairs of each user, or of each item."""

import numpy as np
import numpy.typing as npt

from recsys.model.arrays import GrowingArray, IntArray, ragged_ranges


class AdjacencyLists:
    """Lists of slots, one per row, appended to in batches.

    All lists lie in one pool of int32. A list has room for a power of two of entries; one that outgrows it moves to the
    end of the pool with twice the room. When more than half of the pool is abandoned it is packed anew, so memory and
    the time per append stay proportional to what is stored. The order in a row is the order of appending.
    """

    def __init__(self) -> None:
        self._start = GrowingArray((), np.int64)
        self._length = GrowingArray((), np.int64)
        self._room = GrowingArray((), np.int64)
        self._pool = GrowingArray((), np.int32)

    def __len__(self) -> int:
        return len(self._length)

    @property
    def lengths(self) -> IntArray:
        """(rows,) int64, as a view."""
        return self._length.values

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._start.nbytes + self._length.nbytes + self._room.nbytes + self._pool.nbytes

    def add_rows(self, rows: int) -> None:
        """Have `rows` rows; new ones are empty."""
        for array in (self._start, self._length, self._room):
            array.resize(rows)

    def append(self, rows: IntArray, slots: IntArray) -> None:
        """Append slots[i] to row rows[i] for each i in order.

        Args:
            rows: (n,) row numbers, repeated where a row gets more than one slot.
            slots: (n,) what is appended.
        """
        order = np.argsort(rows, kind="stable")
        touched, counts = np.unique(rows, return_counts=True)
        self._make_room(touched, counts)
        begin = self._start.values[touched] + self._length.values[touched]
        self._pool.values[ragged_ranges(begin, counts)] = slots[order]
        self._length.values[touched] += counts

    def gather(self, rows: IntArray) -> tuple[IntArray, npt.NDArray[np.int32]]:
        """Lists of rows (n,), one after the other.

        Returns:
            Their lengths (n,) int64 and their slots (sum of lengths,) int32.
        """
        lengths = self._length.values[rows]
        return lengths, self._pool.values[ragged_ranges(self._start.values[rows], lengths)]

    def _make_room(self, rows: IntArray, counts: IntArray) -> None:
        needed = self._length.values[rows] + counts
        outgrown = needed > self._room.values[rows]
        self._move(rows[outgrown], _power_of_two(needed[outgrown]))
        if len(self._pool) > 2 * int(self._room.values.sum()):
            self._pack()

    def _move(self, rows: IntArray, room: IntArray) -> None:
        """Give rows new places with the given room at the end of the pool."""
        lengths, slots = self.gather(rows)
        begin = len(self._pool)
        self._pool.resize(begin + int(room.sum()))
        self._start.values[rows] = begin + np.cumsum(room) - room
        self._room.values[rows] = room
        self._pool.values[ragged_ranges(self._start.values[rows], lengths)] = slots

    def _pack(self) -> None:
        """Lay all rows into a new pool, each with the room it had."""
        rows = np.arange(len(self))
        lengths, slots = self.gather(rows)
        room = self._room.values
        self._start.values[:] = np.cumsum(room) - room
        self._pool = GrowingArray((), np.int32)
        self._pool.resize(int(room.sum()))
        self._pool.values[ragged_ranges(self._start.values, lengths)] = slots


def _power_of_two(numbers: IntArray) -> IntArray:
    """The smallest power of two not below each number (n,) >= 1."""
    return np.left_shift(1, np.ceil(np.log2(numbers)).astype(np.int64))

"""A hash index from (user, item) pairs to slots, in numpy, without a Python loop over pairs."""

from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.model.arrays import GrowingArray, IntArray

_FIRST_SIZE = 1024
# 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming 3, 6.4: multiplicative hashing).
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_LOW_BITS = np.int64(0xFFFFFFFF)


class PairIndex:
    """Gives each distinct pair of codes a slot 0, 1, 2, ... in order of first appearance.

    Open addressing with linear probing. The table holds slots only (int32, -1 for a free place) and compares with the
    key of the slot. It is doubled before it is half full, so probes stay short.

    Args:
        keys: Keys of the first slots, distinct, as `keys` gave them.
    """

    def __init__(self, keys: npt.ArrayLike = ()) -> None:
        self._keys = GrowingArray(keys, np.int64)
        self._table: npt.NDArray[np.int32] = np.empty(0, dtype=np.int32)
        self._reserve(len(self._keys))

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> IntArray:
        """(slots,) int64: user code in the upper 32 bits, item code in the lower."""
        return self._keys.values

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._keys.nbytes + self._table.nbytes

    def users(self, slots: npt.NDArray[Any]) -> IntArray:
        """User codes of slots (n,)."""
        users: IntArray = self.keys[slots] >> 32
        return users

    def items(self, slots: npt.NDArray[Any]) -> IntArray:
        """Item codes of slots (n,)."""
        items: IntArray = self.keys[slots] & _LOW_BITS
        return items

    def find(self, users: IntArray, items: IntArray) -> IntArray:
        """Slots of pairs (n,) int64, -1 for pairs that have none. Codes are at least 0 and below 2^31."""
        return self._find(_keys(users, items))

    def find_or_add(self, users: IntArray, items: IntArray) -> IntArray:
        """Slots of pairs (n,) int64. A new pair takes the next slot; a pair may occur more than once."""
        keys = _keys(users, items)
        slots = self._find(keys)
        missing = np.flatnonzero(slots < 0)
        distinct, first, inverse = np.unique(keys[missing], return_index=True, return_inverse=True)
        appearance = np.argsort(first)
        added = np.empty(len(distinct), dtype=np.int64)
        added[appearance] = np.arange(len(self), len(self) + len(distinct))
        slots[missing] = added[inverse]
        self._keys.append(distinct[appearance])
        if not self._reserve(len(self)):
            self._place(added)
        return slots

    def _find(self, keys: IntArray) -> IntArray:
        slots = np.full(len(keys), -1, dtype=np.int64)
        pending, places, last = np.arange(len(keys)), self._home(keys), len(self._table) - 1
        while len(pending):
            found = self._table[places]
            used = found >= 0
            pending, places, found = pending[used], places[used], found[used]
            other = self.keys[found] != keys[pending]
            slots[pending[~other]] = found[~other]
            pending, places = pending[other], (places[other] + 1) & last
        return slots

    def _place(self, slots: IntArray) -> None:
        """Write slots, whose keys are stored but not yet in the table, into it."""
        places, last = self._home(self.keys[slots]), len(self._table) - 1
        while len(slots):
            free = self._table[places] < 0
            # Of several slots that claim one place one is written; the others read it back and move on.
            self._table[places[free]] = slots[free]
            lost = self._table[places] != slots
            slots, places = slots[lost], (places[lost] + 1) & last

    def _reserve(self, count: int) -> bool:
        """Make the table large enough for `count` slots; True if it was made anew, with all slots in it."""
        size = max(len(self._table), _FIRST_SIZE)
        while size < 2 * count:
            size *= 2
        if size == len(self._table):
            return False
        self._table = np.full(size, -1, dtype=np.int32)
        self._place(np.arange(len(self)))
        return True

    def _home(self, keys: IntArray) -> IntArray:
        shift = np.uint64(65 - len(self._table).bit_length())
        return ((keys.view(np.uint64) * _MULTIPLIER) >> shift).astype(np.int64)


def _keys(users: IntArray, items: IntArray) -> IntArray:
    return (users << np.int64(32)) | items

"""A hash index from (user, item) pairs to slots, filled and read by compiled loops."""

import numpy as np
import numpy.typing as npt

from recsys.model.common.arrays import GrowingArray, Int32Array, IntArray
from recsys.model.common.jit import compiled

_FIRST_SIZE = 1024
_FREE = -1
# 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming 3, 6.4: multiplicative hashing).
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_LOW_BITS = np.int64(0xFFFFFFFF)


class PairIndex:
    """Gives each distinct pair of codes a slot 0, 1, 2, ... in order of first appearance; at most 2^31 of them.

    Open addressing with linear probing. The table holds slots only (int32, -1 for a free place) and compares with the
    key of the slot. It is doubled before it is half full, so probes stay short and n pairs take time O(n) in all.

    Args:
        keys: Keys of the first slots, distinct, as `keys` gave them.
    """

    def __init__(self, keys: npt.ArrayLike = ()) -> None:
        self._keys = GrowingArray(keys, np.int64)
        self._table = _filled_table(self.keys, _table_size(len(self)))

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

    def users(self, begin: int = 0) -> IntArray:
        """User codes of the slots from `begin` on."""
        users: IntArray = self.keys[begin:] >> 32
        return users

    def items(self, begin: int = 0) -> IntArray:
        """Item codes of the slots from `begin` on."""
        items: IntArray = self.keys[begin:] & _LOW_BITS
        return items

    def find(self, users: IntArray, items: IntArray) -> IntArray:
        """Slots of pairs (n,) int64, -1 for pairs that have none. Codes are at least 0 and below 2^31."""
        return _find(keys_of(users, items), self.keys, self._table)

    def find_or_add(self, users: IntArray, items: IntArray) -> IntArray:
        """Slots of pairs (n,) int64. A new pair takes the next slot; a pair may occur more than once."""
        wanted = keys_of(users, items)
        slots = _find(wanted, self.keys, self._table)
        missing = np.flatnonzero(slots < 0)
        known = len(self)
        size = _table_size(known + len(missing))
        if size > len(self._table):
            self._table = _filled_table(self.keys, size)
        self._keys.resize(known + len(missing))
        slots[missing], count = _add(wanted[missing], self.keys, known, self._table)
        self._keys.resize(count)
        return slots


def keys_of(users: IntArray, items: IntArray) -> IntArray:
    """Keys (n,) of pairs of codes (n,)."""
    return (users << np.int64(32)) | items


def _table_size(count: int) -> int:
    """Places of a table for `count` slots: a power of two, at least twice as many."""
    return max(_FIRST_SIZE, 1 << (2 * count - 1).bit_length())


def _filled_table(keys: IntArray, size: int) -> Int32Array:
    """A table of `size` places in which every slot can be found by its key (slots,)."""
    table = np.full(size, _FREE, dtype=np.int32)
    _fill(keys, table)
    return table


@compiled
def _shift(table: Int32Array) -> np.uint64:
    """How far a product is shifted so that as many bits are left as number the places of the table."""
    bits = 0
    while 1 << bits < len(table):
        bits += 1
    return np.uint64(64 - bits)


@compiled
def _home(key: np.int64, shift: np.uint64) -> np.int64:
    """The place where the search for a key begins."""
    return np.int64((np.uint64(key) * _MULTIPLIER) >> shift)


@compiled
def _place(key: np.int64, keys: IntArray, table: Int32Array, shift: np.uint64) -> np.int64:
    """The place of the slot that has this key, or else the free place where it belongs."""
    place = _home(key, shift)
    while table[place] != _FREE and keys[table[place]] != key:
        place = (place + 1) & (len(table) - 1)
    return place


@compiled
def _fill(keys: IntArray, table: Int32Array) -> None:
    """Write the slots of distinct keys (slots,) into a table that is free."""
    shift = _shift(table)
    for slot in range(len(keys)):
        place = _home(keys[slot], shift)
        while table[place] != _FREE:
            place = (place + 1) & (len(table) - 1)
        table[place] = slot


@compiled
def _find(wanted: IntArray, keys: IntArray, table: Int32Array) -> IntArray:
    """Slots of keys `wanted` (n,), or -1."""
    shift = _shift(table)
    slots = np.empty(len(wanted), dtype=np.int64)
    for i in range(len(wanted)):
        # A free place holds -1, which is just what is returned for a key that has no slot.
        slots[i] = table[_place(wanted[i], keys, table, shift)]
    return slots


@compiled
def _add(wanted: IntArray, keys: IntArray, count: int, table: Int32Array) -> tuple[IntArray, int]:
    """Slots of keys `wanted` (n,), and how many slots there are then.

    The first `count` of `keys` have slots; the rest is room, where the keys of new slots are written.
    """
    shift = _shift(table)
    slots = np.empty(len(wanted), dtype=np.int64)
    for i in range(len(wanted)):
        place = _place(wanted[i], keys, table, shift)
        if table[place] == _FREE:
            table[place] = count
            keys[count] = wanted[i]
            count += 1
        slots[i] = table[place]
    return slots, count

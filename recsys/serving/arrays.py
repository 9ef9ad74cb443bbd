"""Arrays of a version, and small tools to read them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


class Lists(NamedTuple):
    """Items of n users, one after the other.

    Attributes:
        offsets: (n + 1,) int64; the items of user u are items[offsets[u]:offsets[u + 1]].
        items: (pairs,) int32, rows of items.
    """

    offsets: Array
    items: Array

    @classmethod
    def of(cls, lengths: Array, items: Array) -> "Lists":
        """From the number of items (n,) of each user."""
        return cls(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), items.astype(np.int32))

    @classmethod
    def empty(cls, users: int) -> "Lists":
        """No items for so many users."""
        return cls(np.zeros(users + 1, dtype=np.int64), np.zeros(0, dtype=np.int32))

    @property
    def lengths(self) -> Array:
        """(n,) int64."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> Array:
        """(pairs,) int64, the user of each item."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.lengths)

    def of_users(self, users: slice | Array) -> "Lists":
        """The lists of some users: a slice, or their places (m,)."""
        starts, lengths = self.offsets[:-1][users], self.lengths[users]
        return Lists.of(lengths, self.items[ragged_ranges(starts, lengths)])


class PairValues:
    """Values of distinct (user, item) pairs, 0 for all others.

    Args:
        keys: (pairs,) int64 ascending, owner * items + item.
        values: (pairs,).
        items: How many items there are.
    """

    def __init__(self, keys: Array, values: Array, items: int) -> None:
        self.keys, self.values = keys, values
        self.owners, self.items = np.divmod(keys, max(items, 1))
        self._width = items

    def at(self, owners: Array, items: Array) -> Array:
        """Values (c,) of pairs (c,)."""
        places, found = self.find(owners, items)
        values: Array = np.where(found, np.append(self.values, 0.0)[places], 0.0)
        return values

    def find(self, owners: Array, items: Array) -> tuple[Array, Array]:
        """Places (c,) of pairs (c,), and whether they are there."""
        keys = owners * self._width + items
        places = np.searchsorted(self.keys, keys)
        return places, np.append(self.keys, -1)[places] == keys


def ragged_ranges(starts: Array, lengths: Array) -> Array:
    """Concatenate `starts[i], starts[i] + 1, ..., starts[i] + lengths[i] - 1` over all i.

    Args:
        starts: (n,) first number of each range.
        lengths: (n,) length of each range, 0 allowed.

    Returns:
        (sum of lengths,) int64.
    """
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    positions: Array = np.repeat(starts - (ends - lengths), lengths)
    positions += np.arange(total)
    return positions


def latest_of(recent: Array, rows: Array) -> Array:
    """(n, latest) rows of the latest items of users (users, latest); zeros for unknown users; a copy."""
    known = (rows >= 0) & (rows < len(recent))
    latest = np.zeros((len(rows), recent.shape[1]), dtype=np.int32)
    latest[known] = recent[rows[known]]
    return latest


def part(arrays: Arrays, name: str) -> dict[str, Array]:
    """The arrays whose names begin with `NAME.`, without that beginning."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}


def prefixed(arrays: Arrays, name: str) -> dict[str, Array]:
    """The arrays with `NAME.` before their names; `part` undoes it."""
    return {f"{name}.{key}": array for key, array in arrays.items()}

"""Inner products of users with all items: the best ones, and how many stand above given ones."""

from typing import NamedTuple

import numpy as np

from .arrays import Array, Lists
from .topk import GROUP, TILE, all_products, best_products, products_at

# Half of the distance between 1 and the next float32, the largest relative error of one operation.
_ROUNDING = 2.0**-24


class Best(NamedTuple):
    """The best items of n users.

    Attributes:
        items: (n, k) int32, best first.
        scores: (n, k) float64 that are float32 numbers.
        lengths: (n,) int64, how many of each row are used.
        above: (w,) int64, how many items score at least as much as each of the wanted ones, itself included.
    """

    items: Array
    scores: Array
    lengths: Array
    above: Array


class Products:
    """The items of a version, prepared for `topk.best_products`.

    Args:
        items: (items, f) float32.
    """

    def __init__(self, items: Array) -> None:
        self._items = np.ascontiguousarray(items, dtype=np.float32)
        count, factors = items.shape
        lengths = np.sqrt(np.einsum("if,if->i", items, items, dtype=np.float64))
        order = np.argsort(-lengths, kind="stable").astype(np.int32)
        panels = -(-count // TILE)
        self._order = np.full(panels * TILE, -1, dtype=np.int32)
        self._order[:count] = order
        rows = np.zeros((panels * TILE, _whole(factors)), dtype=np.float32)
        rows[:count, :factors] = self._items[order]
        self._panels = np.ascontiguousarray(rows.reshape(panels, TILE, rows.shape[1]).transpose(0, 2, 1))
        self._panels = self._panels.reshape(panels, rows.shape[1] * TILE)
        self._lengths = lengths[order[::TILE]]
        # A sum of f products, and the rounding of the bound that it is compared with.
        self._error = (factors + 8) * _ROUNDING * (float(lengths.max()) if count else 0.0)

    def __len__(self) -> int:
        """How many items there are."""
        return len(self._items)

    def all(self, users: Array) -> Array:
        """(n, items) float32 products of users (n, f)."""
        return all_products(np.ascontiguousarray(users), self._items)

    def best(self, users: Array, k: Array, left_out: Lists, wanted: Lists) -> Best:
        """The best items of users, and the ranks of wanted items.

        Args:
            users: (n, f) float32.
            k: (n,) int64, wanted lengths of the lists.
            left_out: items that no list may hold, ascending; they count above the wanted ones all the same.
            wanted: items whose rank is asked for.
        """
        users = np.ascontiguousarray(users, dtype=np.float32)
        lengths = np.sqrt(np.einsum("uf,uf->u", users, users, dtype=np.float64)) * (1 + 2 * _ROUNDING)
        k = np.minimum(k, len(self._items))
        shape = len(users), int(k.max(initial=0))
        scores, items = np.zeros(shape), np.full(shape, -1, dtype=np.int32)
        above = np.zeros(len(wanted.items), dtype=np.int64)
        sides = (users, self._items, self._grouped(users), self._panels, self._order, self._lengths)
        sizes = best_products(
            sides,
            (k, lengths, lengths * self._error),
            (left_out.offsets, left_out.items),
            (wanted.offsets, self.at(users, wanted)),
            scores,
            items,
            above,
        )
        return Best(items, scores, sizes, above)

    def at(self, users: Array, lists: Lists) -> Array:
        """(c,) float64 products of users (n, f) with items; they are float32 numbers."""
        return products_at(np.ascontiguousarray(users), self._items, lists.offsets, lists.items)

    def _grouped(self, users: Array) -> Array:
        """Users as `topk` multiplies them: four at a time, factor by factor."""
        count, factors = users.shape
        padded = np.zeros((-(-count // GROUP) * GROUP, _whole(factors)), dtype=np.float32)
        padded[:count, :factors] = users
        return np.ascontiguousarray(padded.reshape(-1, GROUP, padded.shape[1]).transpose(0, 2, 1)).ravel()


def _whole(factors: int) -> int:
    """The number of factors, filled up to a multiple of four."""
    return -(-factors // 4) * 4

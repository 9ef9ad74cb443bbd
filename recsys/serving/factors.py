"""The scorer of products of factors."""

from typing import ClassVar

import numpy as np

from .arrays import Array, Arrays, Lists
from .axes import ITEMS, USERS, Axes, Declared, Loss, NewItem
from .products import Products
from .ranking import Ranked, missing
from .walks import at_least

# What is computed for so many users stays in the cache, and the calls still cost little.
_USERS_AT_ONCE = 128


class AlsScorer:
    """Inner products of `user_factors` (users, f) float32 and `item_factors` (items, f) float32."""

    axes: ClassVar[Declared] = {
        "user_factors": Axes((USERS, "factors"), loss=Loss.BY_ROW),
        "item_factors": Axes((ITEMS, "factors"), NewItem.TEXT, Loss.BY_ROW),
    }
    users_at_once = _USERS_AT_ONCE

    def __init__(self, arrays: Arrays) -> None:
        self._users, self._products = arrays["user_factors"], Products(arrays["item_factors"])

    def factors(self, rows: Array) -> Array:
        """(n, f) float32, zeros for unknown users."""
        return factors_of(self._users, rows)

    def score(self, rows: Array) -> Array:
        """See `Scorer`."""
        return self.of_users(rows).all()

    def of_users(self, rows: Array) -> "FactorScores":
        """The scores of users (n,), none of which is computed yet."""
        return FactorScores(self.factors(rows), self._products)

    def rank(self, rows: Array, k: Array, left_out: Lists, wanted: Lists) -> Ranked:
        """See `Scorer`."""
        return self.of_users(rows).rank(k, left_out, wanted)


class FactorScores:
    """Products of the factors of n users with all items.

    Args:
        users: (n, f) float32.
        products: The items.
    """

    def __init__(self, users: Array, products: Products) -> None:
        self._users, self._products = users, products

    def rank(self, k: Array, left_out: Lists, wanted: Lists) -> Ranked:
        """See `Scorer`."""
        informed = np.asarray(self._users.any(axis=1))
        best = self._products.best(self._users, np.where(informed, k, 0), left_out, wanted)
        # Whose best product is not 0 has a score; of others it takes a closer look.
        unclear = np.flatnonzero(informed & ((best.lengths == 0) | (best.scores[:, :1] == 0).any(axis=1)))
        informed[unclear] = self._products.all(self._users[unclear]).any(axis=1)
        own, closed = self.at(wanted), missing(wanted, left_out, len(self._products))
        beside = self.at(left_out)
        above = best.above - 1
        above -= at_least(wanted.offsets, own, left_out.offsets, beside, np.ones(len(beside), dtype=bool))
        open_items = len(self._products) - left_out.lengths
        scores = best.scores.astype(np.float32)
        return Ranked(best.items, scores, best.lengths, np.where(closed, -1, above), open_items, informed)

    def at(self, lists: Lists) -> Array:
        """(c,) float64 scores of items."""
        return self._products.at(self._users, lists)

    def all(self) -> Array:
        """(n, items) float32."""
        return self._products.all(self._users)


def factors_of(users: Array, rows: Array) -> Array:
    """(n, f) float32 factors of users by their row, zeros for unknown ones."""
    factors = np.zeros((len(rows), users.shape[1]), dtype=np.float32)
    known = (rows >= 0) & (rows < len(users))
    factors[known] = users[rows[known]]
    return factors

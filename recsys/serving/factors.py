"""The scorer of products of factors."""

from copy import copy
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from .arrays import Array, Arrays, Lists
from .axes import ITEMS, USERS, Axes, Declared, Loss, NewItem
from .fold_in import FoldIn
from .products import Products
from .ranking import Contributions, DenseScorer, Ranked, Reason, missing, strongest
from .walks import at_least

# What is computed for so many users stays in the cache, and the calls still cost little.
_USERS_AT_ONCE = 128


class AlsScorer(DenseScorer):
    """Inner products of `user_factors` (users, f) float32 and `item_factors` (items, f) float32.

    For users' recent items and for reasons it takes what `FoldIn` needs.
    """

    axes: ClassVar[Declared] = {
        "user_factors": Axes((USERS, "factors"), loss=Loss.BY_ROW),
        "item_factors": Axes((ITEMS, "factors"), NewItem.TEXT, Loss.BY_ROW),
        "gram": Axes(("factors", "factors")),
        "objective": Axes(("alpha, regularization, exponent, items",)),
    }
    users_at_once = _USERS_AT_ONCE

    def __init__(self, arrays: Arrays) -> None:
        self._users, self._products = arrays["user_factors"], Products(arrays["item_factors"])
        self._fold_in, self._asked = FoldIn.of(arrays), Asked.plain()

    def factors(self, rows: Array) -> Array:
        """(n, f) float32, zeros for unknown users."""
        return factors_of(self._users, rows)

    def score(self, rows: Array) -> Array:
        """See `Scorer`."""
        return self.of_users(rows).all()

    def of_users(self, rows: Array) -> "FactorScores":
        """The scores of users (n,), none of which is computed yet."""
        return FactorScores(self.factors(rows), self._products)

    def with_recent(self, rows: Array, recent: Lists) -> Self:
        """See `VersionedScorer`; without what `FoldIn` needs, recent items change nothing."""
        view = copy(self)
        view._users, view._asked = folded_in(self._fold_in, self.factors(rows), rows, recent), Asked(rows, recent)
        return view

    def contributions(self, rows: Array, lists: Lists) -> list[Contributions]:
        """See `VersionedScorer`."""
        return [{"factors": score} for score in self.at(rows, lists).tolist()]

    def reasons(self, rows: Array, lists: Lists) -> list[list[Reason]]:
        """See `VersionedScorer`."""
        return self._asked.reasons(self._fold_in, rows, lists)


@dataclass(frozen=True)
class Asked:
    """What users are asked about: their rows in the version, and what they have just done.

    Attributes:
        rows: (n,) rows of the version, or None: a row is its own.
        recent: Items of these users, latest last.
    """

    rows: Array | None
    recent: Lists

    @classmethod
    def plain(cls) -> "Asked":
        """Rows of the version itself, and nothing recent."""
        return cls(None, Lists.empty(0))

    def version_rows(self, rows: Array) -> Array:
        """(n,) rows in the version."""
        return rows if self.rows is None else self.rows[rows]

    def reasons(self, fold_in: FoldIn | None, rows: Array, lists: Lists) -> list[list[Reason]]:
        """Items of users (n,) because of which items (c,) score by their factors as they do, strongest first."""
        found = list[list[Reason]]()
        recent = Lists.empty(len(rows)) if self.rows is None else self.recent.of_users(rows)
        for user, row in enumerate(self.version_rows(rows).tolist()):
            items, recent_items = (one.items[one.offsets[user] : one.offsets[user + 1]] for one in (lists, recent))
            if fold_in is None or not len(items):
                found += [[] for _ in items]
                continue
            own, parts = fold_in.shares(row, recent_items, items)
            found += [strongest("als", own, weights) for weights in parts]
        return found


def folded_in(fold_in: FoldIn | None, factors: Array, rows: Array, recent: Lists) -> Array:
    """(n, f) factors of users with their recent items, from those that the version has."""
    return factors if fold_in is None else fold_in.factors(rows, recent, factors)


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

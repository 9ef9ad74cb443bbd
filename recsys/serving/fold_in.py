"""Factors of users from what a version knows of them and what they have just done, by one ridge solve each."""

import numpy as np

from .arrays import Array, Arrays, Lists

# What one recent item counts, in the unit of event weights: one event of a type that weighs 1, now.
RECENT_WEIGHT = 1.0


class FoldIn:
    """Solves users against the items of a version, with the objective that trained them.

    With item factors y_i, weights w of a user's items and t = alpha w where w > 0, else 0, the factors of the user are

        x = A^-1 sum of t_i y_i,    A = G + penalty I + sum of alpha |w_i| y_i y_i'

    (Hu, Koren & Volinsky 2008, with the penalty of Rendle et al. 2021). So the score of item j is the sum of
    t_i y_j' A^-1 y_i over the user's items i, which explains it (section 5 of Hu et al.).

    Args:
        arrays: `item_factors` (items, f) float32; `gram` (f, f), the sum G of y y' of all items that were trained;
            `objective` (4,): alpha, regularization, its exponent and the number of those items; `seen_offsets`,
            `seen_items` and `seen_weights`, what users have interacted with and how much it weighs.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._items, self._gram = arrays["item_factors"], arrays["gram"].astype(np.float64)
        self._alpha, self._regularization, self._exponent, self._trained = arrays["objective"].tolist()
        self._offsets, self._seen, self._weights = (arrays[f"seen_{name}"] for name in ("offsets", "items", "weights"))

    @classmethod
    def of(cls, arrays: Arrays) -> "FoldIn | None":
        """None where the version does not hold what it takes."""
        return cls(arrays) if "objective" in arrays and "seen_weights" in arrays else None

    def factors(self, rows: Array, recent: Lists, factors: Array) -> Array:
        """(n, f) float32 factors of users: of those with recent items solved again, of others as given."""
        solved = factors.copy()
        for place in np.flatnonzero(recent.lengths).tolist():
            system, items, targets = self._system(int(rows[place]), _own(recent, place))
            solved[place] = np.linalg.solve(system, targets @ self._items[items])
        return solved

    def shares(self, row: int, recent: Array, items: Array) -> tuple[Array, Array]:
        """The part that each item of a user has in scores.

        Args:
            row: The user, -1 for an unknown one.
            recent: (r,) rows of items, latest last.
            items: (c,) rows of the items that are scored.

        Returns:
            The user's items (j,), and what each adds to each score, (c, j); each row adds up to the score.
        """
        system, own, targets = self._system(row, recent)
        pulls = np.linalg.solve(system, self._items[own].T.astype(np.float64))
        parts: Array = (self._items[items] @ pulls) * targets
        return own, parts

    def _system(self, row: int, recent: Array) -> tuple[Array, Array, Array]:
        """The matrix A (f, f), the user's items (j,) and their t (j,)."""
        known = 0 <= row < len(self._offsets) - 1
        pairs = slice(*self._offsets[row : row + 2]) if known else slice(0, 0)
        items, places = np.unique(np.concatenate([self._seen[pairs], recent]), return_inverse=True)
        amounts = np.concatenate([self._weights[pairs], np.full(len(recent), RECENT_WEIGHT)])
        weights = np.bincount(places, amounts, minlength=len(items))
        factors, confidences = self._items[items].astype(np.float64), self._alpha * np.abs(weights)
        penalty = self._regularization * (confidences.sum() + self._trained) ** self._exponent
        system = self._gram + penalty * np.eye(len(self._gram)) + (factors.T * confidences) @ factors
        return system, items, self._alpha * np.maximum(weights, 0)


def _own(lists: Lists, user: int) -> Array:
    return lists.items[lists.offsets[user] : lists.offsets[user + 1]]

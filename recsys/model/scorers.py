"""How a registered version scores. This file travels inside the artifact, so it imports numpy only.

What is served is what is measured: learners that are written in numpy score with these functions too. Each scorer is
made from the arrays that its learner's `served` returns:

| kind  | name           | shape       | type    |
|-------|----------------|-------------|---------|
| `als` | `user_factors` | (users, f)  | float32 |
|       | `item_factors` | (items, f)  | float32 |
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


class Scorer(Protocol):
    """Scores all items for users, by their row in the version's arrays."""

    def score(self, rows: Array) -> Array:
        """(n, items) float32 for rows (n,) of users, -1 for unknown ones; a row of zeros where nothing is known."""


class AlsScorer:
    """Inner products of factors."""

    def __init__(self, arrays: Arrays) -> None:
        self._users, self._items = arrays["user_factors"], arrays["item_factors"]

    def score(self, rows: Array) -> Array:
        """See `Scorer`."""
        factors = np.zeros((len(rows), self._users.shape[1]), dtype=np.float32)
        known = (rows >= 0) & (rows < len(self._users))
        factors[known] = self._users[rows[known]]
        scores: Array = factors @ self._items.T
        return scores


SCORERS: dict[str, Callable[[Arrays], Scorer]] = {"als": AlsScorer}


class VersionScorer:
    """The scores of a registered version: its learner's, or the popularity for users about whom that knows nothing.

    Args:
        arrays: All arrays of the version; `kind` says what made them, as bytes (n,) uint8.

    Raises:
        KeyError: this release does not know the kind.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._scorer = SCORERS[arrays["kind"].tobytes().decode()](arrays)
        self._popularity = arrays["item_popularity"]

    def score(self, rows: Array) -> Array:
        """(n, items) float32 for rows (n,) of users, -1 for unknown ones."""
        scores = self._scorer.score(rows)
        scores[~scores.any(axis=1)] = self._popularity
        return scores

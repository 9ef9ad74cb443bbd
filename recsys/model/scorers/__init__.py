"""How a registered version scores.

This folder travels inside the artifact, so it imports numpy and itself only, by relative names. What is served is what
is measured: learners that are written in numpy score with these functions too. Each scorer is made from the arrays that
its learner's `served` returns, as the scorer describes them.
"""

from collections.abc import Callable

from .base import Array, Arrays, Scorer
from .members import CoOccurrenceScorer, RepeatScorer, TrendScorer
from .mixture import DENSE, MixtureScorer

SCORERS: dict[str, Callable[[Arrays], Scorer]] = {
    **DENSE,
    "trend": TrendScorer,
    "cooccurrence": CoOccurrenceScorer,
    "repeat": RepeatScorer,
    "mixture": MixtureScorer.of,
}


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

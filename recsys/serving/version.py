"""The scores of a registered version, whatever kind of model made it."""

from collections.abc import Callable

from .arrays import Array, Arrays
from .mixture import DENSE, MixtureScorer
from .scorers import CoOccurrenceScorer, RepeatScorer, Scorer, TrendScorer

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

"""The scores of a registered version, whatever kind of model made it."""

from collections.abc import Callable
from dataclasses import dataclass

from .arrays import Array, Arrays
from .axes import ITEMS, USERS, Axes, Declared, NewItem
from .mixture import MEMBERS, MixtureScorer
from .scorers import Scorer


@dataclass(frozen=True)
class Kind:
    """A kind of model as it is served: its scorer, and the axes of the scorer's arrays."""

    scorer: Callable[[Arrays], Scorer]
    axes: Declared


KINDS = {
    **{name: Kind(member, member.axes) for name, member in MEMBERS.items()},
    "mixture": Kind(MixtureScorer.of, MixtureScorer.axes),
}
# Arrays of versions of every kind: `seen_items[seen_offsets[u]:seen_offsets[u + 1]]` are the rows of the items that
# user u has interacted with, ascending.
SHARED = {
    "item_popularity": Axes((ITEMS,), NewItem.ZERO),
    "seen_offsets": Axes((f"{USERS} + 1",)),
    "seen_items": Axes(("pairs",)),
}


def declared_axes(kind: str) -> dict[str, Axes]:
    """The axes of all arrays that a version of a kind may have.

    Raises:
        KeyError: this release does not know the kind.
    """
    return {**KINDS[kind].axes, **SHARED}


class VersionScorer:
    """The scores of a registered version: its learner's, or the popularity for users whom the learner does not know.

    Args:
        kind: What made the version.
        arrays: Its arrays.

    Raises:
        KeyError: this release does not know the kind, or an array is missing.
    """

    def __init__(self, kind: str, arrays: Arrays) -> None:
        self._scorer = KINDS[kind].scorer(arrays)
        self._popularity = arrays["item_popularity"]

    def score(self, rows: Array) -> Array:
        """(n, items) float32 for rows (n,) of users, -1 for unknown ones."""
        scores = self._scorer.score(rows)
        scores[~scores.any(axis=1)] = self._popularity
        return scores

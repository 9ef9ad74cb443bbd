"""The scores of a registered version, whatever kind of model made it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .arrays import Array, Arrays, Lists
from .axes import ITEMS, USERS, Axes, Declared, NewItem
from .mixture import MEMBERS, MixtureScorer
from .ranking import Ranked, Scorer, rank_in_blocks
from .shared import SharedScores


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


class FallbackScorer:
    """The scores of a learner, or the popularity for users about whom it knows nothing.

    Args:
        scorer: Of the learner.
        popularity: (items,) float32.
    """

    def __init__(self, scorer: Scorer, popularity: Array) -> None:
        self._scorer, self._popularity = scorer, popularity

    def score(self, rows: Array) -> Array:
        """(n, items) float32 for rows (n,) of users, -1 for unknown ones."""
        scores = self._scorer.score(rows)
        scores[~scores.any(axis=1)] = self._popularity
        return scores

    def rank(self, rows: Array, k: Array, left_out: Lists, wanted: Lists) -> Ranked:
        """The best items of users, see `Scorer`; uninformed ones get what is popular."""
        ranked = rank_in_blocks(self._scorer, rows, k, left_out, wanted)
        rest = np.flatnonzero(~ranked.informed)
        if len(rest):
            popular = self._popular.rank(k[rest], left_out.of_users(rest), wanted.of_users(rest))
            ranked = ranked.with_lists(rest, popular)
            ranked.above[np.isin(wanted.owners, rest)] = popular.above
        return ranked

    @cached_property
    def _popular(self) -> SharedScores:
        return SharedScores(self._popularity)


class VersionScorer(FallbackScorer):
    """The scores of a registered version: its learner's, or the popularity for users whom the learner does not know.

    Args:
        kind: What made the version.
        arrays: Its arrays.

    Raises:
        KeyError: this release does not know the kind, or an array is missing.
    """

    def __init__(self, kind: str, arrays: Arrays) -> None:
        super().__init__(KINDS[kind].scorer(arrays), arrays["item_popularity"])

"""The scores of a registered version, whatever kind of model made it."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .arrays import Array, Arrays, Lists
from .axes import ITEMS, USERS, Axes, Declared, Loss, NewItem
from .mixture import MEMBERS, MixtureScorer
from .ranking import Contributions, Ranked, Reason, Scorer, ServedBy, VersionedScorer, rank_in_blocks
from .shared import SharedScores


@dataclass(frozen=True)
class Kind:
    """A kind of model as it is served: its scorer, and the axes of the scorer's arrays."""

    scorer: Callable[[Arrays], VersionedScorer]
    axes: Declared


KINDS = {
    **{name: Kind(member, member.axes) for name, member in MEMBERS.items()},
    "mixture": Kind(MixtureScorer.of, MixtureScorer.axes),
}
# Arrays of versions of every kind: `seen_items[seen_offsets[u]:seen_offsets[u + 1]]` are the rows of the items that
# user u has interacted with, ascending; versions with factors have their decayed event weights, too.
SHARED = {
    "item_popularity": Axes((ITEMS,), NewItem.ZERO),
    "seen_offsets": Axes((f"{USERS} + 1",)),
    "seen_items": Axes(("pairs",)),
    "seen_weights": Axes(("pairs",), loss=Loss.LOGARITHMIC),
}


def declared_axes(kind: str) -> dict[str, Axes]:
    """The axes of all arrays that a version of a kind may have.

    Raises:
        KeyError: this release does not know the kind.
    """
    return {**KINDS[kind].axes, **SHARED}


# What folds users in; a version without it answers for no recent items.
_OPTIONAL = {"gram", "objective"}


def absent_arrays(kind: str, arrays: Arrays) -> list[str]:
    """Names of arrays that a version of a kind cannot do without and does not have, but for those of members.

    Raises:
        KeyError: this release does not know the kind.
    """
    needed = {name for name in KINDS[kind].axes if "." not in name}
    return sorted(needed - _OPTIONAL - arrays.keys())


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

    def at(self, rows: Array, lists: Lists) -> Array:
        """(c,) float64 scores of items of users (n,), see `Scorer`."""
        scores = self._scorer.at(rows, lists)
        told = self._informed(rows, lists, scores)[lists.owners]
        found: Array = np.where(told, scores, self._popularity[lists.items])
        return found

    def _informed(self, rows: Array, lists: Lists, scores: Array) -> Array:
        """(n,) whether anything is known about users, of whom items have some scores (c,)."""
        informed = np.zeros(len(rows), dtype=bool)
        informed[lists.owners[scores != 0]] = True
        # Whose scores of all the items asked for are 0 may have others.
        unclear = np.flatnonzero(~informed & (lists.lengths > 0))
        for row in np.unique(rows[unclear]).tolist():
            informed[unclear[rows[unclear] == row]] = self._scorer.score(np.array([row])).any()
        return informed

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
        self._kind, self._versioned = kind, KINDS[kind].scorer(_with_histories(arrays))
        super().__init__(self._versioned, arrays["item_popularity"])

    def with_recent(self, rows: Array, recent: Lists) -> "VersionScorer":
        """See `VersionedScorer`."""
        view = copy(self)
        view._scorer = view._versioned = self._versioned.with_recent(rows, recent)
        return view

    def factors(self, rows: Array) -> Array | None:
        """See `VersionedScorer`."""
        return self._versioned.factors(rows)

    def served_by(self, rows: Array, recent: Lists | None = None) -> ServedBy:
        """The rankings that serve users (n,): a mixture draws them; any other kind has one, of its own name."""
        if isinstance(self._versioned, MixtureScorer):
            return self._versioned.served_by(rows, recent)
        return ServedBy([self._kind], np.zeros(len(rows), dtype=np.int64), np.ones(len(rows)))

    def contributions(self, rows: Array, lists: Lists) -> list[Contributions]:
        """See `VersionedScorer`."""
        informed = self._informed(rows, lists, self._versioned.at(rows, lists))
        popularity = self._popularity[lists.items].tolist()
        own = self._versioned.contributions(rows, lists)
        told = informed[lists.owners].tolist()
        return [own[one] if told[one] else {"popularity": popular} for one, popular in enumerate(popularity)]

    def reasons(self, rows: Array, lists: Lists) -> list[list[Reason]]:
        """See `VersionedScorer`."""
        return self._versioned.reasons(rows, lists)


def _with_histories(arrays: Arrays) -> Arrays:
    """The arrays, with what users have interacted with under the names of each scorer that folds users in."""
    prefixes = [name.removesuffix("objective") for name in arrays if name.endswith("objective")]
    histories = {name: array for name, array in arrays.items() if name.startswith("seen_")}
    return {**arrays, **{f"{prefix}{name}": array for prefix in prefixes for name, array in histories.items()}}

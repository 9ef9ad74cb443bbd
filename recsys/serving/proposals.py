"""Candidate generation by the members of a mixture, and the features of the candidates."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np

from .arrays import Array, Lists
from .candidates import gathered
from .content import CONTENT_FEATURES, ContentScorer
from .factors import AlsScorer
from .neural import NeuralScorer
from .ranking import Ranked, Reason, Scorer, UserScores
from .repeats import REPEAT_FEATURES, RepeatScorer
from .scorers import GROUPS, SITUATIONS, CoOccurrenceScorer, TrendScorer, group_of
from .sequence import SEQUENCE_FEATURES, SequenceScorer
from .sessions import SESSION_FEATURES, RunningNeighbors, SessionScorer, both_ways
from .topk import best_of_segments
from .walks import looked_up

# A smaller score is as good as this one.
_LEAST = 1e-3
# Logarithm of the share of the events that a usual item gets, about.
_USUAL_SHARE = -7.0


class DenseMember(Scorer, Protocol):
    """A member that can score all items."""

    def of_users(self, rows: Array) -> UserScores:
        """The scores of users (n,) by their row."""

    def with_recent(self, rows: Array, recent: Lists) -> "DenseMember":
        """See `VersionedScorer`."""


@dataclass(frozen=True)
class OwnItems:
    """Items that n users have interacted with and may again, (o,), and features that are 0 for all other candidates.

    Attributes:
        lists: the items.
        places: (o,) int64, where they are among the candidates.
        columns: (o, features) float64.
        at: How many of the columns of the other candidates come before these features.
    """

    lists: Lists
    places: Array
    columns: Array
    at: int


@dataclass(frozen=True)
class FirstDense:
    """What the first dense member makes of n users; it also orders the items behind their candidates.

    Attributes:
        scores: Those of all items.
        of_candidates: (c,) float64, those of the candidates.
        ranked: Its own lists, and the ranks of wanted items.
    """

    scores: UserScores
    of_candidates: Array
    ranked: Ranked

    @property
    def informed(self) -> Array:
        """(n,) bool, false for users about whom it knows nothing: the trend orders their items."""
        return self.ranked.informed


@dataclass(frozen=True)
class Candidates:
    """Candidates of n users, one user after the other.

    Attributes:
        lists: c items.
        groups: (n,) situation of each user, a place in `SITUATIONS`.
        columns: (columns, c) float64, the features that depend on the user and not on the item alone, in order, but
            for those of the users' own items.
        own: the users' own items.
        opinions: (others, c) float64 scores by each member alone, except the trend.
        closed: (c,) bool, whether a candidate is left out.
        first: None for a mixture without a dense member.
    """

    lists: Lists
    groups: Array
    columns: Array
    own: OwnItems
    opinions: Array
    closed: Array
    first: FirstDense | None


@dataclass(frozen=True)
class Members:
    """The members of a mixture, by their names in `model.mixture.members`; None for those that it does without.

    Attributes:
        dense: Those that score all items.
    """

    dense: Mapping[str, DenseMember]
    trend: TrendScorer
    cooccurrence: CoOccurrenceScorer | None = None
    repeat: RepeatScorer | None = None
    sessions: SessionScorer | None = None
    content: ContentScorer | None = None
    sequence: SequenceScorer | None = None

    def with_recent(self, rows: Array, recent: Lists) -> "Members":
        """See `VersionedScorer`."""
        others = {name: member for name, member in vars(self).items() if name != "dense" and member is not None}
        views: dict[str, Any] = {name: member.with_recent(rows, recent) for name, member in others.items()}
        return Members({name: member.with_recent(rows, recent) for name, member in self.dense.items()}, **views)


class CandidateGenerator:
    """Asks the members of a mixture for candidates, and for what the re-ranker is to know of them.

    Args:
        members: The members.
        depth: Candidates per member.
        more: How many more at most, to make up for seen items.
    """

    def __init__(self, members: Members, depth: int, more: int) -> None:
        self.members = members
        self._depth, self._more, self.items = depth, more, members.trend.items
        self._leaders = self._leading()
        # Of users whose recent items are known.
        self._situations: Array | None = None

    @property
    def users_at_once(self) -> int:
        """See `Scorer`."""
        return min([AlsScorer.users_at_once, *(member.users_at_once for member in self.members.dense.values())])

    @property
    def rankings(self) -> list[str]:
        """Names of the rankings: the re-ranker's, each trend's, then that of every other member."""
        others = [name for name in ("cooccurrence", "repeat", "sessions") if getattr(self.members, name) is not None]
        return ["reranker", *self.members.trend.names, *self.members.dense, *others]

    def with_recent(self, rows: Array, recent: Lists) -> Self:
        """See `VersionedScorer`."""
        view = copy(self)
        view.members = self.members.with_recent(rows, recent)
        view._situations = self.situations(rows, recent)
        return view

    def with_dense(self, dense: Mapping[str, DenseMember]) -> Self:
        """See `MixtureScorer`."""
        view = copy(self)
        view.members = replace(self.members, dense=dense)
        return view

    def factors(self, rows: Array) -> Array | None:
        """See `VersionedScorer`: those of the first dense member."""
        return next((_of_version(member).factors(rows) for member in self.members.dense.values()), None)

    def reasons(self, rows: Array, lists: Lists) -> list[list[Reason]]:
        """See `VersionedScorer`: those of the factors, then those of the latest items."""
        members = [_of_version(member) for member in self.members.dense.values()][:1]
        told = [member.reasons(rows, lists) for member in members]
        told += [self.members.cooccurrence.reasons(rows, lists)] if self.members.cooccurrence is not None else []
        told += (
            [self.members.sessions.reasons(rows, lists)]
            if self.members.sessions is not None and self._recent_known
            else []
        )
        told += [self.members.content.reasons(rows, lists)] if self.members.content is not None else []
        return [[reason for own in reasons for reason in own] for reasons in zip(*told, strict=True)] or [
            [] for _ in lists.items
        ]

    @property
    def _recent_known(self) -> bool:
        """Whether any user's running session may be known."""
        return self._situations is not None

    def situations(self, rows: Array, recent: Lists) -> Array:
        """(n,) situation of each user by row, (n,), after recent items."""
        found: Array = self.groups(rows) + len(GROUPS) * (recent.lengths > 0)
        return found

    def groups(self, rows: Array) -> Array:
        """(n,) situation of each user, a place in `SITUATIONS`; recent items do not change a group."""
        if self._situations is not None:
            return self._situations[rows]
        return group_of(self.members.trend.known_rows(rows))

    def propose(self, rows: Array, left_out: Lists, wanted: Lists) -> Candidates:
        """Candidates of users by their row, (n,), and what the first dense member makes of wanted items."""
        trend, most, nothing = self.members.trend, self._depth + self._more, Lists.empty(len(rows))
        known = trend.known_rows(rows)
        groups, depth = self.groups(rows), self._depth + np.minimum(known, self._more)
        scored = [member.of_users(rows) for member in self.members.dense.values()]
        ranked = [one.rank(depth, nothing, nothing if place else wanted) for place, one in enumerate(scored)]
        proposed = [(one.items, np.where(one.informed, one.lengths, 0)) for one in ranked]
        if self.members.cooccurrence is not None:
            neighbors, chances, rest = self.members.cooccurrence.neighbors(rows)
            counts = np.minimum(depth, neighbors.lengths)
            proposed.append((in_order(neighbors, chances, counts)[1], counts))
        running = self._running(rows, groups)
        if running is not None:
            counts = np.where(running.known, np.minimum(depth, running.lists.lengths), 0)
            proposed.append((in_order(running.lists, both_ways(running.chances), counts)[1], counts))
        again, counted, facts = self._again(rows)
        table, counts = _stacked(proposed, len(rows))
        leaders, leading = self._leaders
        where = (groups, leaders, (leading[groups] < depth[:, None]).sum(axis=1))
        offsets, codes, ranks, closed, places = gathered(table, counts, *where, *again, *left_out, self.items)
        lists = Lists(offsets, codes)
        columns, opinions = list[Array](), list[Array]()
        levels = -np.log(np.append(most + 1.0, np.arange(1.0, most + 1)))
        values = [scores.at(lists) for scores in scored]
        for one, own_ranks, own in zip(ranked, ranks, values, strict=False):
            told = np.repeat(one.informed, lists.lengths)
            # In the precision of the scores.
            columns.append(np.where(told, np.log(np.maximum(own.astype(np.float32), _LEAST)), 0.0))
            columns.append(np.where(told, levels[own_ranks], 0.0))
            opinions.append(np.where(told, own, trend.typical[codes]))
        if self.members.cooccurrence is not None:
            opinions.append(looked_up(*neighbors, chances, *lists, self.items))
            opinions[-1] += self.members.cooccurrence.beside(rest, lists.owners, codes)
            columns.append(np.log(opinions[-1] + _LEAST**2))
        before = len(columns)
        if self.members.repeat is not None:
            # What members say of a user's own item means something else than of a new one, so it has other weights.
            beside = [trend.typical[again.items] - _USUAL_SHARE, *(column[places] for column in columns)]
            facts = np.column_stack([facts, *beside])
            opinions.append(self.members.repeat.share[codes].astype(np.float64))
            opinions[-1][places] += counted
        if self.members.content is not None:
            columns.extend(self.members.content.alike(rows, lists))
        if self.members.sequence is not None:
            columns.extend(self.members.sequence.following(rows, lists))
        if running is not None:
            told, sides = np.repeat(running.known, lists.lengths), running.at(lists, self.items)
            columns.extend(np.where(told, [*np.log(sides + _LEAST**2), levels[ranks[-1]]], 0.0))
            opinions.append(np.where(told, both_ways(sides), trend.typical[codes]))
        elif self.members.sessions is not None:
            opinions.append(trend.typical[codes])
        first = FirstDense(scored[0], values[0], ranked[0]) if scored else None
        own_items = OwnItems(again, places, facts, before)
        tables = _table(columns, len(codes)), own_items, _table(opinions, len(codes))
        return Candidates(lists, groups, *tables, closed, first)

    def _running(self, rows: Array, groups: Array) -> RunningNeighbors | None:
        """What users' running sessions say; None if none is known. Without one, what a user did last is long past."""
        if self.members.sessions is None or not self._recent_known:
            return None
        return RunningNeighbors(self.members.sessions, rows, groups >= len(GROUPS))

    def _again(self, rows: Array) -> tuple[Lists, Array, Array]:
        """Users' own items, (o,); how often each was taken, (o,), and the features of that, (o, features)."""
        if self.members.repeat is None:
            return Lists.empty(len(rows)), np.zeros(0), np.zeros((0, 0))
        return self.members.repeat.own(rows)

    def features(self, candidates: Candidates) -> Array:
        """(c, features) inputs of the re-ranker."""
        trend, items = self.members.trend, candidates.lists.items
        groups = candidates.groups[candidates.lists.owners] % len(GROUPS)
        alike = [*trend.overall[:, items], *trend.segments[groups, :, items].T, *trend.ages[:, items]]
        own, beside = candidates.own, candidates.columns
        again = np.zeros((len(items), own.columns.shape[1]))
        again[own.places] = own.columns
        return np.column_stack([*alike, *beside[: own.at], again, *beside[own.at :]])

    def feature_names(self) -> list[str]:
        """In the order of the features."""
        beside = [name for member in self.members.dense for name in (member, f"{member}_rank")]
        beside += ["cooccurrence"] if self.members.cooccurrence is not None else []
        own = [*REPEAT_FEATURES, "repeat_trend", *(f"repeat_{name}" for name in beside)]
        names = [*self.members.trend.names, *self.members.trend.segment_names, "age", "idle", *beside]
        names += own if self.members.repeat is not None else []
        names += list(CONTENT_FEATURES) if self.members.content is not None else []
        names += list(SEQUENCE_FEATURES) if self.members.sequence is not None else []
        return names + (list(SESSION_FEATURES) if self.members.sessions is not None and self._recent_known else [])

    def behind_name(self, candidates: Candidates, owner: int) -> str:
        """What orders the items behind the candidates of a user."""
        by_member = candidates.first is not None and candidates.first.informed[owner]
        return next(iter(self.members.dense)) if by_member else "trend"

    def _leading(self) -> tuple[Array, Array]:
        """(situations, most) int32 items that the trend proposes, and their ranks; no item is past all depths."""
        most = self._depth + self._more
        found = [self.members.trend.leaders(group, most) for group in range(len(GROUPS))]
        width = max(len(items) for items, _ in found)
        items, ranks = np.zeros((len(found), width), dtype=np.int32), np.full((len(found), width), most)
        for group, (own, best) in enumerate(found):
            items[group, : len(own)], ranks[group, : len(own)] = own, best
        twice = len(SITUATIONS) // len(GROUPS), 1
        return np.tile(items, twice), np.tile(ranks, twice)


def in_order(lists: Lists, values: Array, counts: Array) -> tuple[Array, Array]:
    """Values and items, (n, most of counts), of the best counts[i] of each user, best first."""
    shape = len(counts), int(counts.max(initial=0))
    best, found = np.zeros(shape), np.full(shape, -1, dtype=np.int32)
    best_of_segments(values, lists.items, lists.offsets, counts, best, found)
    return best, found


def _of_version(member: DenseMember) -> AlsScorer | NeuralScorer:
    """A member of a version; live ones answer for no recent items."""
    assert isinstance(member, AlsScorer | NeuralScorer)
    return member


def _table(columns: list[Array], length: int) -> Array:
    """(columns, length) float64."""
    table = np.empty((len(columns), length))
    for row, column in zip(table, columns, strict=True):
        row[:] = column
    return table


def _stacked(proposed: list[tuple[Array, Array]], users: int) -> tuple[Array, Array]:
    """What members propose, (members, users, most) items and (members, users) how many of them count."""
    most = max((items.shape[1] for items, _ in proposed), default=0)
    table = np.zeros((len(proposed), users, most), dtype=np.int32)
    for place, (items, _) in enumerate(proposed):
        table[place, :, : items.shape[1]] = items
    return table, np.array([used for _, used in proposed], dtype=np.int64).reshape(len(proposed), users)

"""Candidate generation by the members of a mixture, and the ranking of the candidates."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from .arrays import Array, Arrays, Lists, PairValues, part
from .axes import Axes, Declared, of_members
from .candidates import above_among, valued
from .choice import POSITIVE, Choice
from .content import ContentScorer
from .factors import AlsScorer, Asked
from .neural import NeuralScorer
from .proposals import CandidateGenerator, Candidates, DenseMember, Members, in_order
from .ranking import Contributions, DenseScores, Ranked, Reason, ServedBy, missing
from .repeats import RepeatScorer
from .scorers import GROUPS, CoOccurrenceScorer, TrendScorer
from .sequence import SequenceScorer
from .sessions import SessionScorer
from .walks import at_least, contained, first_open, looked_up


@dataclass(frozen=True)
class Examples:
    """Candidates of n users, sorted by user, then item, as the re-ranker learns from them.

    Attributes:
        owners, items: (c,) int64; owners count from 0 to n - 1.
        features: (c, features) inputs of the re-ranker; those of running sessions, which are last, where one is known.
        rankings: (c, rankings) scores by the re-ranker and by each member alone, higher is better.
    """

    owners: Array
    items: Array
    features: Array
    rankings: Array


@dataclass(frozen=True)
class Valued:
    """Candidates, and what the rankings that serve their users make of them.

    Attributes:
        candidates: The candidates.
        choices: (n,) number of the ranking that serves each user.
        values: (c,) float64 in that ranking.
        log_odds: (c,) float64, the scores.
    """

    candidates: Candidates
    choices: Array
    values: Array
    log_odds: Array


# Members of a mixture that score all items, and all members.
DENSE: dict[str, type[AlsScorer] | type[NeuralScorer]] = {"als": AlsScorer, "ncf": NeuralScorer}
MEMBERS = {
    **DENSE,
    "trend": TrendScorer,
    "cooccurrence": CoOccurrenceScorer,
    "repeat": RepeatScorer,
    "sessions": SessionScorer,
    "content": ContentScorer,
    "sequence": SequenceScorer,
}


class MixtureScorer:
    """Candidates of all members, ranked by the re-ranker or by one member alone.

    Each user is served by one ranking, drawn with the chances that AdaHedge has learned for the user's group. The draw
    depends on seed, clock and row only, so the same arrays give the same lists. Only candidates are scored; the matrix
    of users and items is never made, unless a list has to go on behind the candidates or a member knows no other way.

    A score is the log-odds that a user who is active in the next batch interacts with the item in it: whatever ranking
    serves the user, its values were calibrated on earlier batches. Behind the candidates of a user, a score lies as far
    below the lowest candidate's, and 1, as the item lies below the best one in the order that applies there.

    Args:
        arrays: `weights` (situations, features) of the re-ranker, `chances` (situations, rankings), `draw` (2,) the
            seed and the clock, `calibration` (situations, rankings, 2), see `Choice`, `depth` (2,) candidates per
            member, and how many more at most to make up for seen items.
        members: its members.
    """

    axes: ClassVar[Declared] = {
        "weights": Axes(("situations", "features")),
        "chances": Axes(("situations", "rankings")),
        "calibration": Axes(("situations", "rankings", "slope, intercept")),
        "draw": Axes(("seed, clock",)),
        "depth": Axes(("depth, more",)),
        **of_members({name: member.axes for name, member in MEMBERS.items()}),
    }

    def __init__(self, arrays: Arrays, members: Members) -> None:
        self._weights, self._asked = arrays["weights"], Asked.plain()
        self._proposals = CandidateGenerator(members, *arrays["depth"].tolist())
        self.items: int = members.trend.items
        positive = np.isin(self._proposals.rankings, POSITIVE)
        self._choice = Choice(arrays["chances"], arrays["draw"], arrays["calibration"], positive)
        self._bases = self._alike()

    @classmethod
    def of(cls, arrays: Arrays) -> "MixtureScorer":
        """From the arrays of a version, those of a member with its name and a point before theirs."""
        own = {name: part(arrays, name) for name in {key.split(".")[0] for key in arrays if "." in key}}
        members: dict[str, Any] = {name: kind(own[name]) for name, kind in MEMBERS.items() if name in own}
        dense = {name: members.pop(name) for name in DENSE if name in members}
        return cls(arrays, Members(dense, **members))

    @property
    def users_at_once(self) -> int:
        """See `Scorer`."""
        return self._proposals.users_at_once

    @property
    def dense(self) -> Mapping[str, DenseMember]:
        """The members that score all items, by name."""
        return self._proposals.members.dense

    def with_dense(self, dense: Mapping[str, DenseMember]) -> Self:
        """The same with others in their place, of the same names."""
        view = copy(self)
        view._proposals = self._proposals.with_dense(dense)
        return view

    @property
    def _trend(self) -> TrendScorer:
        return self._proposals.members.trend

    def score(self, rows: Array) -> Array:
        """See `Scorer`."""
        valued_ = self._valued(rows)
        lists, first = valued_.candidates.lists, valued_.candidates.first
        own = np.repeat(self._trend.shared.scores[None], len(rows), axis=0)
        if first is not None:
            own[first.informed] = first.scores.all()[first.informed]
        scores: Array = (self._offsets(valued_)[:, None] + own).astype(np.float32)
        scores[lists.owners, lists.items] = valued_.log_odds
        return scores

    def at(self, rows: Array, lists: Lists) -> Array:
        """See `Scorer`."""
        valued_ = self._valued(rows)
        own, offset = self._behind(valued_, lists)
        near = valued_.candidates.lists
        among = contained(*near, *lists, self.items)
        found: Array = np.where(among, looked_up(*near, valued_.log_odds, *lists, self.items), offset + own)
        return found

    def rank(self, rows: Array, k: Array, left_out: Lists, wanted: Lists) -> Ranked:
        """See `Scorer`."""
        k, candidates = np.minimum(k, self.items), self._proposals.propose(rows, left_out, wanted)
        lists, (choices, values) = candidates.lists, self._ranked(rows, candidates)
        closed = np.bincount(lists.owners[candidates.closed], minlength=len(rows))
        sizes = np.minimum(k + closed, lists.lengths)
        best, found = in_order(lists, values, sizes)
        places, lengths = first_open(found, sizes, k, *left_out, self.items)
        empty, taken = places < 0, np.maximum(places, 0)
        items = np.where(empty, -1, np.take_along_axis(found, taken, axis=1)) if len(found.T) else places
        scores = np.zeros(places.shape, dtype=np.float32)
        owners = np.nonzero(~empty)[0]
        listed = np.take_along_axis(best, taken, axis=1)[~empty] if len(found.T) else np.zeros(0)
        scores[~empty] = self._choice.log_odds(listed, candidates.groups[owners], choices[owners])
        above = self._above(candidates, values, left_out, wanted)
        open_items, informed = self.items - left_out.lengths, np.ones(len(rows), dtype=bool)
        ranked = Ranked(items.astype(np.int32), scores, lengths, above, open_items, informed)
        short = np.flatnonzero(lengths < np.minimum(k, open_items))
        if len(short):
            # The list goes on behind the candidates.
            order = DenseScores(self._places(rows[short]))
            whole = order.rank(k[short], left_out.of_users(short), Lists.empty(len(short)))
            listed = whole.items >= 0
            whole.scores[listed] = self.at(rows[short], Lists.of(whole.lengths, whole.items[listed]))
            ranked = ranked.with_lists(short, whole)
        return ranked

    def with_recent(self, rows: Array, recent: Lists) -> Self:
        """See `VersionedScorer`; the draw of the ranking stays that of the user."""
        view = copy(self)
        view._proposals, view._asked = self._proposals.with_recent(rows, recent), Asked(rows, recent)
        return view

    def factors(self, rows: Array) -> Array | None:
        """See `VersionedScorer`: those of the first dense member."""
        return self._proposals.factors(rows)

    def reasons(self, rows: Array, lists: Lists) -> list[list[Reason]]:
        """See `VersionedScorer`."""
        return self._proposals.reasons(rows, lists)

    def contributions(self, rows: Array, lists: Lists) -> list[Contributions]:
        """See `VersionedScorer`: features of the re-ranker, or the value of another ranking; log-odds all of them."""
        valued_ = self._valued(rows)
        candidates, choices = valued_.candidates, valued_.choices
        own, offset = self._behind(valued_, lists)
        near = candidates.lists
        order = np.argsort(near.owners * self.items + near.items)
        pairs = PairValues((near.owners * self.items + near.items)[order], order, self.items)
        places, among = pairs.find(lists.owners, lists.items)
        features, names = self._proposals.features(candidates), self._proposals.feature_names()
        rankings = self._proposals.rankings
        found = list[Contributions]()
        for one, owner in enumerate(lists.owners.tolist()):
            choice, group = choices[owner], candidates.groups[owner]
            slope, intercept = (float(number) for number in self._choice.lines(group, choice))
            if not among[one]:
                name = self._proposals.behind_name(candidates, owner)
                found.append({name: float(own[one]), "behind_candidates": float(offset[one])})
                continue
            place = order[places[one]]
            if choice:
                level = float(self._choice.levels(valued_.values[place], choice))
                found.append({rankings[choice]: slope * level, "intercept": intercept})
            else:
                parts = (slope * self._weights[group, : len(names)] * features[place]).tolist()
                found.append({**dict(zip(names, parts, strict=True)), "intercept": intercept})
        return found

    def served_by(self, rows: Array, recent: Lists | None = None) -> ServedBy:
        """The ranking that serves each user, and its chance in the draw."""
        groups = self._proposals.groups(rows) if recent is None else self._proposals.situations(rows, recent)
        choices = self._choice.of(self._asked.version_rows(rows), groups)
        return ServedBy(self._proposals.rankings, choices, self._choice.chances(groups, choices))

    def examples(self, rows: Array) -> Examples:
        """All that the re-ranker learns from of users by their row, (n,)."""
        nothing = Lists.empty(len(rows))
        candidates, trend = self._proposals.propose(rows, nothing, nothing), self._trend
        owners, items = candidates.lists.owners, candidates.lists.items.astype(np.int64)
        order = np.argsort(owners * self.items + items)
        owners, items = owners[order], items[order]
        features = self._proposals.features(candidates)[order]
        weights = self._weights[candidates.groups, : features.shape[1]]
        reranked = np.einsum("cf,cf->c", features, weights[owners])
        opinions = [*trend.overall[:, items], *candidates.opinions[:, order]]
        return Examples(owners, items, features, np.column_stack([reranked, *opinions]))

    def _ranked(self, rows: Array, candidates: Candidates) -> tuple[Array, Array]:
        """The ranking that each user is served by, (n,), and the candidates' values in it, (c,)."""
        choices = self._choice.of(self._asked.version_rows(rows), candidates.groups)
        shared = len(self._trend.overall) + self._trend.segments.shape[1] + len(self._trend.ages)
        own = candidates.own
        begin, end = shared + own.at, shared + own.at + own.columns.shape[1]
        behind = end + len(candidates.columns) - own.at
        values = valued(
            *candidates.lists,
            candidates.groups,
            choices,
            self._bases,
            np.concatenate([self._weights[:, shared:begin], self._weights[:, end:behind]], axis=1),
            candidates.columns,
            own.lists.offsets,
            own.places,
            np.ascontiguousarray(self._weights[:, begin:end]),
            own.columns,
            self._trend.overall,
            candidates.opinions,
        )
        return choices, values

    def _valued(self, rows: Array) -> Valued:
        """The candidates of users by their row, (n,), with their scores."""
        nothing = Lists.empty(len(rows))
        candidates = self._proposals.propose(rows, nothing, nothing)
        choices, values = self._ranked(rows, candidates)
        owners = candidates.lists.owners
        log_odds = self._choice.log_odds(values, candidates.groups[owners], choices[owners])
        return Valued(candidates, choices, values, log_odds)

    def _behind(self, valued_: Valued, lists: Lists) -> tuple[Array, Array]:
        """What items (a,) of users score in the order behind the candidates, and what is added to that, (a,)."""
        own = self._trend.shared.scores[lists.items].astype(np.float64)
        first = valued_.candidates.first
        if first is not None:
            own = np.where(first.informed[lists.owners], first.scores.at(lists), own)
        return own, self._offsets(valued_)[lists.owners]

    def _offsets(self, valued_: Valued) -> Array:
        """(n,) float64, what moves the order behind the candidates below them: its first item to 1 below the lowest."""
        candidates = valued_.candidates
        starts = candidates.lists.offsets[:-1]
        lowest = np.minimum.reduceat(valued_.log_odds, starts) if len(valued_.log_odds) else np.zeros(len(starts))
        most = np.full(len(starts), self._trend.shared.scores.max(initial=-np.inf), dtype=np.float64)
        if candidates.first is not None:
            ranked = candidates.first.ranked
            most = np.where(ranked.informed, ranked.scores[:, :1].max(axis=1, initial=-np.inf), most)
        offsets: Array = lowest - 1 - most
        return offsets

    def _places(self, rows: Array) -> Array:
        """(n, items) float32, the order of all items: candidates from 1 to 2, others below 1 by the first member."""
        # The trend is alike for all users, so one row of it will do.
        scores = np.repeat(_shrunk(self._trend.score(np.full(1, -1))), len(rows), axis=0)
        nothing = Lists.empty(len(rows))
        candidates = self._proposals.propose(rows, nothing, nothing)
        if candidates.first is not None:
            others = candidates.first.scores.all()
            informed = others.any(axis=1)
            scores[informed] = _shrunk(others[informed])
        lists, (_, values) = candidates.lists, self._ranked(rows, candidates)
        best, found = in_order(lists, values, lists.lengths)
        owners, places = np.nonzero(np.arange(best.shape[1]) < lists.lengths[:, None])
        scores[owners, found[owners, places]] = 2 - places / lists.lengths[owners]
        return scores

    def _above(self, candidates: Candidates, values: Array, left_out: Lists, wanted: Lists) -> Array:
        """(w,) how many items that are not left out rank before wanted ones, -1 for those that are left out."""
        if not len(wanted.items):
            return np.zeros(0, dtype=np.int64)
        lists = candidates.lists
        among = above_among(*lists, values, candidates.closed, *wanted)
        # Behind the candidates come the others, by the first dense member or by the trend.
        shared = self._trend.shared
        own, counted = shared.scores[wanted.items].astype(np.float64), shared.reached(shared.scores[wanted.items]) - 1
        beside, listed = shared.scores[left_out.items].astype(np.float64), shared.scores[lists.items].astype(np.float64)
        first = candidates.first
        if first is not None:
            own = np.where(first.informed[wanted.owners], first.scores.at(wanted), own)
            counted = np.where(first.informed[wanted.owners], first.ranked.above, counted)
            beside = np.where(first.informed[left_out.owners], first.scores.at(left_out), beside)
            listed = np.where(first.informed[lists.owners], first.of_candidates, listed)
        extra = ~contained(*lists, *left_out, self.items)
        counted = counted - at_least(wanted.offsets, own, left_out.offsets, beside, extra)
        counted -= at_least(wanted.offsets, own, lists.offsets, listed, np.ones(len(listed), dtype=bool))
        counted += np.bincount(lists.owners[~candidates.closed], minlength=len(lists.offsets) - 1)[wanted.owners]
        above: Array = np.where(among < 0, counted, among)
        return np.where(missing(wanted, left_out, self.items), -1, above)

    def _alike(self) -> Array:
        """(situations, items) float64: what the re-ranker makes of items by the features that all users share."""
        trend = self._trend
        tables = [np.concatenate([trend.overall, segments, trend.ages]) for segments in trend.segments]
        weights = enumerate(self._weights[:, : len(tables[0])])
        return np.stack([np.einsum("f,fi->i", own, tables[group % len(GROUPS)]) for group, own in weights])


def _shrunk(scores: Array) -> Array:
    """Scores (n, items) moved to between 0 and 1, in the same order."""
    least, most = scores.min(axis=1, keepdims=True), scores.max(axis=1, keepdims=True)
    shrunk: Array = scores - least
    shrunk *= (0.999 / np.maximum(most - least, 1e-12)).astype(np.float32)
    return shrunk

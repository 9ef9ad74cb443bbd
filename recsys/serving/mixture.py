"""Candidate generation by the members of a mixture, and the ranking of the candidates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from .arrays import Array, Arrays, Lists, part
from .axes import Axes, Declared, of_members
from .candidates import above_among, gathered, valued
from .factors import AlsScorer
from .neural import NeuralScorer
from .ranking import DenseScores, Ranked, Scorer, UserScores, missing
from .scorers import GROUPS, CoOccurrenceScorer, RepeatScorer, TrendScorer, group_of
from .topk import best_of_segments
from .walks import at_least, contained, first_open, looked_up

# A smaller score is as good as this one.
_LEAST = 1e-3


class DenseMember(Scorer, Protocol):
    """A member that can score all items."""

    def of_users(self, rows: Array) -> UserScores:
        """The scores of users (n,) by their row."""


@dataclass(frozen=True)
class Candidates:
    """Candidates of n users, one user after the other.

    Attributes:
        lists: c items.
        groups: (n,) group of each user, a place in `GROUPS`.
        columns: (columns, c) float64, the features that depend on the user and not on the item alone, in order.
        opinions: (others, c) float64 scores by each member alone, except the trend.
        closed: (c,) bool, whether a candidate is left out.
        first: of the first dense member, the scores of the users, those (c,) of the candidates, and what it ranks.
    """

    lists: Lists
    groups: Array
    columns: Array
    opinions: Array
    closed: Array
    first: tuple[UserScores, Array, Ranked] | None


@dataclass(frozen=True)
class Examples:
    """Candidates of n users, sorted by user, then item, as the re-ranker learns from them.

    Attributes:
        owners, items: (c,) int64; owners count from 0 to n - 1.
        features: (c, features) inputs of the re-ranker.
        rankings: (c, rankings) scores by the re-ranker and by each member alone, higher is better.
    """

    owners: Array
    items: Array
    features: Array
    rankings: Array


# Members of a mixture that score all items, and all members.
DENSE: dict[str, type[AlsScorer] | type[NeuralScorer]] = {"als": AlsScorer, "ncf": NeuralScorer}
MEMBERS = {**DENSE, "trend": TrendScorer, "cooccurrence": CoOccurrenceScorer, "repeat": RepeatScorer}


class MixtureScorer:
    """Candidates of all members, ranked by the re-ranker or by one member alone.

    Each user is served by one ranking, drawn with the chances that AdaHedge has learned for the user's group. The draw
    depends on seed, clock and row only, so the same arrays give the same lists. Only candidates are scored; the matrix
    of users and items is never made, unless a list has to go on behind the candidates or a member knows no other way.

    Args:
        arrays: `weights` (groups, features) of the re-ranker, `chances` (groups, rankings), `draw` (2,) the seed and
            the clock, `depth` (2,) candidates per member, and how many more at most to make up for seen items.
        trend, similar, repeats: members.
        dense: members that score all items, by name.
    """

    axes: ClassVar[Declared] = {
        "weights": Axes(("groups", "features")),
        "chances": Axes(("groups", "rankings")),
        "draw": Axes(("seed, clock",)),
        "depth": Axes(("depth, more",)),
        **of_members({name: member.axes for name, member in MEMBERS.items()}),
    }

    def __init__(
        self,
        arrays: Arrays,
        trend: TrendScorer,
        similar: CoOccurrenceScorer | None,
        repeats: RepeatScorer | None,
        dense: Mapping[str, DenseMember],
    ) -> None:
        self._weights, self._chances, self._draw = arrays["weights"], arrays["chances"], arrays["draw"]
        self._depth, self._more = arrays["depth"].tolist()
        self._trend, self._similar, self._repeats, self._dense = trend, similar, repeats, list(dense.values())
        self.items: int = trend.overall.shape[1]
        self._bases, self._leaders = self._alike(), self._leading()

    @classmethod
    def of(cls, arrays: Arrays) -> "MixtureScorer":
        """From the arrays of a version, those of a member with its name and a point before theirs."""
        own = {name: part(arrays, name) for name in {key.split(".")[0] for key in arrays if "." in key}}
        return cls(
            arrays,
            TrendScorer(own["trend"]),
            CoOccurrenceScorer(own["cooccurrence"]) if "cooccurrence" in own else None,
            RepeatScorer(own["repeat"]) if "repeat" in own else None,
            {name: DENSE[name](own[name]) for name in DENSE if name in own},
        )

    @property
    def users_at_once(self) -> int:
        """See `Scorer`."""
        return min([AlsScorer.users_at_once, *(member.users_at_once for member in self._dense)])

    def score(self, rows: Array) -> Array:
        """Candidates from 1 to 2, all different; other items below 1, in the order of the first dense member."""
        # The trend is alike for all users, so one row of it will do.
        scores = np.repeat(_shrunk(self._trend.score(np.full(1, -1))), len(rows), axis=0)
        nothing = Lists.empty(len(rows))
        candidates = self._propose(rows, nothing, nothing)
        if candidates.first is not None:
            others = candidates.first[0].all()
            informed = others.any(axis=1)
            scores[informed] = _shrunk(others[informed])
        lists, values = self._ranked(rows, candidates)
        best, found = self._in_order(lists, values, lists.lengths)
        owners, places = np.nonzero(np.arange(best.shape[1]) < lists.lengths[:, None])
        scores[owners, found[owners, places]] = 2 - places / lists.lengths[owners]
        return scores

    def rank(self, rows: Array, k: Array, left_out: Lists, wanted: Lists) -> Ranked:
        """See `Scorer`; the scores are those of `score`."""
        k, candidates = np.minimum(k, self.items), self._propose(rows, left_out, wanted)
        lists, values = self._ranked(rows, candidates)
        closed = np.bincount(lists.owners[candidates.closed], minlength=len(rows))
        sizes = np.minimum(k + closed, lists.lengths)
        _, found = self._in_order(lists, values, sizes)
        places, lengths = first_open(found, sizes, k, *left_out, self.items)
        empty = places < 0
        items = (
            np.where(empty, -1, np.take_along_axis(found, np.maximum(places, 0), axis=1)) if len(found.T) else places
        )
        scores = np.where(empty, 0, 2 - places / np.maximum(lists.lengths, 1)[:, None])
        above = self._above(candidates, values, left_out, wanted)
        open_items, informed = self.items - left_out.lengths, np.ones(len(rows), dtype=bool)
        ranked = Ranked(items.astype(np.int32), scores.astype(np.float32), lengths, above, open_items, informed)
        short = np.flatnonzero(lengths < np.minimum(k, open_items))
        if len(short):
            # The list goes on behind the candidates.
            beyond = DenseScores(self.score(rows[short]))
            whole = beyond.rank(k[short], left_out.of_users(short), Lists.empty(len(short)))
            ranked = ranked.with_lists(short, whole)
        return ranked

    def examples(self, rows: Array) -> Examples:
        """All that the re-ranker learns from of users by their row, (n,)."""
        nothing = Lists.empty(len(rows))
        candidates, trend = self._propose(rows, nothing, nothing), self._trend
        owners, items = candidates.lists.owners, candidates.lists.items.astype(np.int64)
        order = np.argsort(owners * self.items + items)
        owners, items = owners[order], items[order]
        groups = candidates.groups[owners]
        alike = [*trend.overall[:, items], *trend.segments[groups, :, items].T, *trend.ages[:, items]]
        features = np.column_stack([*alike, *candidates.columns[:, order]])
        reranked = np.einsum("cf,cf->c", features, self._weights[candidates.groups][owners])
        opinions = [*trend.overall[:, items], *candidates.opinions[:, order]]
        return Examples(owners, items, features, np.column_stack([reranked, *opinions]))

    def _propose(self, rows: Array, left_out: Lists, wanted: Lists) -> Candidates:
        """Candidates of users by their row, (n,), and what the first dense member makes of wanted items."""
        trend, most, nothing = self._trend, self._depth + self._more, Lists.empty(len(rows))
        known = trend.known_rows(rows)
        groups, depth = group_of(known), self._depth + np.minimum(known, self._more)
        scored = [member.of_users(rows) for member in self._dense]
        ranked = [one.rank(depth, nothing, nothing if place else wanted) for place, one in enumerate(scored)]
        proposed = [(one.items, np.where(one.informed, one.lengths, 0)) for one in ranked]
        if self._similar is not None:
            neighbors, chances, rest = self._similar.neighbors(rows)
            counts = np.minimum(depth, neighbors.lengths)
            proposed.append((self._in_order(neighbors, chances, counts)[1], counts))
        again, facts = self._again(rows)
        table, counts = _stacked(proposed, len(rows))
        leaders, leading = self._leaders
        where = (groups, leaders, (leading[groups] < depth[:, None]).sum(axis=1))
        offsets, codes, ranks, closed = gathered(table, counts, *where, *again, *left_out, self.items)
        lists = Lists(offsets, codes)
        columns, opinions = list[Array](), list[Array]()
        values = [scores.at(lists) for scores in scored]
        for one, own_ranks, own in zip(ranked, ranks, values, strict=False):
            told = np.repeat(one.informed, lists.lengths)
            levels = -np.log(np.append(most + 1.0, np.arange(1.0, most + 1)))
            # In the precision of the scores.
            columns.append(np.where(told, np.log(np.maximum(own.astype(np.float32), _LEAST)), 0.0))
            columns.append(np.where(told, levels[own_ranks], 0.0))
            opinions.append(np.where(told, own, trend.typical[codes]))
        if self._similar is not None:
            opinions.append(looked_up(*neighbors, chances, *lists, self.items))
            opinions[-1] += self._similar.beside(rest, lists.owners, codes)
            columns.append(np.log(opinions[-1] + _LEAST**2))
        if self._repeats is not None:
            found, *own_columns = (looked_up(*again, column, *lists, self.items) for column in facts)
            columns.extend(own_columns)
            opinions.append(found + self._repeats.share[codes])
        first = (scored[0], values[0], ranked[0]) if scored else None
        return Candidates(lists, groups, _table(columns, len(codes)), _table(opinions, len(codes)), closed, first)

    def _again(self, rows: Array) -> tuple[Lists, Array]:
        """Users' own items; how often each, and the features of that, (1 + features, c)."""
        if self._repeats is None:
            return Lists.empty(len(rows)), np.zeros((0, 0))
        pairs, facts = self._repeats.repeats(rows)
        lengths = np.bincount(pairs.owners, minlength=len(rows))
        return Lists.of(lengths, pairs.items), np.ascontiguousarray(np.column_stack([pairs.values, facts]).T)

    def _ranked(self, rows: Array, candidates: Candidates) -> tuple[Lists, Array]:
        """The candidates, and their values (c,) in the ranking that each user is served by."""
        drawn = self._drawn_numbers(rows)[:, None]
        choice = (np.cumsum(self._chances, axis=1)[candidates.groups] < drawn).sum(axis=1)
        rankings = 1 + len(self._trend.overall) + len(candidates.opinions)
        beyond = self._weights.shape[1] - len(candidates.columns)
        values = valued(
            *candidates.lists,
            candidates.groups,
            np.minimum(choice, rankings - 1),
            self._bases,
            np.ascontiguousarray(self._weights[:, beyond:]),
            candidates.columns,
            self._trend.overall,
            candidates.opinions,
        )
        return candidates.lists, values

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
        if candidates.first is not None:
            scores, of_candidates, ranked = candidates.first
            own = np.where(ranked.informed[wanted.owners], scores.at(wanted), own)
            counted = np.where(ranked.informed[wanted.owners], ranked.above, counted)
            beside = np.where(ranked.informed[left_out.owners], scores.at(left_out), beside)
            listed = np.where(ranked.informed[lists.owners], of_candidates, listed)
        extra = ~contained(*lists, *left_out, self.items)
        counted = counted - at_least(wanted.offsets, own, left_out.offsets, beside, extra)
        counted -= at_least(wanted.offsets, own, lists.offsets, listed, np.ones(len(listed), dtype=bool))
        counted += np.bincount(lists.owners[~candidates.closed], minlength=len(lists.offsets) - 1)[wanted.owners]
        above: Array = np.where(among < 0, counted, among)
        return np.where(missing(wanted, left_out, self.items), -1, above)

    def _alike(self) -> Array:
        """(groups, items) float64: what the re-ranker makes of an item by the features that are alike for all users."""
        trend = self._trend
        tables = [np.concatenate([trend.overall, segments, trend.ages]) for segments in trend.segments]
        weights = zip(self._weights[:, : len(tables[0])], tables, strict=True)
        return np.stack([np.einsum("f,fi->i", own, table) for own, table in weights])

    def _leading(self) -> tuple[Array, Array]:
        """(groups, most) int32 items that the trend proposes, and their ranks; what is no item is past all depths."""
        most = self._depth + self._more
        found = [self._trend.leaders(group, most) for group in range(len(GROUPS))]
        width = max(len(items) for items, _ in found)
        items, ranks = np.zeros((len(found), width), dtype=np.int32), np.full((len(found), width), most)
        for group, (own, best) in enumerate(found):
            items[group, : len(own)], ranks[group, : len(own)] = own, best
        return items, ranks

    @staticmethod
    def _in_order(lists: Lists, values: Array, counts: Array) -> tuple[Array, Array]:
        """Values and items, (n, most of counts), of the best counts[i] of each user, best first."""
        shape = len(counts), int(counts.max(initial=0))
        best, found = np.zeros(shape), np.full(shape, -1, dtype=np.int32)
        best_of_segments(values, lists.items, lists.offsets, counts, best, found)
        return best, found

    def _drawn_numbers(self, rows: Array) -> Array:
        """(n,) from 0 to 1, by a hash of seed, clock and row (Steele et al. 2014, SplitMix64)."""
        mixed = np.zeros(len(rows), dtype=np.uint64)
        for number in (*self._draw.tolist(), rows):
            mixed ^= np.asarray(number).astype(np.uint64)
            mixed += np.uint64(0x9E3779B97F4A7C15)
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
            mixed ^= mixed >> np.uint64(31)
        numbers: Array = mixed / 2.0**64
        return numbers


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


def _shrunk(scores: Array) -> Array:
    """Scores (n, items) moved to between 0 and 1, in the same order."""
    least, most = scores.min(axis=1, keepdims=True), scores.max(axis=1, keepdims=True)
    shrunk: Array = scores - least
    shrunk *= (0.999 / np.maximum(most - least, 1e-12)).astype(np.float32)
    return shrunk

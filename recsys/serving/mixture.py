"""Candidate generation by the members of a mixture, and the ranking of the candidates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .arrays import Array, Arrays, PairValues, part, ragged_ranges
from .axes import Axes, Declared, of_members
from .neural import NeuralScorer
from .scorers import GROUPS, AlsScorer, CoOccurrenceScorer, RepeatScorer, Scorer, TrendScorer, group_of
from .top import best_of_rows

# A smaller score is as good as this one.
_LEAST = 1e-3


@dataclass(frozen=True)
class Candidates:
    """Candidates of n users, sorted by user, then item.

    Attributes:
        keys, owners, items: (c,) int64; owners count from 0 to n - 1, a key is owner * all items + item.
        groups: (n,) group of each user, a place in `GROUPS`.
        features: (c, features) inputs of the re-ranker.
        opinions: (c, members) scores of each member alone.
        dense: (n, items) float32 scores by each dense member, rows of zeros for users it does not know.
        known_to: (n,) whether each dense member knows a user.
    """

    keys: Array
    owners: Array
    items: Array
    groups: Array
    features: Array
    opinions: Array
    dense: list[Array]
    known_to: list[Array]


# Members of a mixture that score all items, and all members.
DENSE: dict[str, type[AlsScorer] | type[NeuralScorer]] = {"als": AlsScorer, "ncf": NeuralScorer}
MEMBERS = {**DENSE, "trend": TrendScorer, "cooccurrence": CoOccurrenceScorer, "repeat": RepeatScorer}


class MixtureScorer:
    """Candidates of all members, ranked by the re-ranker or by one member alone.

    Each user is served by one ranking, drawn with the chances that AdaHedge has learned for the user's group. The draw
    depends on seed, clock and row only, so the same arrays give the same lists.

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
        dense: Mapping[str, Scorer],
    ) -> None:
        self._weights, self._chances, self._draw = arrays["weights"], arrays["chances"], arrays["draw"]
        self._depth, self._more = arrays["depth"].tolist()
        self._trend, self._similar, self._repeats, self._dense = trend, similar, repeats, dense

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

    def score(self, rows: Array) -> Array:
        """Candidates from 1 to 2, all different; other items below 1, in the order of the first dense member."""
        candidates = self.propose(rows)
        # The trend is alike for all users, so one row of it will do.
        scores = np.repeat(_shrunk(self._trend.score(np.full(1, -1))), len(rows), axis=0)
        for others, informed in zip(candidates.dense[:1], candidates.known_to, strict=False):
            scores[informed] = _shrunk(others[informed])
        if len(candidates.items):
            values = self.opinions(candidates)
            drawn = self._drawn_numbers(rows)[:, None]
            choice = (np.cumsum(self._chances, axis=1)[candidates.groups] < drawn).sum(axis=1)
            chosen = np.minimum(choice, values.shape[1] - 1)[candidates.owners]
            pairs = PairValues(candidates.keys, values[np.arange(len(chosen)), chosen], scores.shape[1])
            counts = np.bincount(pairs.owners, minlength=len(rows))
            scores[pairs.owners, pairs.items] = 2 - pairs.ranks() / counts[pairs.owners]
        return scores

    def opinions(self, candidates: "Candidates") -> Array:
        """(candidates, rankings) float64: scores of the re-ranker and of each member alone, higher is better."""
        weights = self._weights[candidates.groups][candidates.owners]
        return np.column_stack([np.einsum("cf,cf->c", candidates.features, weights), candidates.opinions])

    def propose(self, rows: Array) -> "Candidates":
        """Candidates of users by their row, (n,)."""
        trend, most = self._trend, self._depth + self._more
        known, items = trend.known_rows(rows), trend.overall.shape[1]
        groups, depth = group_of(known), self._depth + np.minimum(known, self._more)
        proposed = [self._leading(np.flatnonzero(groups == group), group, depth) for group in range(len(GROUPS))]
        dense = [scorer.score(rows) for scorer in self._dense.values()]
        known_to = [np.asarray(scores.any(axis=1)) for scores in dense]
        best = [
            best_of_rows(scores, np.where(own, depth, 0), most) for scores, own in zip(dense, known_to, strict=True)
        ]
        proposed.extend(ranks.keys for ranks in best)
        if self._similar is not None:
            pairs, rest = self._similar.chances(rows)
            proposed.append(pairs.keys[pairs.ranks() < depth[pairs.owners]])
        if self._repeats is not None:
            again, facts = self._repeats.repeats(rows)
            proposed.append(again.keys)
        keys = np.unique(np.concatenate(proposed))
        owners, codes = np.divmod(keys, max(items, 1))
        opinions = list(trend.overall[:, codes])
        features = [*opinions, *trend.segments[groups[owners], :, codes].T, *trend.ages[:, codes]]
        for scores, informed, ranks in zip(dense, known_to, best, strict=True):
            own, rank, told = scores[owners, codes], ranks.at(owners, codes), informed[owners]
            features.append(np.where(told, np.log(np.maximum(own, _LEAST)), 0.0))
            features.append(np.where(told, -np.log(np.where(rank > 0, rank, most + 1)), 0.0))
            opinions.append(np.where(told, own, trend.typical[codes]))
        if self._similar is not None:
            opinions.append(self._similar.at(pairs, rest, owners, codes))
            features.append(np.log(opinions[-1] + _LEAST**2))
        if self._repeats is not None:
            places, found = again.find(owners, codes)
            features.extend(np.where(found, np.append(column, 0.0)[places], 0.0) for column in facts.T)
            opinions.append(again.at(owners, codes) + self._repeats.share[codes])
        columns = np.column_stack(features), np.column_stack(opinions)
        return Candidates(keys, owners, codes, groups, *columns, dense, known_to)

    def _leading(self, users: Array, group: int, depth: Array) -> Array:
        """Keys of the candidates that the trend generates for users (n,) of a group."""
        items, ranks = self._trend.leaders(group, self._depth + self._more)
        counts = np.searchsorted(ranks, depth[users])
        keys: Array = np.repeat(users, counts) * self._trend.overall.shape[1]
        return keys + items[ragged_ranges(np.zeros_like(counts), counts)]

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


def _shrunk(scores: Array) -> Array:
    """Scores (n, items) moved to between 0 and 1, in the same order."""
    least, most = scores.min(axis=1, keepdims=True), scores.max(axis=1, keepdims=True)
    shrunk: Array = scores - least
    shrunk *= (0.999 / np.maximum(most - least, 1e-12)).astype(np.float32)
    return shrunk

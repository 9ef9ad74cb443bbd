"""How a registered version scores. This file travels inside the artifact, so it imports numpy only.

What is served is what is measured: learners that are written in numpy score with these functions too. Each scorer is
made from the arrays that its learner's `served` returns:

| kind  | name           | shape       | type    |
|-------|----------------|-------------|---------|
| `als` | `user_factors` | (users, f)  | float32 |
|       | `item_factors` | (items, f)  | float32 |
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

# Users by how many rows of the log they have: none, fewer than 20, more.
GROUPS = ("cold", "warm", "heavy")
# Events that speak for a longer half-life, and pairs that speak for an item's share, where little else is known.
_DRAWN, _DRAWN_PAIRS = 20.0, 5.0
# Days between two purchases of an item about which nothing is known.
_USUAL_DAYS = 20.0
# A smaller score is as good as this one.
_LEAST = 1e-3


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


class NeuralScorer:
    """Candidates by products of factors, ranked by a network; the others behind them, in the order of their products.

    A user has as many candidates as `candidates` (users,) int64 says. `user_factors` and `item_factors` are those of
    `als`; the network is `neural.user_gmf`, `neural.user_mlp`, `neural.item_gmf`, `neural.item_mlp` (rows, width), one
    `neural.hidden.N.weight` and `.bias` for each layer, `neural.output.weight` and `.bias`, all float32.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._first, self._candidates = AlsScorer(arrays), arrays["candidates"]
        self._user_gmf, self._item_gmf = (arrays[f"neural.{side}_gmf"] for side in ("user", "item"))
        layers = sum(name.startswith("neural.hidden.") for name in arrays) // 2
        names = [*(f"hidden.{number}" for number in range(layers)), "output"]
        weights, *others = (arrays[f"neural.{name}.weight"].T for name in names)
        self._biases = [arrays[f"neural.{name}.bias"] for name in names]
        # The first layer in two halves, each computed once for all users and for all items.
        users, items = arrays["neural.user_mlp"], arrays["neural.item_mlp"]
        self._user_inputs = users @ weights[: users.shape[1]] + self._biases[0]
        self._item_inputs = items @ weights[users.shape[1] :]
        self._weights = others

    def score(self, rows: Array) -> Array:
        """See `Scorer`."""
        scores: Array = self._first.score(rows)
        # One user after the other: so the candidates of all of them never lie in memory together.
        for place in np.flatnonzero(scores.any(axis=1)).tolist():
            scores[place] = self._ranked(int(rows[place]), scores[place])
        return scores

    def logits(self, row: int, items: Array) -> Array:
        """What the network says of items (n,) for one user, (n,)."""
        outputs = np.maximum(self._user_inputs[row] + self._item_inputs[items], 0)
        for weights, bias in zip(self._weights[:-1], self._biases[1:-1], strict=True):
            outputs = np.maximum(outputs @ weights + bias, 0)
        joined = np.concatenate([self._user_gmf[row] * self._item_gmf[items], outputs], axis=1)
        found: Array = (joined @ self._weights[-1] + self._biases[-1])[:, 0]
        return found

    def _ranked(self, row: int, first: Array) -> Array:
        """Scores (items,) of a user whose products are `first` (items,)."""
        count = min(int(self._candidates[row]), len(first))
        items = np.argpartition(-first, count - 1)[:count]
        logits = self.logits(row, items)
        scores: Array = first - first[items].min() + (logits.min() - 1)
        scores[items] = logits
        return scores


class Pairs:
    """Values of distinct (user, item) pairs, 0 for all others.

    Args:
        keys: (pairs,) int64 ascending, owner * items + item.
        values: (pairs,).
        items: How many items there are.
    """

    def __init__(self, keys: Array, values: Array, items: int) -> None:
        self.keys, self.values = keys, values
        self.owners, self.items = np.divmod(keys, max(items, 1))
        self._width = items

    @classmethod
    def of(cls, owners: Array, items: Array, values: Array, width: int) -> "Pairs":
        """From pairs in any order, the values of equal ones added up."""
        keys, places = np.unique(owners * width + items, return_inverse=True)
        return cls(keys, np.bincount(places, values, minlength=len(keys)), width)

    def at(self, owners: Array, items: Array) -> Array:
        """Values (c,) of pairs (c,)."""
        places, found = self.find(owners, items)
        values: Array = np.where(found, np.append(self.values, 0.0)[places], 0.0)
        return values

    def find(self, owners: Array, items: Array) -> tuple[Array, Array]:
        """Places (c,) of pairs (c,), and whether they are there."""
        keys = owners * self._width + items
        places = np.searchsorted(self.keys, keys)
        return places, np.append(self.keys, -1)[places] == keys

    def ranks(self) -> Array:
        """(pairs,) rank of each among its owner's, from 0 for the largest value; of equal ones the first item first."""
        order = np.lexsort((-self.values, self.owners))
        ranks = np.empty(len(order), dtype=np.int64)
        ranks[order] = np.arange(len(order)) - np.searchsorted(self.owners, self.owners)
        return ranks


class TrendScorer:
    """What share of the events an item gets: lately and for long, by all users and by users of the same group.

    A share is counted over a half-life, and the shorter ones are drawn towards the next longer one, which knows of more
    events: (count + m * longer share) / (all counts + m), m = `_DRAWN`, the mean of a Dirichlet posterior (MacKay &
    Bauman Peto 1995, A hierarchical Dirichlet language model).
    """

    def __init__(self, arrays: Arrays) -> None:
        half_lives, counts = arrays["half_lives"], arrays["counts"]
        items = counts.shape[1]
        shares, longer = np.empty_like(counts), np.full(items, 1 / max(items, 1))
        for place in np.argsort(-half_lives):
            longer = shares[place] = _drawn(counts[place], longer)
        segments = np.empty_like(arrays["segment_counts"])
        for group, place in np.ndindex(segments.shape[:2]):
            nearest = np.argmin(np.abs(np.log(half_lives / arrays["segment_half_lives"][place])))
            segments[group, place] = _drawn(arrays["segment_counts"][group, place], shares[nearest])
        # (half-lives, items) and (groups, half-lives, items).
        self.overall, self.segments = np.log(shares), np.log(segments)
        self.typical: Array = self.overall.mean(axis=0)
        # Events since an item was first taken and since it was last taken, (2, items).
        self.ages = np.log1p(arrays["clock"] - np.stack([arrays["first"], arrays["last"]]))
        self._rows_of_users = arrays["rows_of_users"]

    def known_rows(self, rows: Array) -> Array:
        """(n,) how many rows of the log users have, 0 for unknown ones."""
        known = (rows >= 0) & (rows < len(self._rows_of_users))
        found: Array = np.where(known, np.append(self._rows_of_users, 0)[np.where(known, rows, -1)], 0)
        return found

    def score(self, rows: Array) -> Array:
        """The geometric mean of the shares, as its logarithm, alike for all; see `Scorer`."""
        return np.repeat(self.typical.astype(np.float32)[None], len(rows), axis=0)

    def leaders(self, group: int, most: int) -> tuple[Array, Array]:
        """Items that are among the first of a list of shares, by their best rank in any list, and those ranks."""
        lists = np.concatenate([self.overall, self.segments[group]])
        count = min(most, lists.shape[1])
        best = np.full(lists.shape[1], most)
        for shares in lists:
            top = np.argpartition(-shares, count - 1)[:count] if count else np.zeros(0, dtype=np.int64)
            top = top[np.lexsort((top, -shares[top]))]
            best[top] = np.minimum(best[top], np.arange(count))
        items = np.flatnonzero(best < most)
        items = items[np.argsort(best[items], kind="stable")]
        return items, best[items]


class CoOccurrenceScorer:
    """How often an item was taken soon after the items that the user took last; where that is unknown, its share."""

    def __init__(self, arrays: Arrays) -> None:
        self._recent, self._share = arrays["recent"], arrays["share"]
        self._neighbours, self._strengths = arrays["neighbours"], arrays["strengths"]
        # What a neighbour must have been taken with to count half of what its share says, in decayed pairs.
        self._scale, self._totals = float(arrays["scale"][0]), arrays["totals"]
        self._fading = float(arrays["fading"][0])

    def chances(self, rows: Array) -> tuple["Pairs", Array]:
        """Chances of neighbours, and by how much the share of any item counts besides, (n,)."""
        known = (rows >= 0) & (rows < len(self._recent))
        recent = np.zeros((len(rows), self._recent.shape[1]), dtype=np.int64)
        recent[known] = self._recent[rows[known]]
        # Codes are kept one higher, 0 for none.
        weights = (recent > 0) * self._fading ** np.arange(recent.shape[1])
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        before = np.maximum(recent - 1, 0)
        if not len(self._totals):
            nothing = np.zeros(0, dtype=np.int64)
            return Pairs(nothing, nothing, 0), np.ones(len(rows))
        weights /= self._totals[before] * self._scale + _DRAWN_PAIRS
        owners, places, slots = np.nonzero((self._neighbours[before] > 0) & (weights > 0)[:, :, None])
        others = before[owners, places]
        chances = self._strengths[others, slots] * self._scale * weights[owners, places]
        rest = np.where(recent.any(axis=1), _DRAWN_PAIRS * weights.sum(axis=1), 1.0)
        return Pairs.of(owners, self._neighbours[others, slots].astype(np.int64) - 1, chances, len(self._share)), rest

    def score(self, rows: Array) -> Array:
        """The chance that an item comes next; see `Scorer`."""
        pairs, rest = self.chances(rows)
        scores: Array = (rest[:, None] * self._share).astype(np.float32)
        scores[pairs.owners, pairs.items] += pairs.values
        return scores

    def at(self, pairs: "Pairs", rest: Array, owners: Array, items: Array) -> Array:
        """Chances (c,) of items (c,) for owners (c,), from what `chances` returned."""
        found: Array = pairs.at(owners, items) + rest[owners] * self._share[items]
        return found


class RepeatScorer:
    """What the user took before: how often, how lately, and whether it is due again."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays, self.share = arrays, arrays["share"]
        self._starts, self._lengths = arrays["starts"], arrays["lengths"]

    def repeats(self, rows: Array) -> tuple["Pairs", Array]:
        """Decayed counts of the items that users took, and their features (pairs, 6), in the order of the pairs."""
        arrays, items = self._arrays, len(self.share)
        known = (rows >= 0) & (rows < len(self._starts))
        lengths = np.where(known, np.append(self._lengths, 0)[np.where(known, rows, -1)], 0)
        places = _ragged(np.append(self._starts, 0)[np.where(known, rows, -1)], lengths)
        owners = np.repeat(np.arange(len(rows)), lengths)
        order = np.argsort(owners * items + arrays["items"][places])
        places, owners = places[order], owners[order]
        taken = arrays["items"][places].astype(np.int64)
        counts, last, first = (arrays[name][places].astype(np.float64) for name in ("counts", "last", "first"))
        since = np.maximum(arrays["now"][0] - last, 0)
        lately = arrays["lately"][places] * 2.0 ** (-since / arrays["half_life"][0])
        # The user's interval, with the item's as one more observation, and for that in turn the general one.
        general, usual = arrays["intervals"].sum(axis=1), arrays["intervals"][:, taken]
        typical = (general[0] + _USUAL_DAYS) / (general[1] + 1)
        interval = (last - first + (usual[0] + typical) / (usual[1] + 1)) / counts
        due = np.log((since + 0.5) / (interval + 0.5))
        again, taken_at_all = arrays["occasions"][:, taken]
        features = [
            np.ones(len(taken)),
            np.log(counts),
            np.log(lately + 0.02) - np.log(0.02),
            due,
            np.minimum(due, 0),
            np.log((again + 1) / (taken_at_all + 5)),
        ]
        return Pairs(owners * items + taken, lately, items), np.stack(features, axis=1)

    def score(self, rows: Array) -> Array:
        """The decayed count, and the item's share of all events as a small change; see `Scorer`."""
        scores = np.repeat(self.share.astype(np.float32)[None], len(rows), axis=0)
        pairs, _ = self.repeats(rows)
        scores[pairs.owners, pairs.items] += pairs.values
        return scores


@dataclass(frozen=True)
class Candidates:
    """What members propose to n users, sorted by user, then item.

    Attributes:
        keys, owners, items: (c,) int64; owners count from 0 to n - 1, a key is owner * all items + item.
        groups: (n,) of the users.
        features: (c, features) what the blend sees.
        opinions: (c, members) what each member alone ranks by.
        dense: (n, items) float32 scores by the dense members, rows of zeros for users they do not know.
    """

    keys: Array
    owners: Array
    items: Array
    groups: Array
    features: Array
    opinions: Array
    dense: list[Array]


class MixtureScorer:
    """Candidates of all members, ranked by a blend of their opinions or by the one member that ranks best.

    Per user the ranking is drawn by the weights that `experts` has learnt for the user's group, with a number that
    follows from seed, clock and row: the same arrays give the same lists.

    Args:
        arrays: `weights` (groups, features) of the blend, `chances` (groups, rankings), `draw` (2,) the seed and the
            clock, `depth` (2,) how many items a member proposes and how many more, at most, for those a user had.
        trend, similar, repeats: members.
        dense: members that score all items, by name.
    """

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
        own = {name: _part(arrays, name) for name in {key.split(".")[0] for key in arrays if "." in key}}
        return cls(
            arrays,
            TrendScorer(own["trend"]),
            CoOccurrenceScorer(own["cooccurrence"]) if "cooccurrence" in own else None,
            RepeatScorer(own["repeat"]) if "repeat" in own else None,
            {name: DENSE[name](own[name]) for name in DENSE if name in own},
        )

    def score(self, rows: Array) -> Array:
        """Candidates from 1 to 2, each on its own; the others below 1, as the first dense member sees them."""
        candidates = self.propose(rows)
        scores = _shrunk(self._trend.score(rows))
        for others in candidates.dense[:1]:
            informed = others.any(axis=1)
            scores[informed] = _shrunk(others[informed])
        if len(candidates.items):
            values = self.opinions(candidates)
            drawn = self._drawn_numbers(rows)[:, None]
            choice = (np.cumsum(self._chances, axis=1)[candidates.groups] < drawn).sum(axis=1)
            chosen = np.minimum(choice, values.shape[1] - 1)[candidates.owners]
            pairs = Pairs(candidates.keys, values[np.arange(len(chosen)), chosen], scores.shape[1])
            counts = np.bincount(pairs.owners, minlength=len(rows))
            scores[pairs.owners, pairs.items] = 2 - pairs.ranks() / counts[pairs.owners]
        return scores

    def opinions(self, candidates: "Candidates") -> Array:
        """(candidates, rankings) float64: what the blend and each member alone rank by, higher is better."""
        weights = self._weights[candidates.groups][candidates.owners]
        return np.column_stack([np.einsum("cf,cf->c", candidates.features, weights), candidates.opinions])

    def propose(self, rows: Array) -> "Candidates":
        """What the members propose for users by their row."""
        trend, most = self._trend, self._depth + self._more
        known, items = trend.known_rows(rows), trend.overall.shape[1]
        groups, depth = group_of(known), self._depth + np.minimum(known, self._more)
        proposed = [self._leading(np.flatnonzero(groups == group), group, depth) for group in range(len(GROUPS))]
        dense = [scorer.score(rows) for scorer in self._dense.values()]
        known_to = [np.asarray(scores.any(axis=1)) for scores in dense]
        best = [_top(scores, np.where(own, depth, 0), most) for scores, own in zip(dense, known_to, strict=True)]
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
        return Candidates(keys, owners, codes, groups, np.column_stack(features), np.column_stack(opinions), dense)

    def _leading(self, users: Array, group: int, depth: Array) -> Array:
        """Keys of what the trend proposes to users (n,) of a group."""
        items, ranks = self._trend.leaders(group, self._depth + self._more)
        counts = np.searchsorted(ranks, depth[users])
        keys: Array = np.repeat(users, counts) * self._trend.overall.shape[1]
        return keys + items[_ragged(np.zeros_like(counts), counts)]

    def _drawn_numbers(self, rows: Array) -> Array:
        """(n,) from 0 to 1, by a hash of seed, clock and row (Steele et al. 2014, SplitMix64)."""
        mixed = np.zeros(len(rows), dtype=np.uint64)
        for part in (*self._draw.tolist(), rows):
            mixed ^= np.asarray(part).astype(np.uint64)
            mixed += np.uint64(0x9E3779B97F4A7C15)
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
            mixed ^= mixed >> np.uint64(31)
        numbers: Array = mixed / 2.0**64
        return numbers


def group_of(rows: Array) -> Array:
    """(n,) number of the group of users by how many rows of the log (n,) they have."""
    return np.searchsorted(np.array([1, 20]), rows, side="right")


def _drawn(counts: Array, towards: Array) -> Array:
    """Shares of counts (items,), drawn towards other shares."""
    shares: Array = (counts + _DRAWN * towards) / (counts.sum() + _DRAWN)
    return shares


def _shrunk(scores: Array) -> Array:
    """Scores (n, items) moved to between 0 and 1, in the same order."""
    least, most = scores.min(axis=1, keepdims=True), scores.max(axis=1, keepdims=True)
    shrunk: Array = (scores - least) * (0.999 / np.maximum(most - least, 1e-12)).astype(np.float32)
    return shrunk


def _top(scores: Array, counts: Array, most: int) -> Pairs:
    """Ranks, from 1, of the best counts[i] <= most items of each row i of scores (n, items)."""
    items = scores.shape[1]
    most = min(most, items)
    # The best are among the members of those groups of columns that have the largest best members.
    wide = max(int((items / max(most, 1)) ** 0.5), 1)
    groups = items // wide
    leading = scores[:, : groups * wide].reshape(len(scores), wide, groups).max(axis=1)
    chosen = np.argpartition(leading, groups - most, axis=1)[:, groups - most :] if most < groups else np.arange(groups)
    members = np.broadcast_to(chosen, (len(scores), min(most, groups)))[:, None, :] + groups * np.arange(wide)[:, None]
    rest = np.broadcast_to(np.arange(groups * wide, items), (len(scores), items - groups * wide))
    columns = np.concatenate([members.reshape(len(scores), -1), rest], axis=1)
    values = np.take_along_axis(scores, columns, axis=1)
    best = np.argpartition(values, values.shape[1] - most, axis=1)[:, values.shape[1] - most :]
    order = np.take_along_axis(
        best, np.argsort(-np.take_along_axis(values, best, axis=1), axis=1, kind="stable"), axis=1
    )
    owners, places = np.nonzero(np.arange(most) < counts[:, None])
    keys = np.take_along_axis(columns, order, axis=1)[owners, places] + owners * items
    by_key = np.argsort(keys)
    return Pairs(keys[by_key], places[by_key] + 1, items)


def _ragged(starts: Array, lengths: Array) -> Array:
    """All of starts[i], ..., starts[i] + lengths[i] - 1, for each i in turn."""
    ranges: Array = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
    return ranges


def _part(arrays: Arrays, name: str) -> Arrays:
    """The arrays whose names begin with `NAME.`, without that beginning."""
    return {key[len(name) + 1 :]: array for key, array in arrays.items() if key.startswith(f"{name}.")}


# Members of a mixture that score all items.
DENSE: dict[str, Callable[[Arrays], Scorer]] = {"als": AlsScorer, "ncf": NeuralScorer}

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

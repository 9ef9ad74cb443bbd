"""Scorers of learners that count."""

from functools import cached_property
from typing import ClassVar

import numpy as np

from .arrays import Array, Arrays, Lists, PairValues, ragged_ranges
from .axes import ITEMS, USERS, Axes, Declared, Loss, NewItem
from .candidates import chances_of
from .ranking import DenseScorer, Ranked
from .shared import SharedScores
from .top import largest

# Users by how many interactions (rows of the log, one per batch and item) they have: none, 1 to 19, 20 or more.
GROUPS = ("cold", "warm", "heavy")
_WARM_FROM, _HEAVY_FROM = 1, 20
# Weight of the prior, in events and in pairs: of the share over the next longer half-life, and of an item's share.
_DRAWN, _DRAWN_PAIRS = 20.0, 5.0
# Prior of the days between two interactions of a user with the same item.
_USUAL_DAYS = 20.0


class TrendScorer(DenseScorer):
    """Share of the events that an item gets, over several half-lives, among all users and within each group.

    A share over a short half-life rests on few events, so it is shrunk toward the share over the next longer one:
    (count + m * longer share) / (sum of counts + m), m = `_DRAWN`, the mean of a Dirichlet posterior (MacKay & Bauman
    Peto 1995, A hierarchical Dirichlet language model).
    """

    axes: ClassVar[Declared] = {
        "half_lives": Axes(("half_lives",)),
        "segment_half_lives": Axes(("segment_half_lives",)),
        "counts": Axes(("half_lives", ITEMS), NewItem.ZERO, Loss.SINGLE),
        "segment_counts": Axes(("groups", "segment_half_lives", ITEMS), NewItem.ZERO, Loss.SINGLE),
        "clock": Axes(("one",)),
        "first": Axes((ITEMS,), NewItem.NOW),
        "last": Axes((ITEMS,), NewItem.NOW),
        "rows_of_users": Axes((USERS,)),
    }

    def __init__(self, arrays: Arrays) -> None:
        half_lives, counts = arrays["half_lives"], arrays["counts"]
        self.items = items = counts.shape[1]
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
        # Events since the first and since the last interaction with an item, (2, items).
        self.ages = np.log1p(arrays["clock"] - np.stack([arrays["first"], arrays["last"]]))
        self._rows_of_users = arrays["rows_of_users"]

    def known_rows(self, rows: Array) -> Array:
        """(n,) interactions of users, rows of the log; 0 for unknown users."""
        known = (rows >= 0) & (rows < len(self._rows_of_users))
        found: Array = np.where(known, np.append(self._rows_of_users, 0)[np.where(known, rows, -1)], 0)
        return found

    def score(self, rows: Array) -> Array:
        """Logarithm of the geometric mean of the shares, the same for all users; see `Scorer`."""
        return np.repeat(self.typical.astype(np.float32)[None], len(rows), axis=0)

    @cached_property
    def shared(self) -> SharedScores:
        """What `score` returns for one user."""
        return SharedScores(self.typical.astype(np.float32))

    def rank(self, rows: Array, k: Array, left_out: Lists, wanted: Lists) -> Ranked:
        """See `Scorer`."""
        return self.shared.rank(k, left_out, wanted)

    def leaders(self, group: int, most: int) -> tuple[Array, Array]:
        """Items that are among the first of a list of shares, by their best rank in any list, and those ranks."""
        lists = np.concatenate([self.overall, self.segments[group]])
        count = min(most, lists.shape[1])
        best = np.full(lists.shape[1], most)
        for shares in lists:
            top = largest(shares, count)
            top = top[np.lexsort((top, -shares[top]))]
            best[top] = np.minimum(best[top], np.arange(count))
        items = np.flatnonzero(best < most)
        items = items[np.argsort(best[items], kind="stable")]
        return items, best[items]


class CoOccurrenceScorer(DenseScorer):
    """How often an item follows the user's latest items; where that is unknown, its share of the events."""

    axes: ClassVar[Declared] = {
        # Codes of items, one higher, 0 for none.
        "recent": Axes((USERS, "last items")),
        "neighbors": Axes((ITEMS, "neighbors"), NewItem.ZERO),
        "strengths": Axes((ITEMS, "neighbors"), NewItem.ZERO, Loss.LOGARITHMIC),
        "totals": Axes((ITEMS,), NewItem.ZERO, Loss.SINGLE),
        "share": Axes((ITEMS,), NewItem.ZERO, Loss.SINGLE),
        "scale": Axes(("one",)),
        "fading": Axes(("one",)),
    }

    def __init__(self, arrays: Arrays) -> None:
        self._recent, self._share = arrays["recent"], arrays["share"]
        self._neighbors, self._strengths = arrays["neighbors"], arrays["strengths"]
        # Decayed pairs of each item; `_DRAWN_PAIRS` of them weigh as much as the prior, the share of the neighbor.
        self._scale, self._totals = float(arrays["scale"][0]), arrays["totals"]
        self._fading = float(arrays["fading"][0])
        self.items = len(self._share)

    def neighbors(self, rows: Array) -> tuple[Lists, Array, Array]:
        """Neighbors of users' latest items, their probabilities, and the weight of the share of any item, (n,)."""
        known = (rows >= 0) & (rows < len(self._recent))
        recent = np.zeros((len(rows), self._recent.shape[1]), dtype=np.int64)
        recent[known] = self._recent[rows[known]]
        # Codes are kept one higher, 0 for none.
        weights = (recent > 0) * self._fading ** np.arange(recent.shape[1])
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        before = np.maximum(recent - 1, 0)
        if not self.items:
            return Lists.empty(len(rows)), np.zeros(0), np.ones(len(rows))
        weights /= self._totals[before] * self._scale + _DRAWN_PAIRS
        rest = np.where(recent.any(axis=1), _DRAWN_PAIRS * weights.sum(axis=1), 1.0)
        scale = self._strengths.dtype.type(self._scale)
        lengths, items, chances = chances_of(before, weights, self._neighbors, self._strengths, scale, self.items)
        return Lists.of(lengths, items), chances, rest

    def chances(self, rows: Array) -> tuple[PairValues, Array]:
        """Probabilities of neighbors, and the weight of the share of any item beside them, (n,)."""
        lists, chances, rest = self.neighbors(rows)
        keys = lists.owners * self.items + lists.items
        order = np.argsort(keys)
        return PairValues(keys[order], chances[order], self.items), rest

    def score(self, rows: Array) -> Array:
        """The chance that an item comes next; see `Scorer`."""
        lists, chances, rest = self.neighbors(rows)
        scores: Array = (rest[:, None] * self._share).astype(np.float32)
        scores[lists.owners, lists.items] += chances
        return scores

    def at(self, pairs: PairValues, rest: Array, owners: Array, items: Array) -> Array:
        """Chances (c,) of items (c,) for owners (c,), from what `chances` returned."""
        found: Array = pairs.at(owners, items) + self.beside(rest, owners, items)
        return found

    def beside(self, rest: Array, owners: Array, items: Array) -> Array:
        """The part (c,) of a chance that an item owes to its share of all events."""
        part: Array = rest[owners] * self._share[items]
        return part


class RepeatScorer(DenseScorer):
    """Repeat consumption: a user's own items, by how often and how lately, and whether they are due again."""

    axes: ClassVar[Declared] = {
        **{name: Axes(("entries",), loss=Loss.SINGLE) for name in ("items", "counts", "lately", "first", "last")},
        "starts": Axes((USERS,)),
        "lengths": Axes((USERS,)),
        "occasions": Axes(("again, at all", ITEMS), NewItem.ZERO),
        "intervals": Axes(("days, number", ITEMS), NewItem.ZERO, Loss.SINGLE),
        "share": Axes((ITEMS,), NewItem.ZERO, Loss.SINGLE),
        "now": Axes(("one",)),
        "half_life": Axes(("one",)),
    }

    def __init__(self, arrays: Arrays) -> None:
        self._arrays, self.share = arrays, arrays["share"]
        self.items = len(self.share)
        self._starts, self._lengths = arrays["starts"], arrays["lengths"]

    def repeats(self, rows: Array) -> tuple[PairValues, Array]:
        """Number of interactions of users with their items, and features (pairs, 6) in the order of the pairs."""
        arrays, items = self._arrays, len(self.share)
        known = (rows >= 0) & (rows < len(self._starts))
        lengths = np.where(known, np.append(self._lengths, 0)[np.where(known, rows, -1)], 0)
        places = ragged_ranges(np.append(self._starts, 0)[np.where(known, rows, -1)], lengths)
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
        return PairValues(owners * items + taken, counts, items), np.stack(features, axis=1)

    def score(self, rows: Array) -> Array:
        """The user's interactions with an item, ties broken by its share of all events; see `Scorer`."""
        scores = np.repeat(self.share.astype(np.float32)[None], len(rows), axis=0)
        pairs, _ = self.repeats(rows)
        scores[pairs.owners, pairs.items] += pairs.values
        return scores


def group_of(interactions: Array) -> Array:
    """(n,) place in `GROUPS` of users with so many interactions (n,), rows of the log."""
    return np.searchsorted(np.array([_WARM_FROM, _HEAVY_FROM]), interactions, side="right")


def _drawn(counts: Array, toward: Array) -> Array:
    """Shares of counts (items,), shrunk toward other shares."""
    shares: Array = (counts + _DRAWN * toward) / (counts.sum() + _DRAWN)
    return shares

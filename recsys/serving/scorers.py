"""Scorers of learners that count."""

from copy import copy
from functools import cached_property
from typing import ClassVar, Self

import numpy as np

from .arrays import Array, Arrays, Lists, PairValues, latest_of
from .axes import ITEMS, USERS, Axes, Declared, Loss, NewItem
from .candidates import chances_of
from .ranking import Contributions, DenseScorer, Ranked, Reason, strongest
from .shared import SharedScores
from .top import largest
from .walks import looked_up, put_first

# Users by how many interactions (rows of the log, one per batch and item) they have: none, 1 to 19, 20 or more.
GROUPS = ("cold", "warm", "heavy")
# What a mixture tells apart: these groups, and the same of users whose running session is known, their recent items.
IN_SESSION = "in_session"
SITUATIONS = (*GROUPS, *(f"{group}_{IN_SESSION}" for group in GROUPS))
_WARM_FROM, _HEAVY_FROM = 1, 20
# Weight of the prior, in events and in pairs: of the share over the next longer half-life, and of an item's share.
_DRAWN, _DRAWN_PAIRS = 20.0, 5.0


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
        self.names = [f"trend_{length:g}" for length in half_lives]
        self.segment_names = [f"group_trend_{length:g}" for length in arrays["segment_half_lives"]]

    def with_recent(self, rows: Array, recent: Lists) -> Self:
        """See `VersionedScorer`: only the number of interactions changes."""
        view = copy(self)
        pairs = np.unique(recent.owners * max(self.items, 1) + recent.items) // max(self.items, 1)
        view._rows_of_users = self.known_rows(rows) + np.bincount(pairs, minlength=len(rows))
        return view

    def known_rows(self, rows: Array) -> Array:
        """(n,) interactions of users, rows of the log; 0 for unknown users."""
        known = (rows >= 0) & (rows < len(self._rows_of_users))
        found: Array = np.where(known, np.append(self._rows_of_users, 0)[np.where(known, rows, -1)], 0)
        return found

    def score(self, rows: Array) -> Array:
        """Logarithm of the geometric mean of the shares, the same for all users; see `Scorer`."""
        return np.repeat(self.typical.astype(np.float32)[None], len(rows), axis=0)

    def contributions(self, rows: Array, lists: Lists) -> list[Contributions]:
        """See `VersionedScorer`."""
        parts = (self.overall[:, lists.items] / len(self.overall)).T.tolist()
        return [dict(zip(self.names, own, strict=True)) for own in parts]

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
        "neighbors": Axes((ITEMS, "neighbors"), NewItem.ZERO, sorted_by="strengths"),
        "strengths": Axes((ITEMS, "neighbors"), NewItem.ZERO, Loss.LOGARITHMIC, sorted_by="strengths"),
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
        latest = self._latest(rows)
        if not self.items:
            return Lists.empty(len(rows)), np.zeros(0), np.ones(len(rows))
        weights, before = self._weights(latest), np.maximum(latest.astype(np.int64) - 1, 0)
        rest = np.where(latest.any(axis=1), _DRAWN_PAIRS * weights.sum(axis=1), 1.0)
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

    def with_recent(self, rows: Array, recent: Lists) -> Self:
        """See `VersionedScorer`."""
        view = copy(self)
        view._recent = self._latest(rows)
        put_first(view._recent, recent.offsets, recent.items)
        return view

    def of_last(self) -> Self:
        """The same from each user's last item alone."""
        view = copy(self)
        view._recent = self._recent[:, :1]
        return view

    def contributions(self, rows: Array, lists: Lists) -> list[Contributions]:
        """See `VersionedScorer`."""
        near, chances, rest = self.neighbors(rows)
        shares = self.beside(rest, lists.owners, lists.items)
        followed = looked_up(*near, chances, *lists, self.items)
        return [
            {"neighbors": chance, "share": share}
            for chance, share in zip(followed.tolist(), shares.tolist(), strict=True)
        ]

    def reasons(self, rows: Array, lists: Lists) -> list[list[Reason]]:
        """See `VersionedScorer`: those of the latest items that an item most often follows."""
        before, weights = self._latest(rows).astype(np.int64) - 1, self._weights(self._latest(rows))
        found = list[list[Reason]]()
        for user, item in zip(lists.owners.tolist(), lists.items.tolist(), strict=True):
            latest = before[user][weights[user] > 0]
            hits = self._neighbors[latest] == item + 1
            chances = (self._strengths[latest] * hits).sum(axis=1) * self._scale * weights[user][: len(latest)]
            found.append(strongest("cooccurrence", latest, chances))
        return found

    def pair_chances(self, pairs: PairValues, rest: Array, owners: Array, items: Array) -> Array:
        """Chances (c,) of items (c,) for owners (c,), from what `chances` returned."""
        found: Array = pairs.at(owners, items) + self.beside(rest, owners, items)
        return found

    def _latest(self, rows: Array) -> Array:
        """(n, latest) codes of users' latest items, newest first; a copy."""
        return latest_of(self._recent, rows)

    def _weights(self, latest: Array) -> Array:
        """(n, latest) what a decayed pair of each latest item weighs."""
        # Codes are kept one higher, 0 for none.
        weights = (latest > 0) * self._fading ** np.arange(latest.shape[1])
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        if self.items:
            weights /= self._totals[np.maximum(latest - 1, 0)] * self._scale + _DRAWN_PAIRS
        return weights

    def beside(self, rest: Array, owners: Array, items: Array) -> Array:
        """The part (c,) of a chance that an item owes to its share of all events."""
        part: Array = rest[owners] * self._share[items]
        return part


def group_of(interactions: Array) -> Array:
    """(n,) place in `GROUPS` of users with so many interactions (n,), rows of the log."""
    return np.searchsorted(np.array([_WARM_FROM, _HEAVY_FROM]), interactions, side="right")


def _drawn(counts: Array, toward: Array) -> Array:
    """Shares of counts (items,), shrunk toward other shares."""
    shares: Array = (counts + _DRAWN * toward) / (counts.sum() + _DRAWN)
    return shares

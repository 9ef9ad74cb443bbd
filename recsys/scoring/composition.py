"""From the order of a version to a list: items that may not be in it left out, categories limited, the rest diverse."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from recsys.scoring.similarity import Similarity, ToOthers
from recsys.serving.arrays import Array, Lists

# Maximal marginal relevance chooses a list of k among so many times k items.
POOL = 5
# Numbers of one array at a time.
_AT_ONCE = 1 << 22
# Fewer allowed items than one in so many are scored by themselves.
_FEW = 20
# Where a list is not full yet, the version is asked for so many times as many items.
_DEEPER = 4


class Ranks(Protocol):
    """The ranker of a version of any release."""

    items: int

    def rank(self, rows: Array, k: Array, exclude_seen: Array) -> "Ordered":
        """The best k items of users."""


@runtime_checkable
class RanksCandidates(Ranks, Protocol):
    """The ranker of a version that can also rank some items only."""

    def rank_candidates(self, rows: Array, k: Array, exclude_seen: Array, candidates: list[Array]) -> "Ordered":
        """The best k of each user's candidates."""


class Ordered(Protocol):
    """Lists of n users, best first, one after the other: lengths (n,), items and scores."""

    @property
    def lengths(self) -> Array:
        """(n,)."""

    @property
    def items(self) -> Array:
        """Rows of items."""

    @property
    def scores(self) -> Array:
        """Of the items."""


@dataclass(frozen=True)
class Composed:
    """Lists of n users, one after the other.

    Attributes:
        lengths: (n,) int64.
        items: (sum of lengths,) int64, rows of items.
        scores: (sum of lengths,), as the version gives them.
    """

    lengths: Array
    items: Array
    scores: Array


@dataclass(frozen=True)
class Rules:
    """What lists are made of.

    Attributes:
        k: items of a list, at most.
        allowed: (items,) bool, the only ones that may be in a list; None: all.
        cap: items of one category in a list, at most; None: any number.
        categories: (items,) int, -1 for items that are not limited; used with `cap`.
        diversity: 0 to 1, see `choose`.
        similarity: used with `diversity`.
    """

    k: int
    allowed: Array | None = None
    cap: int | None = None
    categories: Array | None = None
    diversity: float = 0.0
    similarity: Similarity | None = None

    @property
    def pool(self) -> int:
        """Items among which a list is chosen; with a cap alone, more are taken where they do not suffice."""
        return self.k if self.cap is None and not self.diversity else POOL * self.k


def compose(ranker: Ranks, rows: Array, exclude_seen: bool, excluded: Lists, rules: Rules) -> Composed:
    """Lists of users, as if the whole catalog had been ranked and the rules applied to that order.

    Only as much of the order is asked for as is needed: a list that is not full yet is made again from a deeper one.
    Few allowed items are ranked by themselves, if the version can.

    Args:
        ranker: Of the version.
        rows: (n,) rows of the users, -1 for unknown ones.
        exclude_seen: Leave out the users' own items.
        excluded: Items that single users shall not get.
        rules: What applies to all users.
    """
    k = min(rules.k, ranker.items)
    allowed = np.arange(ranker.items) if rules.allowed is None else np.flatnonzero(rules.allowed)
    few = isinstance(ranker, RanksCandidates) and len(allowed) * _FEW < ranker.items
    most = len(allowed) if few or not len(allowed) else ranker.items
    # About as deep as the share of the allowed items makes necessary.
    depth = min(math.ceil(rules.pool * most / max(len(allowed), 1)), most)
    waiting = np.arange(len(rows))
    items, scores = np.full((len(rows), k), -1, dtype=np.int64), np.zeros((len(rows), k), dtype=np.float32)
    while len(waiting) and depth:
        size = max(1, _AT_ONCE // (most if few else depth))
        unfilled = []
        for begin in range(0, len(waiting), size):
            users = waiting[begin : begin + size]
            asked = rows[users], np.full(len(users), depth), np.full(len(users), exclude_seen)
            if few and isinstance(ranker, RanksCandidates):
                ordered = ranker.rank_candidates(*asked, [allowed] * len(users))
            else:
                ordered = ranker.rank(*asked)
            own_items, own_scores, settled = _of_order(ordered, excluded.of_users(users), rules)
            width = min(own_items.shape[1], k)
            items[users, :width], scores[users, :width] = own_items[:, :width], own_scores[:, :width]
            unfilled.append(users[~(settled | (ordered.lengths < depth))])
        waiting = np.concatenate(unfilled) if depth < most else waiting[:0]
        depth = min(depth * _DEEPER, most)
    kept = items >= 0
    return Composed(kept.sum(axis=1), items[kept], scores[kept])


def _of_order(ordered: Ordered, excluded: Lists, rules: Rules) -> tuple[Array, Array, Array]:
    """Items and scores of lists (n, k), -1 and 0 behind their ends, and whether a deeper order can change no list."""
    listed = np.arange(max(int(ordered.lengths.max(initial=0)), 1)) < ordered.lengths[:, None]
    items, scores = np.full(listed.shape, -1, dtype=np.int64), np.zeros(listed.shape, dtype=np.float32)
    items[listed], scores[listed] = ordered.items, ordered.scores
    open_ = listed & ~_holds(excluded, items)
    if rules.allowed is not None:
        open_ &= rules.allowed[items]
    if rules.cap is None and not rules.diversity:
        places = first_open(open_, rules.k)
        settled = (places >= 0).sum(axis=1) == rules.k
    else:
        places, settled = _chosen(items, scores, open_, rules)
    return _at(items, places, -1), _at(scores, places, 0), settled


def _chosen(items: Array, scores: Array, open_: Array, rules: Rules) -> tuple[Array, Array]:
    """Places of the lists' items (n, k), and whether a deeper order can change no list."""
    width = max(1, 1 if rules.similarity is None else rules.similarity.width)
    places = np.full((len(items), rules.k), -1)
    for begin in range(0, len(items), size := max(1, _AT_ONCE // (items.shape[1] * width))):
        block = slice(begin, begin + size)
        near = first_open(open_[block], open_.shape[1])
        near = near[:, : max(int((near >= 0).sum(axis=1).max(initial=0)), 1)]
        categories = None if rules.cap is None or rules.categories is None else rules.categories[items[block]]
        taken = choose(
            _at(scores[block], near, 0),
            (near >= 0).sum(axis=1),
            rules.k,
            Variety(
                rules.diversity,
                rules.pool if rules.diversity else 0,
                rules.similarity.among(_at(items[block], near, 0)) if rules.similarity and rules.diversity else None,
            ),
            None if categories is None else _at(categories, near, -1),
            rules.cap,
        )
        places[block] = _at(near, taken, -1)
    enough = open_.sum(axis=1) >= (rules.pool if rules.diversity else 0)
    return places, enough & ((places >= 0).sum(axis=1) == rules.k)


@dataclass(frozen=True)
class Variety:
    """How far lists depart from the order.

    Attributes:
        diversity: 0 to 1.
        pool: the first so many items of an order compete; those behind follow in order, where the list is not full.
        similarity: between the items of each order; needed where there is a pool.
    """

    diversity: float = 0.0
    pool: int = 0
    similarity: ToOthers | None = None


def choose(
    scores: Array, sizes: Array, k: int, variety: Variety, categories: Array | None = None, cap: int | None = None
) -> Array:
    """Maximal marginal relevance, with at most `cap` items of one category.

    Each place gets the item with the largest (1 - diversity) * relevance - diversity * (the largest similarity to the
    items on the places before). Relevance is the score, from 0 for the lowest one in the pool to 1 for the best; of
    equal items the first in the order is taken. Source: Carbonell and Goldstein 1998.

    Args:
        scores: (n, p) of items in order, best first.
        sizes: (n,) how many of each row are used.
        k: Length of the lists, at most.
        variety: How far lists depart from the order.
        categories: (n, p) of the items, -1 for items that are not limited; None: no limits.
        cap: Items of one category, at most.

    Returns:
        (n, k) places in the order, -1 where no more items can be taken.
    """
    users, order = np.arange(len(scores)), np.arange(scores.shape[1])
    open_, pool = order < sizes[:, None], variety.pool
    # Whatever stands behind the pool is worth less than all of it.
    value = np.repeat(-3.0 - order[None], len(scores), axis=0)
    value[:, :pool] = (1 - variety.diversity) * _relevance(scores[:, :pool], open_[:, :pool])
    nearest, taken = np.zeros_like(value[:, :pool]), np.zeros(scores.shape, dtype=np.int64)
    places = np.full((len(scores), k), -1)
    for place in range(min(k, scores.shape[1])):
        worth = value.copy()
        worth[:, :pool] -= variety.diversity * nearest
        best = np.where(open_, worth, -np.inf).argmax(axis=1)
        found = open_[users, best]
        if not found.any():
            break
        places[found, place] = best[found]
        open_[users, best] = False
        if variety.similarity is not None:
            similar = variety.similarity(best)[:, :pool]
            nearest = similar if place == 0 else np.maximum(nearest, similar)
        if categories is not None and cap is not None:
            own = categories[users, best][:, None]
            taken += (categories == own) & (own >= 0)
            open_ &= taken < cap
    return places


def _relevance(scores: Array, open_: Array) -> Array:
    """(n, p) scores between the lowest and the highest of a row, as 0 to 1; all 0 where they are equal."""
    scores = scores.astype(np.float64)
    low = np.where(open_, scores, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    high = np.where(open_, scores, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    span = high - low
    found: Array = np.divide(scores - low, span, where=span > 0, out=np.zeros(scores.shape))
    return found


def first_open(open_: Array, most: int) -> Array:
    """(n, min(most, p)) places of the first open items (n, p), -1 where there are no more."""
    most = min(most, open_.shape[1])
    number = open_.cumsum(axis=1)
    row, column = np.nonzero(open_ & (number <= most))
    places = np.full((len(open_), most), -1)
    places[row, number[row, column] - 1] = column
    return places


def _at(values: Array, places: Array, otherwise: int) -> Array:
    """Values (n, p) at places (n, q), or what stands for the place -1."""
    found: Array = np.where(places >= 0, np.take_along_axis(values, np.maximum(places, 0), axis=1), otherwise)
    return found


def _holds(lists: Lists, items: Array) -> Array:
    """(n, p) bool: whether a user's list holds items of the same user."""
    if not len(lists.items):
        return np.zeros(items.shape, dtype=bool)
    span = int(max(items.max(initial=0), lists.items.max())) + 1
    held = np.sort(lists.owners * span + lists.items)
    keys = np.arange(len(items))[:, None] * span + items
    found: Array = (held[np.minimum(np.searchsorted(held, keys), len(held) - 1)] == keys) & (items >= 0)
    return found

"""Figures about the lists of a run: how much of the catalog they hold, and how evenly."""

from dataclasses import dataclass

import numpy as np

from recsys.scoring.similarity import Similarity
from recsys.serving.arrays import Array

# Numbers of one array at a time.
_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class ListFigures:
    """Figures about lists; None where there is nothing to compute them from.

    Attributes:
        coverage: share of the catalog that is in some list.
        gini: how unevenly the places of the lists are given to the items of the catalog; 0: all have equally many,
            towards 1: few items have them all.
        popularity_bias: mean share of the catalog that a listed item is more popular than; 0.5 is that of a random one.
        diversity: intra-list diversity: 1 less the mean similarity of two items of a list.
    """

    coverage: float | None
    gini: float | None
    popularity_bias: float | None
    diversity: float | None


def coverage(counts: Array) -> float | None:
    """Share of the items with a count (items,) above 0."""
    return float((counts > 0).mean()) if len(counts) else None


def gini(counts: Array) -> float | None:
    """Gini coefficient of counts (items,), 0 to 1 - 1 / items."""
    total = float(counts.sum())
    if not total:
        return None
    ranks = 2 * np.arange(1, len(counts) + 1) - len(counts) - 1
    return float((ranks * np.sort(counts)).sum() / (len(counts) * total))


def percentiles(popularity: Array) -> Array:
    """(items,) share of the catalog that an item is more popular than, one half of its equals included."""
    order = np.sort(popularity)
    below, through = np.searchsorted(order, popularity, "left"), np.searchsorted(order, popularity, "right")
    found: Array = (below + through) / (2 * max(len(order), 1))
    return found


def dissimilarities(similarity: Similarity, items: Array, lengths: Array) -> Array:
    """1 less the mean similarity of two items, for each list of at least two.

    Args:
        similarity: Of the version.
        items: (n, k) rows of items; what is in them behind the ends of the lists does not matter, if it is a row.
        lengths: (n,).

    Returns:
        (lists of at least two items,).
    """
    items, lengths = items[lengths > 1], lengths[lengths > 1]
    found = np.zeros(len(items))
    size = max(1, _AT_ONCE // max(items.shape[1] * similarity.width, 1))
    for begin in range(0, len(items), size):
        block = slice(begin, begin + size)
        own, to_others = lengths[block], similarity.among(items[block])
        total = np.zeros(len(own))
        for place in range(items.shape[1]):
            similar = to_others(np.full(len(own), place))[:, :place].sum(axis=1)
            total += np.where(place < own, similar, 0)
        found[block] = 1 - total / (own * (own - 1) / 2)
    return found

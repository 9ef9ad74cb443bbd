"""Ranking metrics over the full catalog. Ties are misses: an item ranks behind all items with the same score."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recsys.model.common.arrays import FloatArray, IntArray

_COMPARISONS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Relevant:
    """The items that count as hits for each user.

    Attributes:
        offsets: (users + 1,) int64; the items of user u are items[offsets[u]:offsets[u + 1]].
        items: (pairs,) int64 columns of the score matrix, distinct within a user.
        unknown: (users,) int64, relevant items that have no column: never found, but they count in the denominators.
    """

    offsets: IntArray
    items: IntArray
    unknown: IntArray

    @property
    def owners(self) -> IntArray:
        """(pairs,) int64, the user of each entry of `items`."""
        return np.repeat(np.arange(len(self.unknown)), np.diff(self.offsets))


@dataclass(frozen=True)
class RankingFigures:
    """Figures of each user, (users,) float64, and the items in the lists of k.

    Attributes:
        recall: share of the relevant items among the first k.
        precision: share of hits in a list of k.
        f1: harmonic mean of the two.
        ndcg: discounted gain, divided by the best that is possible with this number of relevant items.
        auc: share of (relevant, not relevant) pairs in the right order.
        recommended: (users, k) int64, columns of the best k, -1 where fewer could be recommended.
    """

    recall: FloatArray
    precision: FloatArray
    f1: FloatArray
    ndcg: FloatArray
    auc: FloatArray
    recommended: IntArray


def ranking_figures(scores: torch.Tensor, relevant: Relevant, k: int) -> RankingFigures:
    """Measure a matrix of scores.

    Args:
        scores: (users, items) float32, -inf for items that are not to be recommended.
        relevant: The hits; each user has at least one, known or unknown.
        k: Length of the lists.
    """
    users, owners = len(relevant.unknown), relevant.owners
    known = np.diff(relevant.offsets)
    total = known + relevant.unknown
    table = scores.cpu().numpy()
    own_scores = table[owners, relevant.items]
    above = _others_above(table, own_scores, relevant.offsets)
    ranks, found = above + 1, np.isfinite(own_scores)

    def per_user(values: npt.NDArray[Any]) -> FloatArray:
        return np.bincount(owners, weights=values, minlength=users).astype(np.float64)

    hit = found & (ranks <= k)
    hits = per_user(hit)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gains = per_user(np.where(hit, discounts[np.minimum(above, k - 1)], 0.0))
    best_gains = np.cumsum(discounts)[np.minimum(total, k) - 1]
    # Items that are neither relevant nor masked; where there are none, nothing can stand before a relevant item.
    wrong = np.maximum(np.isfinite(table).sum(axis=1) - per_user(found), 1)
    wrong_above = above - _relevant_above(own_scores, owners)
    ordered = per_user(np.where(found, 1 - wrong_above / wrong[owners], 0.0))
    return RankingFigures(
        recall=hits / total,
        precision=hits / k,
        f1=2 * hits / (total + k),
        ndcg=gains / best_gains,
        auc=ordered / total,
        recommended=_best(scores, k),
    )


def coverage(recommended: IntArray, items: int) -> float:
    """Share of `items` items that occur in at least one list, (users, k) with -1 for no item."""
    return len(np.unique(recommended[recommended >= 0])) / max(items, 1)


def _others_above(scores: npt.NDArray[np.float32], own_scores: npt.NDArray[np.float32], offsets: IntArray) -> IntArray:
    """For each entry, how many other items of its user score at least as high."""
    above = np.empty(len(own_scores), dtype=np.int64)
    step = max(1, _COMPARISONS_AT_ONCE // max(scores.shape[1], 1))
    # By user, so that a user's scores stay in the cache: twenty times faster than gathering them for each entry.
    for user, (begin, end) in enumerate(pairwise(offsets.tolist())):
        for start in range(begin, end, step):
            entries = slice(start, min(start + step, end))
            above[entries] = (scores[user] >= own_scores[entries, None]).sum(axis=1)
    return above - 1


def _relevant_above(own_scores: npt.NDArray[np.float32], owners: IntArray) -> IntArray:
    """For each entry, how many other relevant items of its user score at least as high."""
    order = np.lexsort((-own_scores, owners))
    sorted_owners, sorted_scores = owners[order], own_scores[order]
    # Number of each run of entries with the same user and score.
    runs = np.cumsum((np.diff(sorted_owners, prepend=-1) != 0) | (sorted_scores != np.roll(sorted_scores, 1))) - 1
    last_of_run = np.cumsum(np.bincount(runs)) - 1
    first_of_user = np.searchsorted(sorted_owners, sorted_owners)
    above = np.empty(len(owners), dtype=np.int64)
    above[order] = last_of_run[runs] - first_of_user
    return above


def _best(scores: torch.Tensor, k: int) -> IntArray:
    """(users, k) columns of the largest scores, best first, -1 where the score is -inf or there are too few items."""
    values, columns = scores.topk(min(k, scores.shape[1]), dim=1)
    best = np.full((scores.shape[0], k), -1)
    best[:, : columns.shape[1]] = torch.where(torch.isfinite(values), columns, -1).cpu().numpy()
    return best

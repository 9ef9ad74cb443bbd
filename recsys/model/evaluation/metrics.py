"""Ranking metrics over the full catalog. Ties are misses: an item ranks behind all items with the same score."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recsys.model.common.arrays import FloatArray, IntArray
from recsys.serving import Lists, Ranked
from recsys.serving.ranking import DenseScores

# The order of items that are not recommended: behind all others.
_LAST = -(1 << 60)


@dataclass(frozen=True)
class Relevant:
    """The items that count as hits for each user.

    Attributes:
        offsets: (users + 1,) int64; the items of user u are items[offsets[u]:offsets[u + 1]].
        items: (pairs,) int64 codes, distinct within a user.
        unknown: (users,) int64, relevant items that have no code: never found, but they count in the denominators.
    """

    offsets: IntArray
    items: IntArray
    unknown: IntArray

    @property
    def lists(self) -> Lists:
        """The items whose ranks are asked for."""
        return Lists(self.offsets, self.items.astype(np.int32))

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
        recommended: (users, k) int64, codes of the best k, -1 where fewer could be recommended.
    """

    recall: FloatArray
    precision: FloatArray
    f1: FloatArray
    ndcg: FloatArray
    auc: FloatArray
    recommended: IntArray


def ranking_figures(ranked: Ranked, relevant: Relevant, k: int) -> RankingFigures:
    """Measure a ranking.

    Args:
        ranked: The best k items of each user, and the ranks of the relevant ones.
        relevant: The hits; each user has at least one, known or unknown.
        k: Length of the lists.
    """
    users, owners, above = len(relevant.unknown), relevant.owners, ranked.above
    known = np.diff(relevant.offsets)
    total = known + relevant.unknown
    found = above >= 0

    def per_user(values: npt.NDArray[Any]) -> FloatArray:
        return np.bincount(owners, weights=values, minlength=users).astype(np.float64)

    hit = found & (above < k)
    hits = per_user(hit)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gains = per_user(np.where(hit, discounts[np.clip(above, 0, k - 1)], 0.0))
    best_gains = np.cumsum(discounts)[np.minimum(total, k) - 1]
    # Items that are neither relevant nor left out; where there are none, nothing can stand before a relevant item.
    wrong = np.maximum(ranked.open_items - per_user(found), 1)
    wrong_above = above - _relevant_above(np.where(found, -above, _LAST), owners)
    ordered = per_user(np.where(found, 1 - wrong_above / wrong[owners], 0.0))
    recommended = np.full((users, k), -1)
    recommended[:, : ranked.items.shape[1]] = ranked.items[:, :k]
    return RankingFigures(
        recall=hits / total,
        precision=hits / k,
        f1=2 * hits / (total + k),
        ndcg=gains / best_gains,
        auc=ordered / total,
        recommended=recommended,
    )


def ranked_by_scores(scores: torch.Tensor, wanted: Lists, k: int) -> Ranked:
    """Rank by a matrix of scores (users, items), -inf for items that are not to be recommended."""
    users = len(scores)
    return DenseScores(scores.cpu().numpy()).rank(np.full(users, k), Lists.empty(users), wanted)


def coverage(recommended: IntArray, items: int) -> float:
    """Share of `items` items that occur in at least one list, (users, k) with -1 for no item."""
    listed = np.zeros(items, dtype=bool)
    listed[recommended[recommended >= 0]] = True
    return float(listed.sum()) / max(items, 1)


def _relevant_above(own_scores: IntArray, owners: IntArray) -> IntArray:
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

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
        """The items of each user."""
        return Lists(self.offsets, self.items.astype(np.int32))

    def lists_of(self, users: IntArray) -> Lists:
        """The items of some users, by their places, as lists of all users: those of the others are empty."""
        chosen = np.zeros(len(self.unknown), dtype=bool)
        chosen[users] = True
        lists = self.lists
        return Lists.of(np.where(chosen, lists.lengths, 0), lists.items[chosen[lists.owners]])


@dataclass(frozen=True)
class RankingFigures:
    """Figures of each user, (users,) float64, and the items in the lists of k.

    Attributes:
        recall: share of the relevant items among the first k.
        precision: share of hits in a list of k.
        f1: harmonic mean of the two.
        ndcg: discounted gain, divided by the best that is possible with this number of relevant items.
        auc: share of (relevant, not relevant) pairs in the right order; not a number where the order was not asked for.
        recommended: (users, k) int64, codes of the best k, -1 where fewer could be recommended.
    """

    recall: FloatArray
    precision: FloatArray
    f1: FloatArray
    ndcg: FloatArray
    auc: FloatArray
    recommended: IntArray


def ranking_figures(ranked: Ranked, relevant: Relevant, k: int, ordered: IntArray | None = None) -> RankingFigures:
    """Measure a ranking.

    Args:
        ranked: The best k + 1 items of each user, of which the last one shows a tie at the end of the list, and the
            ranks of relevant items.
        relevant: The hits; each user has at least one, known or unknown.
        k: Length of the lists.
        ordered: Places of the users of whose relevant items `ranked` has the ranks, for the AUC; None: of all.
    """
    users = len(relevant.unknown)
    total = np.diff(relevant.offsets) + relevant.unknown
    above = _listed_above(ranked)
    hit = _is_relevant(ranked, relevant) & (above < k)
    hits = hit.sum(axis=1)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gains = np.where(hit, discounts[np.minimum(above, k - 1)], 0.0).sum(axis=1)
    recommended = np.full((users, k), -1)
    width = min(k, ranked.items.shape[1])
    recommended[:, :width] = ranked.items[:, :width]
    return RankingFigures(
        recall=hits / total,
        precision=hits / k,
        f1=2 * hits / (total + k),
        ndcg=gains / np.cumsum(discounts)[np.minimum(total, k) - 1],
        auc=_auc(ranked, relevant, np.arange(users) if ordered is None else ordered),
        recommended=recommended,
    )


def _is_relevant(ranked: Ranked, relevant: Relevant) -> npt.NDArray[np.bool_]:
    """(users, width) whether what is listed is relevant."""
    users, width = ranked.items.shape
    items = max(int(ranked.items.max(initial=0)), int(relevant.items.max(initial=0))) + 1
    wanted = relevant.lists
    listed = np.arange(width) < ranked.lengths[:, None]
    keys = np.arange(users)[:, None] * items + ranked.items
    found: npt.NDArray[np.bool_] = listed & np.isin(keys, wanted.owners * items + wanted.items)
    return found


def _listed_above(ranked: Ranked) -> IntArray:
    """(users, width) how many other listed items score at least as high as a listed one."""
    users, width = ranked.items.shape
    above = np.tile(np.arange(width), (users, 1))
    for place in range(width - 2, -1, -1):
        tied = (ranked.scores[:, place] == ranked.scores[:, place + 1]) & (place + 1 < ranked.lengths)
        above[tied, place] = above[tied, place + 1]
    return above


def _auc(ranked: Ranked, relevant: Relevant, ordered: IntArray) -> FloatArray:
    """(users,) the AUC of users whose relevant items are ranked; of the others not a number."""
    users, lists, above = len(relevant.unknown), relevant.lists_of(ordered), ranked.above
    owners, found = lists.owners, above >= 0

    def per_user(values: npt.NDArray[Any]) -> FloatArray:
        return np.bincount(owners, weights=values, minlength=users).astype(np.float64)

    # Items that are neither relevant nor left out; where there are none, nothing can stand before a relevant item.
    wrong = np.maximum(ranked.open_items - per_user(found), 1)
    wrong_above = above - _relevant_above(np.where(found, -above, _LAST), owners)
    right = per_user(np.where(found, 1 - wrong_above / wrong[owners], 0.0))
    auc = np.full(users, np.nan)
    auc[ordered] = right[ordered] / (np.diff(relevant.offsets) + relevant.unknown)[ordered]
    return auc


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

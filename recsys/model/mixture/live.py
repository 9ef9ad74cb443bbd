"""Live learners, ranked by the code that ranks versions."""

from copy import copy
from typing import Self

import numpy as np

from recsys.model.als.factors import take_rows
from recsys.model.als.incremental_als import IncrementalAls
from recsys.model.common.arrays import IntArray
from recsys.model.interactions.adjacency import RaggedRows
from recsys.model.interactions.history import History
from recsys.model.learner import CodedBatch, Learner
from recsys.serving.arrays import Array, Lists
from recsys.serving.factors import AlsScorer, factors_of
from recsys.serving.fold_in import RECENT_WEIGHT
from recsys.serving.proposals import DenseMember
from recsys.serving.ranking import DenseScorer


class FoldInBefore:
    """Folds in users with what they had interacted with before a batch that the history holds.

    In torch, as all that is learned from: the last bits of numpy's products depend on the number of threads.

    Args:
        learner: The factors, which have not learned the batch.
        users: (n,) codes, ascending.
        batch: The batch.
        history: Everything seen, the batch included.

    Attributes:
        keys, weights: (pairs,) place in `users` times the number of items, plus the item, ascending; decayed weights.
    """

    def __init__(self, learner: IncrementalAls, users: IntArray, batch: CodedBatch, history: History) -> None:
        self._learner, self._users, self._width = learner, users, batch.item_count
        rows = history.user_rows(users)
        keys = np.repeat(np.arange(len(users)), rows.lengths) * self._width + rows.others
        order = np.argsort(keys, kind="stable")
        self.keys, self.weights = keys[order], rows.weights[order]
        own = np.flatnonzero(np.isin(batch.users, users))
        places = np.searchsorted(self.keys, np.searchsorted(users, batch.users[own]) * self._width + batch.items[own])
        added = history.stored(batch.weights[own], batch.times[own]) * history.scale
        self.weights = self.weights - np.bincount(places, added, minlength=len(keys))
        before = np.ones(len(keys), dtype=bool)
        before[places[batch.new_pairs[own]]] = False
        self.keys, self.weights = self.keys[before], self.weights[before]

    def factors(self, rows: Array, recent: Lists) -> Array:
        """(n, f) float32 factors of the users, by their rows (-1 for new ones), with recent items of them all."""
        now = np.full(len(recent.items), RECENT_WEIGHT)
        keys = np.concatenate([self.keys, recent.owners * self._width + recent.items])
        pairs, places = np.unique(keys, return_inverse=True)
        weights = np.bincount(places, np.concatenate([self.weights, now]), minlength=len(pairs))
        owners, items = np.divmod(pairs, self._width)
        lengths = np.bincount(owners, minlength=len(rows))
        starts = np.cumsum(lengths) - lengths
        own = RaggedRows(starts, lengths, items.astype(np.int32), weights.astype(np.float32))
        factors: Array = self._learner.folded_in_from(own, rows).cpu().numpy()
        return factors


def live_scorer(learner: Learner, items: int) -> DenseMember:
    """The scorer of a learner of so many items as it is now: one that has no other, on whatever device it lives.

    Recent items tell it nothing, unless it is one of factors that `folding_in` has taught.
    """
    return _LiveFactors(learner) if isinstance(learner, IncrementalAls) else _LiveScores(learner, items)


def folding_in(scorer: DenseMember, fold_in: FoldInBefore) -> DenseMember:
    """The live scorer of factors, which folds in the users whose recent items are given, in their order."""
    assert isinstance(scorer, _LiveFactors)
    view = copy(scorer)
    view._before = fold_in
    return view


class _LiveFactors(AlsScorer):
    """Factors that stay on their device, but for those of the items and of the users that are asked for."""

    def __init__(self, learner: IncrementalAls) -> None:
        items: Array = learner.item_factors.cpu().numpy()
        super().__init__({"user_factors": items[:0], "item_factors": items})
        self._learner, self._folded = learner, False
        self._before: FoldInBefore | None = None

    def factors(self, rows: Array) -> Array:
        """See `AlsScorer`."""
        if self._folded:
            return factors_of(self._users, rows)
        factors: Array = take_rows(self._learner.user_factors, rows).cpu().numpy()
        return factors

    def with_recent(self, rows: Array, recent: Lists) -> Self:
        """See `VersionedScorer`."""
        view = copy(self)
        view._users = self.factors(rows) if self._before is None else self._before.factors(rows, recent)
        view._folded = True
        return view


class _LiveScores(DenseScorer):
    """A live learner that scores all items, on its own device; recent items tell it nothing."""

    def __init__(self, learner: Learner, items: int) -> None:
        self._learner, self.items = learner, items
        self._asked: Array | None = None

    def score(self, rows: Array) -> Array:
        """See `Scorer`."""
        scores: Array = self._learner.score(rows if self._asked is None else self._asked[rows]).cpu().numpy()
        return scores

    def with_recent(self, rows: Array, recent: Lists) -> Self:
        """See `VersionedScorer`."""
        del recent
        view = copy(self)
        view._asked = rows
        return view

"""Live learners, ranked by the code that ranks versions."""

from copy import copy
from typing import Self

import numpy as np

from recsys.model.als.factors import take_rows
from recsys.model.als.incremental_als import IncrementalAls
from recsys.model.common.arrays import IntArray, offsets_of
from recsys.model.interactions.history import History
from recsys.model.learner import CodedBatch, Learner
from recsys.serving.arrays import Array, Lists
from recsys.serving.factors import AlsScorer, factors_of
from recsys.serving.fold_in import FoldIn
from recsys.serving.proposals import DenseMember
from recsys.serving.ranking import DenseScorer


def live_scorer(learner: Learner, items: int, fold_in: FoldIn | None = None) -> DenseMember:
    """The scorer of a learner of so many items as it is now: one that has no other, on whatever device it lives.

    Args:
        learner: The learner.
        items: How many it knows.
        fold_in: Folds in the users whose recent items are given, in their order; None: these change no factors.
    """
    return _LiveFactors(learner, fold_in) if isinstance(learner, IncrementalAls) else _LiveScores(learner, items)


def fold_in_before(learner: IncrementalAls, users: IntArray, batch: CodedBatch, history: History) -> FoldIn:
    """Folds in users (n,) by their place, with what they had interacted with before a batch that the history holds."""
    rows, width = history.user_rows(users), batch.item_count
    keys = np.repeat(np.arange(len(users)), rows.lengths) * width + rows.others
    own = np.flatnonzero(np.isin(batch.users, users))
    own_keys = np.searchsorted(users, batch.users[own]) * width + batch.items[own]
    order = np.argsort(keys, kind="stable")
    places = order[np.searchsorted(keys, own_keys, sorter=order)]
    added = history.stored(batch.weights[own], batch.times[own]) * history.scale
    weights = rows.weights - np.bincount(places, added, minlength=len(keys))
    before = np.ones(len(keys), dtype=bool)
    before[places[batch.new_pairs[own]]] = False
    return FoldIn(
        {
            **learner.served_items(),
            "seen_offsets": offsets_of(np.bincount(keys[before] // width, minlength=len(users))),
            "seen_items": rows.others[before],
            "seen_weights": weights[before],
        }
    )


class _LiveFactors(AlsScorer):
    """Factors that stay on their device, but for those of the items and of the users that are asked for."""

    def __init__(self, learner: IncrementalAls, fold_in: FoldIn | None) -> None:
        items: Array = learner.item_factors.cpu().numpy()
        super().__init__({"user_factors": items[:0], "item_factors": items})
        self._learner, self._fold_in, self._folded = learner, fold_in, False

    def factors(self, rows: Array) -> Array:
        """See `AlsScorer`."""
        if self._folded:
            return factors_of(self._users, rows)
        factors: Array = take_rows(self._learner.user_factors, rows).cpu().numpy()
        return factors

    def with_recent(self, rows: Array, recent: Lists) -> Self:
        """See `VersionedScorer`."""
        view = copy(self)
        own = self.factors(rows)
        view._users = own if self._fold_in is None else self._fold_in.factors(np.arange(len(rows)), recent, own)
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

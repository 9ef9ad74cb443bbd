"""What is known of items besides who had them: a vector of each, such as that of its text."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.common.arrays import FloatArray, GrowingArray, Int32Array, IntArray
from recsys.model.counts.counting import CountingLearner
from recsys.model.interactions.history import History
from recsys.model.interactions.keeping import Kept
from recsys.model.learner import CodedBatch, State
from recsys.serving import Lists
from recsys.serving.content import ContentScorer
from recsys.serving.walks import put_first

# Latest items of a user that are kept.
_WIDTH = 20


class Content(CountingLearner):
    """The vector of each item, as the batches brought it, and each user's latest items; a `Learner`.

    A vector that a later batch brings for an item replaces the one before. The sum of all vectors is kept in whole
    numbers, so it depends on the present vectors only.

    Args:
        settings: Nothing of them is used.
    """

    def __init__(self, settings: Settings) -> None:
        del settings
        # Codes are stored plus one, so that 0 means none. Flat: (users * width,), newest first.
        self._recent = GrowingArray((), np.int32)
        # Flat: (items * dimensions,), zeros for an item without a vector.
        self._vectors, self._dimensions, self._items = GrowingArray((), np.int8), 0, 0
        self._total: IntArray = np.zeros(0, dtype=np.int64)
        self._described = 0

    def absorb(self, batch: CodedBatch, history: History, step: StepId) -> None:
        """See `Learner`.

        Raises:
            ValueError: vectors have another number of dimensions than those before.
        """
        del history, step
        self._items = batch.item_count
        self._describe(batch.described, batch.vectors)
        self._recent.resize(batch.user_count * _WIDTH)
        put_first(self._latest(), *batch.liked_in_order())

    def vectors_of(self, items: IntArray) -> npt.NDArray[np.int8]:
        """(n, d) vectors of items by their codes (n,), zeros for those without one, and for code -1."""
        known = (items >= 0) & (items < self._items)
        found = np.zeros((len(items), self._dimensions), dtype=np.int8)
        found[known] = self._table()[items[known]]
        return found

    def keep(self, kept: Kept, history: History) -> None:
        """See `Learner`."""
        del history
        recent = kept.items.latest_in_slots(self._latest()[kept.users.codes])
        self._recent = GrowingArray(recent.ravel(), np.int32)
        table = self._table()[kept.items.codes]
        self._vectors, self._items = GrowingArray(table.ravel(), np.int8), len(kept.items)
        self._add_up()

    def scorer(self) -> ContentScorer:
        """The scorer of the current vectors."""
        return ContentScorer(self._arrays())

    def score_pairs(self, users: IntArray, items: IntArray) -> FloatArray:
        """See `Learner`."""
        scores: FloatArray = self.scorer().alike(users, Lists.of(np.ones(len(items)), items))[0]
        return scores

    def state(self) -> State:
        """See `Learner`."""
        return {"recent": self._latest(), "vectors": self._table(), "sizes": np.array([self._items, self._dimensions])}

    @classmethod
    def from_state(cls, settings: Settings, state: Mapping[str, npt.NDArray[Any]]) -> "Content":
        """See `Learner`."""
        learner = cls(settings)
        learner._items, learner._dimensions = state["sizes"].tolist()
        learner._recent = GrowingArray(state["recent"].ravel(), np.int32)
        learner._vectors = GrowingArray(state["vectors"].ravel(), np.int8)
        learner._add_up()
        return learner

    def served(self, history: History) -> State:
        """The arrays of `ContentScorer`."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def _describe(self, items: IntArray, vectors: npt.NDArray[np.int8]) -> None:
        """Take vectors (n, d) of distinct items (n,)."""
        if len(items) and not self._dimensions:
            self._dimensions = vectors.shape[1]
            self._total = np.zeros(self._dimensions, dtype=np.int64)
        if len(items) and vectors.shape[1] != self._dimensions:
            raise ValueError(f"vectors of {vectors.shape[1]} dimensions after ones of {self._dimensions}")
        self._vectors.resize(self._items * self._dimensions)
        if len(items):
            before = self._table()[items]
            self._table()[items] = vectors
            self._total += vectors.sum(axis=0, dtype=np.int64) - before.sum(axis=0, dtype=np.int64)
            self._described += int(vectors.any(axis=1).sum()) - int(before.any(axis=1).sum())

    def _add_up(self) -> None:
        table = self._table()
        self._total = table.sum(axis=0, dtype=np.int64)
        self._described = int(table.any(axis=1).sum())

    def _latest(self) -> Int32Array:
        """(users, width), a view."""
        latest: Int32Array = self._recent.values.reshape(-1, _WIDTH)
        return latest

    def _table(self) -> npt.NDArray[np.int8]:
        """(items, dimensions), a view."""
        table: npt.NDArray[np.int8] = self._vectors.values.reshape(self._items, self._dimensions)
        return table

    def _arrays(self) -> State:
        center = {"total": self._total, "described": np.array([self._described])}
        return {"recent": self._latest(), "vectors": self._table(), **center}

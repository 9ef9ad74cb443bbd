"""The protocol that all learners share, so that they are interchangeable and can be combined."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.common.arrays import FloatArray, IntArray, offsets_of
from recsys.model.drift.surprise import Decision
from recsys.model.interactions.history import History
from recsys.model.interactions.keeping import Kept

State = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class CodedBatch:
    """A batch whose ids have become codes: distinct pairs, sorted by user id, then item id.

    Attributes:
        users, items: (n,) int64 codes.
        weights: (n,) float64, summed event weights; may be negative.
        events: (n,) int64, number of events summed.
        times: (n,) float64, time of the last event, seconds since 1970 UTC.
        new_pairs: (n,) bool, whether the user had not interacted with the item before.
        user_count, item_count: how many there are now, those of this batch included.
        left_users, left_items: (m,) int64 codes of distinct pairs that were shown and left, of known users and items.
        described: (v,) int64 codes of distinct items that the batch brings vectors of; vectors: (v, d) int8.
    """

    users: IntArray
    items: IntArray
    weights: FloatArray
    events: IntArray
    times: FloatArray
    new_pairs: npt.NDArray[np.bool_]
    user_count: int
    item_count: int
    left_users: IntArray
    left_items: IntArray
    described: IntArray
    vectors: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.users)

    def rows_in_order(self) -> IntArray:
        """(m,) rows of positive weight, user by user in the order of time, at one time by the codes of the items."""
        liked = np.flatnonzero(self.weights > 0)
        order: IntArray = liked[np.lexsort((self.items[liked], self.times[liked], self.users[liked]))]
        return order

    def liked_in_order(self) -> tuple[IntArray, IntArray]:
        """Items of positive weight, user by user in the order of time: offsets (user_count + 1,), and the items."""
        order = self.rows_in_order()
        return offsets_of(np.bincount(self.users[order], minlength=self.user_count)), self.items[order]


class Learner(Protocol):
    """Learns from batches which items a user will interact with next.

    Its state is a function of the batches learned and the settings: the same batches give the same arrays to the last
    bit, also when `state` is taken and restored in between (on one kind of machine). `OnlineModel` keeps ids and
    history, and calls it with steps in rising order.

    Args:
        settings: All settings; a learner uses its own section, device and seed.

    Attributes:
        rehearsal: How many of the last batches are learned one by one in a rebuild, after a first refit of the rest,
            for what can only be learned by scoring a batch before it is known.
    """

    rehearsal: int

    def __init__(self, settings: Settings) -> None: ...

    def update(self, batch: CodedBatch, history: History, step: StepId, decision: Decision) -> dict[str, float]:
        """Learn from a batch.

        Args:
            batch: The batch; an empty one changes nothing.
            history: Everything seen, the batch included.
            step: Generation and number of the batch.
            decision: How to learn the batch; a learner follows what applies to it.

        Returns:
            Figures for the ledger, by name.
        """

    def absorb(self, batch: CodedBatch, history: History, step: StepId) -> None:
        """Add a batch during a rebuild; what costs more than counting waits for `refit`."""

    def keep(self, kept: Kept, history: History) -> None:
        """Forget users and items between two batches.

        Args:
            kept: Those that stay, and their codes from now on.
            history: What is left of everything seen; pairs that have faded are gone, too.
        """

    def refit(self, history: History, step: StepId) -> dict[str, float]:
        """Retrain from the whole history what `absorb` left out; metrics for the ledger."""

    def score(self, users: IntArray) -> torch.Tensor:
        """Score all items for some users. Changes nothing.

        Args:
            users: (n,) codes, -1 for unknown users.

        Returns:
            (n, items) float32, higher is better; a row of zeros for a user that the learner does not know.
        """

    def score_pairs(self, users: IntArray, items: IntArray) -> FloatArray:
        """Score pairs alike for known users (n,) and items (n,), (n,) float64, at a cost that follows n."""

    def state(self) -> State:
        """All arrays from which `from_state` continues as if nothing had happened; no copies."""

    @classmethod
    def from_state(cls, settings: Settings, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """A learner from what `state` returned."""

    def served(self, history: History) -> State:
        """The arrays from which `recsys.serving` computes the scores of a registered version."""

"""The common part of learners that only count."""

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt
import torch

from recsys.contracts import StepId
from recsys.model.common.arrays import FloatArray, IntArray
from recsys.model.drift.surprise import Decision
from recsys.model.interactions.history import History
from recsys.model.interactions.keeping import Kept
from recsys.model.learner import CodedBatch
from recsys.serving.ranking import Scorer


class CountingLearner(ABC):
    """A `Learner` whose state is counts: a batch is learned once it is counted, and nothing is left to retrain."""

    rehearsal = 0

    @abstractmethod
    def absorb(self, batch: CodedBatch, history: History, step: StepId) -> None:
        """See `Learner`."""

    @abstractmethod
    def keep(self, kept: Kept, history: History) -> None:
        """See `Learner`."""

    @abstractmethod
    def scorer(self) -> Scorer:
        """The scorer of the current counts."""

    def update(self, batch: CodedBatch, history: History, step: StepId, decision: Decision) -> dict[str, float]:
        """See `Learner`."""
        self.absorb(batch, history, step)
        return {}

    def refit(self, history: History, step: StepId) -> dict[str, float]:
        """See `Learner`; nothing is left to retrain."""
        return {}

    def score(self, users: IntArray) -> torch.Tensor:
        """See `Learner`."""
        return torch.from_numpy(self.scorer().score(users))


class EventClock:
    """Numbers events in the order of their times.

    Args:
        state: What `state` was, to continue from there.
    """

    def __init__(self, state: npt.ArrayLike = (0.0,)) -> None:
        self.state: FloatArray = np.array(state, dtype=np.float64)

    def advance(self, batch: CodedBatch) -> FloatArray:
        """Count the events of a batch; returns the number of the last event of each of its rows, (n,)."""
        order = np.argsort(batch.times, kind="stable")
        positions = np.empty(len(batch))
        positions[order] = self.state + np.cumsum(batch.events[order])
        self.state = self.state + float(batch.events.sum())
        return positions

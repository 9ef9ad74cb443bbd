"""Replays a log through a model: each batch is ranked, then learned (prequential, test-then-train)."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.errors import InputError
from recsys.evaluate import WARM_UP_SHARE
from recsys.model.common.arrays import FloatArray, GrowingArray
from recsys.model.evaluation.gate import Interval, interval
from recsys.model.evaluation.prequential import evaluate_users
from recsys.model.interactions.vocab import Vocabulary
from recsys.model.recommender import OnlineModel

# The search, and the part that it does not see, have at least so many batches.
LEAST_BATCHES = WARM_UP_SHARE


@dataclass(frozen=True)
class Log:
    """Batches that can be read again and again, always the same.

    Attributes:
        count: How many there are.
        read: Gives the first so many, in order.
    """

    count: int
    read: Callable[[int], Iterable[tuple[StepId, InteractionBatch]]]

    def searched(self, share: float) -> int:
        """How many batches, from the first on, the search sees.

        Raises:
            InputError: either part would be too short.
        """
        first = round(share * self.count)
        if min(first, self.count - first) < LEAST_BATCHES:
            raise InputError(
                f"the log has {self.count} batches, of which tune.share {share:g} searches {first} and leaves "
                f"{self.count - first} to check on, and each part needs {LEAST_BATCHES}: let the stream learn more "
                f"batches first, or set source.max_records_per_batch lower where it begins"
            )
        return first


class Quality:
    """NDCG@k of one model on batches that it had not learned yet.

    Attributes:
        by_batch: Mean over the evaluated users of each batch; NaN where there were none.
        users: The users evaluated so far.
    """

    def __init__(self) -> None:
        self.by_batch: list[float] = []
        self.users = Vocabulary()
        self._sums, self._counts = GrowingArray((), np.float64), GrowingArray((), np.int64)

    def add(self, user_ids: list[str], ndcg: FloatArray) -> None:
        """Take in a batch: n distinct users, and the NDCG (n,) of each."""
        codes = self.users.extend(user_ids)
        for array in (self._sums, self._counts):
            array.resize(len(self.users))
        self._sums.values[codes] += ndcg
        self._counts.values[codes] += 1
        self.by_batch.append(float(ndcg.mean()) if len(ndcg) else math.nan)

    @property
    def mean(self) -> float:
        """Mean over the batches, with equal weights; NaN if nobody was evaluated."""
        return self.mean_of_first(len(self.by_batch))

    def mean_of_first(self, batches: int) -> float:
        """The same over the first so many batches that were evaluated."""
        found = [value for value in self.by_batch[:batches] if not math.isnan(value)]
        return float(np.mean(found)) if found else math.nan

    @property
    def by_user(self) -> FloatArray:
        """(users,) mean of each user over the batches in which the user was evaluated."""
        means: FloatArray = self._sums.values / self._counts.values
        return means

    def gain(self, other: "Quality", error: float) -> tuple[Interval, int]:
        """How much better this model ranks than another one, on the users on whom both were evaluated.

        Args:
            other: Of the same batches.
            error: Of each bound, see `gate.interval`.

        Returns:
            The mean over users of the difference of their means, with its bounds; and the number of users.

        Raises:
            InputError: there is no such user.
        """
        codes = other.users.lookup(self.users.ids)
        both = np.flatnonzero(codes >= 0)
        if not len(both):
            raise InputError("nobody could be measured in the part of the log that the search did not see")
        return interval(self.by_user[both] - other.by_user[codes[both]], error), len(both)


def replay(settings: Settings, batches: Iterable[tuple[StepId, InteractionBatch]], first: int) -> Iterator[Quality]:
    """Let a new model learn batches in order; from one on, each is ranked before it is learned.

    Args:
        settings: All settings of the model.
        batches: In order of their steps.
        first: Number of the batch that is evaluated first; those before only warm up.

    Yields:
        After each batch, what was measured so far: the same object, which grows.

    Raises:
        SolveError: the equations have no finite solution.
    """
    model, quality = OnlineModel(settings), Quality()
    for number, (step, batch) in enumerate(batches):
        if number >= first:
            evaluated = evaluate_users(batch, model, {}, settings, step)
            quality.add(evaluated.user_ids, evaluated.ndcg.get("model", np.empty(0)))
        model.update(batch, step)
        yield quality

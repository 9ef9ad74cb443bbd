"""Generated events as the model takes them: batch by batch, without Spark."""

from collections.abc import Sequence

import numpy as np

from bench.harness.generate import draw
from recsys.contracts import InteractionBatch, StepId
from recsys.frames import WeighedEvents
from recsys.model.common.arrays import FloatArray, IntArray

# Groups of users, each with its own preferences.
GROUPS = 40


class GeneratedStream:
    """A generated stream, taken batch by batch.

    Args:
        users, items: how many there are.
        seed: of what is drawn.
        drift: ranks that the favorites of a group move in 1,000 events.
    """

    def __init__(self, users: int, items: int, seed: int, drift: float) -> None:
        self.taken = 0
        self._drift = drift
        self._user_ids, self._item_ids = numbered("u", users), numbered("i", items)
        self._seed = seed

    def take(self, size: int) -> InteractionBatch:
        """The next events."""
        sizes = len(self._user_ids), len(self._item_ids)
        drawn = draw(size, *sizes, self._seed, self.taken, GROUPS, self._drift)
        self.taken += size
        times = drawn["time"].astype("datetime64[us, UTC]").astype("int64").to_numpy() / 1e6
        return to_batch(drawn["user"].to_numpy(), drawn["item"].to_numpy(), times, self._user_ids, self._item_ids)


def numbered(prefix: str, count: int) -> list[str]:
    """Ids that sort like their numbers."""
    return [f"{prefix}{number:07d}" for number in range(count)]


def to_batch(
    users: IntArray, items: IntArray, times: FloatArray, user_ids: Sequence[str], item_ids: Sequence[str]
) -> InteractionBatch:
    """Events (n,) in the order of time, given by numbers of ids that sort like them: summed by pair, sorted."""
    return WeighedEvents(user_ids, item_ids, users, items, np.ones(len(users)), times).batch()


def following(step: StepId | None) -> StepId:
    """The step after a step."""
    return StepId(0, 0) if step is None else StepId(step.generation, step.batch_id + 1)

"""What is taken now: the items' shares of the events, over several half-lives, of all users and of groups of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.common.arrays import FloatArray, GrowingArray, IntArray
from recsys.model.counts.popularity import Popularity
from recsys.model.drift.surprise import Decision
from recsys.model.interactions.decay import SECONDS_PER_DAY
from recsys.model.interactions.history import History
from recsys.model.learner import CodedBatch, State
from recsys.serving.arrays import part, prefixed
from recsys.serving.scorers import GROUPS, TrendScorer, group_of


class Trend:
    """Counts of each item's events, each decayed by the events that came after it; a `Learner`.

    Half-lives are counted in events, not in days, so that they fit streams of any rate. An event counts 1 if the weight
    of its row is positive, whatever that weight is, and moves the clock on in any case.

    Args:
        settings: The section model.mixture is used.
    """

    rehearsal = 0

    def __init__(self, settings: Settings) -> None:
        mixture = settings.model.mixture
        self._half_lives, self._segment_half_lives = mixture.half_lives, mixture.segment_half_lives
        self._overall = [_counter(half_life) for half_life in self._half_lives]
        self._segments = [[_counter(half_life) for half_life in self._segment_half_lives] for _ in GROUPS]
        self._clock = EventClock()
        # Of items: the clock at the first and the last time they were taken, 0 for never.
        self._first, self._last = GrowingArray((), np.float64), GrowingArray((), np.float64)
        self._rows_of_users = GrowingArray((), np.int64)

    def update(self, batch: CodedBatch, history: History, step: StepId, decision: Decision) -> dict[str, float]:
        """See `Learner`."""
        self.absorb(batch, history, step)
        return {}

    def absorb(self, batch: CodedBatch, history: History, step: StepId) -> None:
        """See `Learner`."""
        del history, step
        positions = self._clock.advance(batch)
        groups = group_of(self.rows_of(batch.users))
        liked = batch.weights > 0
        items, events, positions = batch.items[liked], batch.events[liked].astype(np.float64), positions[liked]
        for counter in self._overall:
            counter.add(items, events, positions, batch.item_count)
        for group, counters in enumerate(self._segments):
            own = groups[liked] == group
            for counter in counters:
                # Clocks of all groups go on alike.
                counter.add(items, events * own, positions, batch.item_count)
        self._first.resize(batch.item_count)
        self._last.resize(batch.item_count)
        # Assigned in falling order, so that the earliest position stays.
        order = np.argsort(-positions, kind="stable")
        order = order[self._first.values[items[order]] == 0]
        self._first.values[items[order]] = positions[order]
        np.maximum.at(self._last.values, items, positions)
        self._rows_of_users.resize(batch.user_count)
        np.add.at(self._rows_of_users.values, batch.users, 1)

    def refit(self, history: History, step: StepId) -> dict[str, float]:
        """There is nothing to learn but the counts."""
        return {}

    @property
    def clock(self) -> float:
        """Events seen."""
        return float(self._clock.state[0])

    def rows_of(self, users: IntArray) -> IntArray:
        """(n,) rows of the log that users (n,) have had, 0 for codes past the end."""
        counts = np.append(self._rows_of_users.values, 0)
        found: IntArray = counts[np.minimum(users, len(counts) - 1)]
        return found

    def scorer(self) -> TrendScorer:
        """What scores, from the counts as they are now."""
        return TrendScorer(self._arrays())

    def score(self, users: IntArray) -> torch.Tensor:
        """See `Learner`; the same for all users, known or not."""
        return torch.from_numpy(self.scorer().score(users))

    def score_pairs(self, users: IntArray, items: IntArray) -> FloatArray:
        """See `Learner`."""
        scores: FloatArray = self.scorer().typical[items]
        return scores

    def state(self) -> State:
        """See `Learner`."""
        state: State = {
            "clock": self._clock.state,
            "first": self._first.values,
            "last": self._last.values,
            "rows_of_users": self._rows_of_users.values,
        }
        for name, counter in self._counters().items():
            state |= prefixed({"stored": counter.stored, "clock": counter.clock}, name)
        return state

    @classmethod
    def from_state(cls, settings: Settings, state: Mapping[str, npt.NDArray[Any]]) -> "Trend":
        """See `Learner`."""
        learner = cls(settings)

        def restored(name: str, half_life: float) -> Popularity:
            own = part(state, name)
            return _counter(half_life, own["stored"], own["clock"])

        learner._overall = [restored(f"all.{place}", length) for place, length in enumerate(learner._half_lives)]
        learner._segments = [
            [restored(f"{group}.{place}", length) for place, length in enumerate(learner._segment_half_lives)]
            for group in GROUPS
        ]
        learner._clock = EventClock(state["clock"])
        learner._first, learner._last = (GrowingArray(state[name], np.float64) for name in ("first", "last"))
        learner._rows_of_users = GrowingArray(state["rows_of_users"], np.int64)
        return learner

    def served(self, history: History) -> State:
        """The arrays of `TrendScorer`."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def _arrays(self) -> State:
        items = len(self._first)
        segments = [[counter.scores() for counter in counters] for counters in self._segments]
        return {
            "half_lives": np.array(self._half_lives),
            "segment_half_lives": np.array(self._segment_half_lives),
            "counts": np.array([counter.scores() for counter in self._overall]).reshape(-1, items),
            "segment_counts": np.array(segments).reshape(len(GROUPS), -1, items),
            "clock": self._clock.state,
            "first": self._first.values,
            "last": self._last.values,
            "rows_of_users": self._rows_of_users.values,
        }

    def _counters(self) -> dict[str, Popularity]:
        named = {"all": self._overall} | dict(zip(GROUPS, self._segments, strict=True))
        return {f"{name}.{place}": counter for name, own in named.items() for place, counter in enumerate(own)}


class EventClock:
    """Numbers events in the order of their times.

    Args:
        state: What `state` was, to continue from there.
    """

    def __init__(self, state: npt.ArrayLike = (0.0,)) -> None:
        self.state: FloatArray = np.array(state, dtype=np.float64)

    def advance(self, batch: CodedBatch) -> FloatArray:
        """Count the events of a batch on; the number of the last event of each of its rows, (n,)."""
        order = np.argsort(batch.times, kind="stable")
        positions = np.empty(len(batch))
        positions[order] = self.state + np.cumsum(batch.events[order])
        self.state = self.state + float(batch.events.sum())
        return positions


def _counter(half_life: float, stored: FloatArray | None = None, clock: FloatArray | None = None) -> Popularity:
    """Counts that halve with so many events: a popularity whose days are events."""
    return Popularity(half_life / SECONDS_PER_DAY, stored, clock)

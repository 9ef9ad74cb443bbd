"""Trending items: each item's share of recent events at several half-lives, for all users and for groups of users."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.common.arrays import FloatArray, GrowingArray, IntArray
from recsys.model.counts.counting import CountingLearner, EventClock
from recsys.model.counts.popularity import Popularity
from recsys.model.interactions.history import History
from recsys.model.interactions.keeping import Kept
from recsys.model.learner import CodedBatch, State
from recsys.serving.arrays import part, prefixed
from recsys.serving.scorers import GROUPS, TrendScorer, group_of


class Trend(CountingLearner):
    """Counts of each item's events, each decayed by the events that came after it; a `Learner`.

    Half-lives are counted in events, not in days, so that they fit streams of any rate. An event counts 1 if the weight
    of its row is positive, and 0 otherwise. Every event advances the clock.

    Args:
        settings: The section model.mixture is used.
    """

    def __init__(self, settings: Settings) -> None:
        mixture = settings.model.mixture
        self._half_lives, self._segment_half_lives = mixture.half_lives, mixture.segment_half_lives
        self._overall = [Popularity(half_life) for half_life in self._half_lives]
        self._segments = [[Popularity(half_life) for half_life in self._segment_half_lives] for _ in GROUPS]
        self._clock = EventClock()
        # Of items: the clock at their first and last event, 0 for none.
        self._first, self._last = GrowingArray((), np.float64), GrowingArray((), np.float64)
        self._rows_of_users = GrowingArray((), np.int64)

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
                # The clocks of all groups advance together.
                counter.add(items, events * own, positions, batch.item_count)
        self._first.resize(batch.item_count)
        self._last.resize(batch.item_count)
        # Assigned in descending order, so that the earliest position remains.
        order = np.argsort(-positions, kind="stable")
        order = order[self._first.values[items[order]] == 0]
        self._first.values[items[order]] = positions[order]
        np.maximum.at(self._last.values, items, positions)
        self._rows_of_users.resize(batch.user_count)
        np.add.at(self._rows_of_users.values, batch.users, 1)

    def keep(self, kept: Kept, history: History) -> None:
        """See `Learner`."""
        del history
        for counter in self._counters().values():
            counter.keep(kept.items)
        for array in (self._first, self._last):
            array.keep(kept.items.codes)
        self._rows_of_users.keep(kept.users.codes)

    @property
    def clock(self) -> float:
        """Events seen."""
        return float(self._clock.state[0])

    def rows_of(self, users: IntArray) -> IntArray:
        """(n,) rows of the log of users (n,), 0 for codes past the end."""
        counts = np.append(self._rows_of_users.values, 0)
        found: IntArray = counts[np.minimum(users, len(counts) - 1)]
        return found

    def scorer(self) -> TrendScorer:
        """The scorer of the current counts."""
        return TrendScorer(self._arrays())

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
            state |= prefixed(counter.state, name)
        return state

    @classmethod
    def from_state(cls, settings: Settings, state: Mapping[str, npt.NDArray[Any]]) -> "Trend":
        """See `Learner`."""
        learner = cls(settings)

        def restored(name: str, half_lives: Sequence[float]) -> list[Popularity]:
            return [Popularity(length, part(state, f"{name}.{place}")) for place, length in enumerate(half_lives)]

        learner._overall = restored("all", learner._half_lives)
        learner._segments = [restored(group, learner._segment_half_lives) for group in GROUPS]
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

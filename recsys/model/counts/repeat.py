"""Repeat consumption: each user's last items, how often and when the user interacted with them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.common.arrays import FloatArray, GrowingArray, IntArray
from recsys.model.common.jit import compiled
from recsys.model.common.ragged import RaggedPool
from recsys.model.counts.counting import CountingLearner, EventClock
from recsys.model.counts.popularity import Popularity
from recsys.model.interactions.decay import SECONDS_PER_DAY
from recsys.model.interactions.history import History
from recsys.model.interactions.keeping import Kept
from recsys.model.learner import CodedBatch, State
from recsys.serving.arrays import part, prefixed
from recsys.serving.repeats import BASKET_HALF_LIVES, RepeatScorer

_COLUMNS = {
    "items": np.int32,
    "counts": np.float32,
    "lately": np.float32,
    "first": np.float64,
    "last": np.float64,
    # Which of the user's baskets was the first and the last with the item, from 1.
    "first_basket": np.int32,
    "last_basket": np.int32,
    # Occasions, decayed by baskets.
    "fast": np.float32,
    "slow": np.float32,
}
# Half-life, in events, of the popularity that breaks ties between items repeated equally often.
_SHARE_HALF_LIFE = 5_000
_FACTS = ("again", "taken", "interval_days", "intervals", "interval_baskets")
_FAST, _SLOW = BASKET_HALF_LIVES.values()
_HABITS = ("baskets", "day", "again", "taken")


class Repeat(CountingLearner):
    """Each user's items with their rhythm, and how often each item is repeated in general; a `Learner`.

    A row with positive weight is one occasion. Each user has a fixed number of slots for items; when all are in use, a
    new item replaces the least recent one.

    Args:
        settings: The section model.mixture is used.
    """

    def __init__(self, settings: Settings) -> None:
        self._half_life = settings.model.mixture.repeat_half_life_days
        self._most = settings.model.mixture.repeats
        self._by_user = RaggedPool(_COLUMNS)
        # Of items: repeated occasions, all occasions, the sum of the intervals between them in days, and their number.
        self._facts = {name: GrowingArray((), np.float64) for name in _FACTS}
        self._habits = {name: GrowingArray((), np.float64) for name in _HABITS}
        self._clock, self._popularity = EventClock(), Popularity(_SHARE_HALF_LIFE)
        # Days.
        self._now = 0.0

    def absorb(self, batch: CodedBatch, history: History, step: StepId) -> None:
        """See `Learner`."""
        del history, step
        for array in self._facts.values():
            array.resize(batch.item_count)
        for array in self._habits.values():
            array.resize(batch.user_count)
        positions = self._clock.advance(batch)
        liked = np.flatnonzero(batch.weights > 0)
        self._popularity.add(batch.items[liked], np.ones(len(liked)), positions[liked], batch.item_count)
        order = batch.rows_in_order()
        users, days = batch.users[order], batch.times[order] / SECONDS_PER_DAY
        self._now = float(np.max(days, initial=self._now))
        self._by_user.add_rows(batch.user_count)
        takers, more = np.unique(users, return_counts=True)
        self._by_user.reserve(takers, np.minimum(self._by_user.lengths[takers] + more, self._most))
        facts = tuple(array.values for array in self._facts.values())
        columns = tuple(self._by_user.columns.values())
        starts, lengths = self._by_user.starts, self._by_user.lengths
        habits = tuple(array.values for array in self._habits.values())
        _take(users, batch.items[order], days, self._half_life, starts, lengths, self._most, columns, facts, habits)

    def keep(self, kept: Kept, history: History) -> None:
        """See `Learner`."""
        del history
        for array in self._facts.values():
            array.keep(kept.items.codes)
        for array in self._habits.values():
            array.keep(kept.users.codes)
        self._popularity.keep(kept.items)
        lengths, columns = self._by_user.gather(kept.users.codes)
        owners, items = np.repeat(np.arange(len(lengths)), lengths), kept.items.renumbered[columns["items"]]
        stays = items >= 0
        columns = {name: column[stays] for name, column in {**columns, "items": items}.items()}
        self._by_user = RaggedPool(_COLUMNS, np.bincount(owners[stays], minlength=len(lengths)), columns)

    def scorer(self) -> RepeatScorer:
        """The scorer of the current counts."""
        return RepeatScorer(self._arrays(self._by_user.starts, self._by_user.columns))

    def score_pairs(self, users: IntArray, items: IntArray) -> FloatArray:
        """See `Learner`."""
        scorer = self.scorer()
        distinct, owners = np.unique(users, return_inverse=True)
        scores: FloatArray = scorer.repeats(distinct)[0].at(owners, items) + scorer.share[items]
        return scores

    def state(self) -> State:
        """See `Learner`."""
        facts = {name: array.values for name, array in self._facts.items()}
        habits = {f"user_{name}": array.values for name, array in self._habits.items()}
        lengths, columns = self._by_user.gather(np.arange(len(self._by_user)))
        state = {**columns, "lengths": lengths, **facts, **habits, "now": np.array([self._now])}
        return {**state, "clock": self._clock.state, **prefixed(self._popularity.state, "popularity")}

    @classmethod
    def from_state(cls, settings: Settings, state: Mapping[str, npt.NDArray[Any]]) -> "Repeat":
        """See `Learner`."""
        learner = cls(settings)
        learner._by_user = RaggedPool(_COLUMNS, state["lengths"], state)
        learner._facts = {name: GrowingArray(state[name], np.float64) for name in _FACTS}
        learner._habits = {name: GrowingArray(state[f"user_{name}"], np.float64) for name in _HABITS}
        learner._now = float(state["now"][0])
        learner._clock = EventClock(state["clock"])
        learner._popularity = Popularity(_SHARE_HALF_LIFE, part(state, "popularity"))
        return learner

    def served(self, history: History) -> State:
        """The arrays of `RepeatScorer`."""
        lengths, columns = self._by_user.gather(np.arange(len(self._by_user)))
        arrays = self._arrays(np.cumsum(lengths) - lengths, columns)
        return {name: array.copy() for name, array in arrays.items()}

    def _arrays(self, starts: IntArray, columns: Mapping[str, npt.NDArray[Any]]) -> State:
        facts, counts = {name: array.values for name, array in self._facts.items()}, self._popularity.scores()
        return {
            **columns,
            "starts": starts,
            "lengths": self._by_user.lengths,
            "occasions": np.stack([facts["again"], facts["taken"]]),
            "intervals": np.stack([facts["interval_days"], facts["intervals"], facts["interval_baskets"]]),
            "baskets": self._habits["baskets"].values,
            "habits": np.stack([self._habits["again"].values, self._habits["taken"].values]),
            "share": counts / max(float(counts.sum()), 1.0),
            "now": np.array([self._now]),
            "half_life": np.array([self._half_life]),
        }


@compiled
def _take(
    users: IntArray,
    items: IntArray,
    days: FloatArray,
    half_life: float,
    starts: IntArray,
    lengths: IntArray,
    most: int,
    columns: tuple[npt.NDArray[Any], ...],
    facts: tuple[FloatArray, ...],
    habits: tuple[FloatArray, ...],
) -> None:
    """Enter occasions (n,), in the order of each user's events. The columns are those of `_COLUMNS`."""
    own, counts, lately, first, last, first_basket, last_basket, fast, slow = columns
    again, taken, interval_days, intervals, interval_baskets = facts
    baskets, basket_day, user_again, user_taken = habits
    for event in range(len(users)):
        user, item, day = users[event], items[event], days[event]
        if baskets[user] == 0 or day > basket_day[user]:
            # What arrives late belongs to the basket that was last then.
            baskets[user] += 1
            basket_day[user] = day
        begin, end = starts[user], starts[user] + lengths[user]
        place, oldest = begin, begin
        while place < end and own[place] != item:
            if last[place] < last[oldest]:
                oldest = place
            place += 1
        taken[item] += 1
        user_taken[user] += 1
        if place < end:
            # Events may arrive late; time does not run backward for them.
            gap = max(day - last[place], 0.0)
            passed = baskets[user] - last_basket[place]
            again[item] += 1
            user_again[user] += 1
            interval_days[item] += gap
            interval_baskets[item] += passed
            intervals[item] += 1
            counts[place] += 1
            lately[place] = lately[place] * 2.0 ** (-gap / half_life) + 1
            fast[place] = fast[place] * 2.0 ** (-passed / _FAST) + 1
            slow[place] = slow[place] * 2.0 ** (-passed / _SLOW) + 1
            last[place] += gap
            last_basket[place] += passed
            continue
        if lengths[user] < most:
            lengths[user] += 1
        else:
            place = oldest
        own[place], counts[place], lately[place], first[place], last[place] = item, 1, 1, day, day
        first_basket[place], last_basket[place], fast[place], slow[place] = baskets[user], baskets[user], 1, 1

"""Sequential co-occurrence: which items users interact with soon after another item, with decay."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.common.arrays import FloatArray, GrowingArray, Int32Array, IntArray
from recsys.model.common.jit import compiled
from recsys.model.counts.counting import CountingLearner, EventClock
from recsys.model.counts.popularity import Popularity
from recsys.model.interactions.decay import DecayClock
from recsys.model.interactions.history import History
from recsys.model.interactions.keeping import Kept
from recsys.model.learner import CodedBatch, State
from recsys.serving.arrays import part, prefixed
from recsys.serving.scorers import CoOccurrenceScorer

# Factor by which each item of a user counts less than the next more recent one, when the next item is predicted.
_FADING = 0.9


class CoOccurrence(CountingLearner):
    """Each user's last items, and for each item those that most often followed it; a `Learner`.

    When a user interacts with an item, the item's count as a follower of each of the user's last items rises by 1.
    Counts decay with a half-life in events. Only this direction is counted. It is what predicts the next item, and on
    streams where new items keep arriving it ranks better than counting both directions. Each item has a fixed number of
    slots for followers; when all are in use, a new follower replaces the weakest one (lossy counting, as in Manku &
    Motwani 2002, without their error bound).

    Args:
        settings: The section model.mixture is used.
    """

    def __init__(self, settings: Settings) -> None:
        mixture = settings.model.mixture
        self._half_life = mixture.cooccurrence_half_life
        self._width, self._places = mixture.recent_items, mixture.neighbors
        # Codes are stored plus one, so that 0 means none. Flat: (users * width,), newest first, and (items * places,).
        self._recent, self._neighbors = GrowingArray((), np.int32), GrowingArray((), np.int32)
        self._strengths, self._totals = GrowingArray((), np.float32), GrowingArray((), np.float64)
        self._decay, self._popularity = DecayClock(self._half_life), Popularity(self._half_life)
        self._clock = EventClock()

    def absorb(self, batch: CodedBatch, history: History, step: StepId) -> None:
        """See `Learner`."""
        del history, step
        positions = self._clock.advance(batch)
        self._recent.resize(batch.user_count * self._width)
        for array in (self._neighbors, self._strengths):
            array.resize(batch.item_count * self._places)
        self._totals.resize(batch.item_count)
        liked = np.flatnonzero(batch.weights > 0)
        self._popularity.add(batch.items[liked], np.ones(len(liked)), positions[liked], batch.item_count)
        if not len(liked):
            return
        halvings = self._decay.advance(positions[liked])
        for array in (self._strengths, self._totals):
            np.ldexp(array.values, -halvings, out=array.values)
        order = batch.rows_in_order()
        amounts = self._decay.stored(np.ones(len(order)), positions[order])
        recent, neighbors, strengths = self._tables()
        _count(batch.users[order], batch.items[order], amounts, recent, neighbors, strengths, self._totals.values)

    def keep(self, kept: Kept, history: History) -> None:
        """See `Learner`. A follower that goes leaves a free slot; like a replaced one, it still counts in the total."""
        del history
        recent, neighbors, strengths = self._tables()
        recent = kept.items.latest_in_slots(recent[kept.users.codes])
        neighbors = kept.items.in_slots(neighbors[kept.items.codes])
        strengths = np.where(neighbors > 0, strengths[kept.items.codes], np.float32(0))
        self._recent, self._neighbors = (GrowingArray(table.ravel(), np.int32) for table in (recent, neighbors))
        self._strengths = GrowingArray(strengths.ravel(), np.float32)
        self._totals.keep(kept.items.codes)
        self._popularity.keep(kept.items)

    def scorer(self) -> CoOccurrenceScorer:
        """The scorer of the current counts."""
        return CoOccurrenceScorer(self._arrays())

    def score_pairs(self, users: IntArray, items: IntArray) -> FloatArray:
        """See `Learner`."""
        scorer = self.scorer()
        distinct, owners = np.unique(users, return_inverse=True)
        scores: FloatArray = scorer.pair_chances(*scorer.chances(distinct), owners, items)
        return scores

    def state(self) -> State:
        """See `Learner`."""
        recent, neighbors, strengths = self._tables()
        state: State = {"recent": recent, "neighbors": neighbors, "strengths": strengths}
        state |= {"totals": self._totals.values, "clock": self._clock.state, "decay": self._decay.state}
        return state | prefixed(self._popularity.state, "popularity")

    @classmethod
    def from_state(cls, settings: Settings, state: Mapping[str, npt.NDArray[Any]]) -> "CoOccurrence":
        """See `Learner`."""
        learner = cls(settings)
        learner._recent = GrowingArray(state["recent"].ravel(), np.int32)
        learner._neighbors = GrowingArray(state["neighbors"].ravel(), np.int32)
        learner._strengths = GrowingArray(state["strengths"].ravel(), np.float32)
        learner._totals = GrowingArray(state["totals"], np.float64)
        learner._decay = DecayClock(learner._half_life, state["decay"])
        learner._popularity = Popularity(learner._half_life, part(state, "popularity"))
        learner._clock = EventClock(state["clock"])
        return learner

    def served(self, history: History) -> State:
        """The arrays of `CoOccurrenceScorer`."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def _tables(self) -> tuple[Int32Array, Int32Array, npt.NDArray[np.float32]]:
        """(users, width), (items, places) and (items, places), as views."""
        return (
            self._recent.values.reshape(-1, self._width),
            self._neighbors.values.reshape(-1, self._places),
            self._strengths.values.reshape(-1, self._places),
        )

    def _arrays(self) -> State:
        recent, neighbors, strengths = self._tables()
        counts = self._popularity.scores()
        return {
            "recent": recent,
            "neighbors": neighbors,
            "strengths": strengths,
            "totals": self._totals.values,
            "scale": np.array([self._decay.scale]),
            "share": counts / max(float(counts.sum()), 1.0),
            "fading": np.array([_FADING]),
        }


@compiled
def _count(
    users: IntArray,
    items: IntArray,
    amounts: FloatArray,
    recent: Int32Array,
    neighbors: Int32Array,
    strengths: npt.NDArray[np.float32],
    totals: FloatArray,
) -> None:
    """Count items (n,), in the order of each user's events, as followers of the user's last items."""
    for event in range(len(users)):
        own, code = recent[users[event]], items[event] + 1
        place = len(own) - 1
        for j in range(len(own)):
            if own[j] == code or own[j] == 0:
                place = j
                break
        for j in range(len(own)):
            if own[j] == 0:
                break
            if own[j] != code:
                before = own[j] - 1
                totals[before] += amounts[event]
                _strengthen(neighbors[before], strengths[before], code, amounts[event])
        for j in range(place, 0, -1):
            own[j] = own[j - 1]
        own[0] = code


@compiled
def _strengthen(others: Int32Array, strengths: npt.NDArray[np.float32], code: int, amount: float) -> None:
    """Add to the strength of `code` among an item's others (places,)."""
    weakest = 0
    for place in range(len(others)):
        if others[place] == code:
            strengths[place] += amount
            return
        if strengths[place] < strengths[weakest]:
            weakest = place
    others[weakest], strengths[weakest] = code, amount

"""Neighbors within sessions: which items come right after another one, and right before it, with decay."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.common.arrays import Float32Array, FloatArray, GrowingArray, Int32Array, IntArray
from recsys.model.common.jit import compiled
from recsys.model.counts.counting import CountingLearner, EventClock
from recsys.model.counts.popularity import Popularity
from recsys.model.interactions.decay import DecayClock
from recsys.model.interactions.history import History
from recsys.model.interactions.keeping import Kept
from recsys.model.learner import CodedBatch, State
from recsys.serving.arrays import part, prefixed
from recsys.serving.sessions import SessionScorer

# Seconds without an event of a user after which a session has ended.
_GAP = 1_800.0
# Last items of a user that are kept, and the factor by which each counts less than the next more recent one.
_WIDTH, _FADING = 5, 0.5
# Neighbors kept per item.
_PLACES = 32


class Sessions(CountingLearner):
    """For each item, those that came right after it in a session, and right before it; a `Learner`.

    The log keeps the last time of each user and item within an hour, which is the order of a session, but not the order
    of what happened at the same time, such as the lines of one basket. There, each item counts half as following and
    half as followed by each of the up to `_WIDTH` others of its time that came before it in the log. An item that
    follows several of the same time shares its count among them.

    Counts decay with a half-life in events. Each item has a fixed number of slots for neighbors, in which both
    directions are counted; when all are in use, a new neighbor replaces the weakest one.

    Args:
        settings: The section model.mixture is used.
    """

    def __init__(self, settings: Settings) -> None:
        self._half_life = settings.model.mixture.session_half_life
        # Codes are stored plus one, so that 0 means none. Flat: (users * width,), newest first, and (items * places,).
        self._recent, self._neighbors = GrowingArray((), np.int32), GrowingArray((), np.int32)
        self._after, self._before = GrowingArray((), np.float32), GrowingArray((), np.float32)
        # (items * 2,): what came after an item, and before it.
        self._totals = GrowingArray((), np.float64)
        # Of users: the time of the last event, and how many of the last items have that time.
        self._last, self._tied = GrowingArray((), np.float64), GrowingArray((), np.int32)
        self._decay, self._popularity = DecayClock(self._half_life), Popularity(self._half_life)
        self._clock = EventClock()

    def absorb(self, batch: CodedBatch, history: History, step: StepId) -> None:
        """See `Learner`."""
        del history, step
        positions = self._clock.advance(batch)
        self._recent.resize(batch.user_count * _WIDTH)
        for per_user in (self._last, self._tied):
            per_user.resize(batch.user_count)
        for per_item in (self._neighbors, self._after, self._before):
            per_item.resize(batch.item_count * _PLACES)
        self._totals.resize(batch.item_count * 2)
        liked = np.flatnonzero(batch.weights > 0)
        self._popularity.add(batch.items[liked], np.ones(len(liked)), positions[liked], batch.item_count)
        if not len(liked):
            return
        halvings = self._decay.advance(positions[liked])
        for array in (self._after, self._before, self._totals):
            np.ldexp(array.values, -halvings, out=array.values)
        order = batch.rows_in_order()
        amounts = self._decay.stored(np.ones(len(order)), positions[order])
        events = batch.users[order], batch.items[order], batch.times[order], amounts
        recent, neighbors, after, before = self._tables()
        users = recent, self._last.values, self._tied.values
        _count(*events, *users, neighbors, after, before, self._totals.values.reshape(-1, 2))

    def keep(self, kept: Kept, history: History) -> None:
        """See `Learner`. A neighbor that goes leaves a free slot; like a replaced one it counts in the totals."""
        del history
        recent, neighbors, after, before = self._tables()
        recent = recent[kept.users.codes]
        tied = np.arange(_WIDTH) < self._tied.values[kept.users.codes, None]
        self._tied = GrowingArray((tied & (kept.items.in_slots(recent) > 0)).sum(axis=1), np.int32)
        self._last.keep(kept.users.codes)
        recent = kept.items.latest_in_slots(recent)
        neighbors = kept.items.in_slots(neighbors[kept.items.codes])
        self._recent, self._neighbors = (GrowingArray(table.ravel(), np.int32) for table in (recent, neighbors))
        self._after, self._before = (
            GrowingArray(np.where(neighbors > 0, side[kept.items.codes], np.float32(0)).ravel(), np.float32)
            for side in (after, before)
        )
        self._totals = GrowingArray(self._totals.values.reshape(-1, 2)[kept.items.codes].ravel(), np.float64)
        self._popularity.keep(kept.items)

    def scorer(self) -> SessionScorer:
        """The scorer of the current counts."""
        return SessionScorer(self._arrays())

    def score_pairs(self, users: IntArray, items: IntArray) -> FloatArray:
        """See `Learner`."""
        distinct, owners = np.unique(users, return_inverse=True)
        sides = [side.pair_chances(*side.chances(distinct), owners, items) for side in self.scorer().sides[:2]]
        scores: FloatArray = np.mean(sides, axis=0)
        return scores

    def state(self) -> State:
        """See `Learner`."""
        recent, neighbors, after, before = self._tables()
        state: State = {"recent": recent, "neighbors": neighbors, "after": after, "before": before}
        state |= {"totals": self._totals.values.reshape(-1, 2), "last": self._last.values, "tied": self._tied.values}
        state |= {"clock": self._clock.state, "decay": self._decay.state}
        return state | prefixed(self._popularity.state, "popularity")

    @classmethod
    def from_state(cls, settings: Settings, state: Mapping[str, npt.NDArray[Any]]) -> "Sessions":
        """See `Learner`."""
        learner = cls(settings)
        learner._recent, learner._neighbors = (
            GrowingArray(state[name].ravel(), np.int32) for name in ("recent", "neighbors")
        )
        learner._after, learner._before = (
            GrowingArray(state[name].ravel(), np.float32) for name in ("after", "before")
        )
        learner._totals = GrowingArray(state["totals"].ravel(), np.float64)
        learner._last, learner._tied = GrowingArray(state["last"], np.float64), GrowingArray(state["tied"], np.int32)
        learner._decay = DecayClock(learner._half_life, state["decay"])
        learner._popularity = Popularity(learner._half_life, part(state, "popularity"))
        learner._clock = EventClock(state["clock"])
        return learner

    def served(self, history: History) -> State:
        """The arrays of `SessionScorer`."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def _tables(self) -> tuple[Int32Array, Int32Array, Float32Array, Float32Array]:
        """(users, width), and three times (items, places), as views."""
        slots = (array.values.reshape(-1, _PLACES) for array in (self._neighbors, self._after, self._before))
        return self._recent.values.reshape(-1, _WIDTH), *slots  # type: ignore[return-value]

    def _arrays(self) -> State:
        recent, neighbors, after, before = self._tables()
        counts = self._popularity.scores()
        return {
            "recent": recent,
            "others": neighbors,
            "after": after,
            "before": before,
            "totals": np.ascontiguousarray(self._totals.values.reshape(-1, 2).T),
            "scale": np.array([self._decay.scale]),
            "share": counts / max(float(counts.sum()), 1.0),
            "fading": np.array([_FADING]),
        }


@compiled
def _count(
    users: IntArray,
    items: IntArray,
    times: FloatArray,
    amounts: FloatArray,
    recent: Int32Array,
    last: FloatArray,
    tied: Int32Array,
    neighbors: Int32Array,
    after: Float32Array,
    before: Float32Array,
    totals: FloatArray,
) -> None:
    """Count items (n,), in the order of each user's events, beside the user's last items."""
    for event in range(len(users)):
        user, code, time, amount = users[event], items[event] + 1, times[event], amounts[event]
        own = recent[user]
        together, since = tied[user], time - last[user]
        if 0 <= since <= _GAP:
            for place in range(together):
                other = own[place]
                if other == code:
                    continue
                forward = amount / 2 if since == 0 else amount / together
                backward = amount / 2 if since == 0 else 0.0
                _strengthen(neighbors, after, before, totals, other - 1, code - 1, forward, backward)
                _strengthen(neighbors, after, before, totals, code - 1, other - 1, backward, forward)
        place = len(own) - 1
        for j in range(len(own)):
            if own[j] == code or own[j] == 0:
                place = j
                break
        if since > 0 or together == 0:
            tied[user], last[user] = 1, time
        elif since == 0 and (own[place] != code or place >= together):
            tied[user] = min(together + 1, len(own))
        elif since < 0:
            # A late one: it begins nothing, and nothing follows it.
            tied[user] = 0
        for j in range(place, 0, -1):
            own[j] = own[j - 1]
        own[0] = code


@compiled
def _strengthen(
    neighbors: Int32Array,
    after: Float32Array,
    before: Float32Array,
    totals: FloatArray,
    item: int,
    other: int,
    forward: float,
    backward: float,
) -> None:
    """Add to how often another item came after an item, and before it."""
    totals[item, 0] += forward
    totals[item, 1] += backward
    own, weakest = neighbors[item], 0
    for place in range(len(own)):
        if own[place] == other + 1:
            after[item, place] += forward
            before[item, place] += backward
            return
        if after[item, place] + before[item, place] < after[item, weakest] + before[item, weakest]:
            weakest = place
    own[weakest], after[item, weakest], before[item, weakest] = other + 1, forward, backward

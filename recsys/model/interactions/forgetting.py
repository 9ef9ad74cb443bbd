"""Which users, items and pairs a model forgets, and when: a function of the times of the batches that it has learned.

Event time is divided into periods, an eighth of `model.forget_after_days` each, which are counted from 1970. When a
batch brings the first event of a later period, then before it is taken in

* users and items go whose last event is older than `model.forget_after_days` at the beginning of that period, unless
  the batch has events of them;
* pairs go whose user or item goes, and pairs that have faded: whose weight has decayed below 2^-20, the unit of the
  weights of events. A weight of exactly 0 (events that cancel each other, an event type of weight 0) has not faded.

What stays keeps its order, and its codes are dense again. An id that comes back later is a new one. Forgetting costs
time in proportion to the model, once in a period. Nothing here depends on when it is computed: the live stream, a
recovery and a rebuild forget the same at the same batch.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.model.common.arrays import FloatArray, GrowingArray, IntArray
from recsys.model.interactions.decay import SECONDS_PER_DAY
from recsys.model.interactions.keeping import Kept, KeptRows

# Idle rows stay for up to one more period. Shorter ones hold less memory and cost more time.
PERIODS = 8


def idle_before(days: float, latest: float, times: FloatArray) -> float | None:
    """The time since which a row must have been seen to stay.

    Args:
        days: `model.forget_after_days`.
        latest: Largest event time learned so far, in seconds; -inf for none.
        times: (n,) event times of a batch.

    Returns:
        Seconds; None if the batch begins no later period.
    """
    period = days * SECONDS_PER_DAY / PERIODS
    reached = float(np.floor(np.max(times, initial=-np.inf) / period))
    return (reached - PERIODS) * period if reached > np.floor(latest / period) else None


class LastSeen:
    """The time of the last event of each user and of each item.

    Args:
        state: What `state` returned, to continue from there.
    """

    def __init__(self, state: Mapping[str, npt.NDArray[Any]] | None = None) -> None:
        self._users, self._items = (
            GrowingArray(() if state is None else state[side], np.float64) for side in ("users", "items")
        )

    @property
    def state(self) -> dict[str, FloatArray]:
        """`users` (users,) and `items` (items,): seconds since 1970 UTC."""
        return {"users": self._users.values, "items": self._items.values}

    def see(self, users: IntArray, items: IntArray, times: FloatArray, user_count: int, item_count: int) -> None:
        """Note events of users (n,) with items (n,) at times (n,); there are so many users and items now."""
        for array, codes, count in ((self._users, users, user_count), (self._items, items, item_count)):
            known = len(array)
            array.resize(count)
            array.values[known:] = -np.inf
            np.maximum.at(array.values, codes, times)

    def kept(self, since: float, users: IntArray, items: IntArray) -> Kept:
        """What stays: rows seen at or after `since`, and those of users (n,) and items (n,), -1 for unknown ones."""
        sides = []
        for array, codes in ((self._users, users), (self._items, items)):
            stays = array.values >= since
            stays[codes[codes >= 0]] = True
            sides.append(KeptRows.of(stays))
        return Kept(*sides)

    def keep(self, kept: Kept) -> None:
        """Forget the other users and items."""
        self._users.keep(kept.users.codes)
        self._items.keep(kept.items.codes)

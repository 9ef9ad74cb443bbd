"""Recency-weighted popularity: the baseline, and the fallback for unknown users."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.model.common.arrays import FloatArray, GrowingArray, IntArray
from recsys.model.interactions.decay import DecayClock
from recsys.model.interactions.keeping import KeptRows


class Popularity:
    """Sum of each item's positive weights, each decayed from its event's time on.

    Args:
        half_life: Time after which a weight counts half, in the unit of the times that `add` gets: seconds, or events.
        state: What `state` was, to continue from there.
    """

    def __init__(self, half_life: float, state: Mapping[str, npt.NDArray[Any]] | None = None) -> None:
        self._clock = DecayClock(half_life, None if state is None else state["clock"])
        self._stored = GrowingArray(() if state is None else state["stored"], np.float64)

    @property
    def state(self) -> dict[str, FloatArray]:
        """`stored`: (items,) sums with the decay not applied; `clock`: the state of the clock that they belong to."""
        return {"stored": self._stored.values, "clock": self._clock.state}

    def keep(self, items: KeptRows) -> None:
        """Forget the other items."""
        self._stored.keep(items.codes)

    def scores(self) -> FloatArray:
        """(items,) popularity now."""
        return self._stored.values * self._clock.scale

    def add(self, items: IntArray, weights: FloatArray, times: FloatArray, count: int) -> None:
        """Add a batch.

        Args:
            items: (n,) item codes, repeated as they come.
            weights: (n,) weights; only positive ones count.
            times: (n,) in the unit of the half-life.
            count: Number of items now.
        """
        self._stored.resize(count)
        if not len(items):
            return
        halvings = self._clock.advance(times)
        if halvings:
            np.ldexp(self._stored.values, -halvings, out=self._stored.values)
        np.add.at(self._stored.values, items, self._clock.stored(np.maximum(weights, 0), times))

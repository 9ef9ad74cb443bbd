"""Recency-weighted popularity: the baseline, and the answer to users about whom nothing is known."""

import numpy as np

from recsys.model.common.arrays import FloatArray, GrowingArray, IntArray
from recsys.model.interactions.decay import DecayClock


class Popularity:
    """Sum of each item's positive weights, each decayed from its event's time on.

    Args:
        half_life_days: Days after which a weight counts half.
        stored, clock: What `stored` and `clock` were, to continue from there.
    """

    def __init__(
        self, half_life_days: float, stored: FloatArray | None = None, clock: FloatArray | None = None
    ) -> None:
        self._clock = DecayClock(half_life_days, clock)
        self._stored = GrowingArray(() if stored is None else stored, np.float64)

    @property
    def stored(self) -> FloatArray:
        """(items,) sums as they are stored, decay not applied."""
        return self._stored.values

    @property
    def clock(self) -> FloatArray:
        """State of the clock that `stored` belongs to."""
        return self._clock.state

    def scores(self) -> FloatArray:
        """(items,) popularity now."""
        return self._stored.values * self._clock.scale

    def add(self, items: IntArray, weights: FloatArray, times: FloatArray, count: int) -> None:
        """Take in a batch.

        Args:
            items: (n,) item codes, repeated as they come.
            weights: (n,) weights; only positive ones count.
            times: (n,) seconds.
            count: Number of items known now.
        """
        self._stored.resize(count)
        if not len(items):
            return
        halvings = self._clock.advance(times)
        if halvings:
            np.ldexp(self.stored, -halvings, out=self.stored)
        np.add.at(self.stored, items, self._clock.stored(np.maximum(weights, 0), times))

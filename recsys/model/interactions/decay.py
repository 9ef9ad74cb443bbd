"""Exponential decay at no cost per batch: weights are stored relative to a fixed reference time."""

import math

import numpy as np

from recsys.model.common.arrays import FloatArray

SECONDS_PER_DAY = 86_400.0

# Stored weights grow as 2^(age of the reference in half-lives). Half of what float32 reaches, so that sums have room.
_REBASE_AT = 64.0


class DecayClock:
    """Turns weights at their event's time into weights at a reference time, and back to weights now.

    A weight w of time t is stored as w * 2^((t - reference) / half_life); at time `now`, the largest event time seen,
    every stored weight counts 2^(-(now - reference) / half_life) times its stored value. So time passing touches no
    stored number. When the exponent gets large the reference moves by whole half-lives: stored weights are then
    multiplied by a power of two, which is exact in binary. In float32 a weight of 1 loses digits from 126 half-lives
    before the reference and is 0 from 149, where it no longer matters.

    Args:
        half_life: Time after which a weight counts half, in the unit of the times; None: weights never age.
        state: What `state` returned, to continue from there.
    """

    def __init__(self, half_life: float | None, state: FloatArray | None = None) -> None:
        self._half_life = half_life
        start = (math.nan, 0.0, -math.inf) if state is None else state
        self._reference, self._halvings, self._now = (float(number) for number in start)

    @property
    def state(self) -> FloatArray:
        """(3,): reference time, half-lives it has moved by, largest time seen."""
        return np.array([self._reference, self._halvings, self._now])

    @property
    def halvings(self) -> int:
        """Half-lives that the reference has moved by."""
        return int(self._halvings)

    @property
    def scale(self) -> float:
        """Factor from stored weights to current ones."""
        return 1.0 if self._half_life is None or math.isnan(self._reference) else 2.0 ** -self._age(self._now)

    def advance(self, times: FloatArray) -> int:
        """See the times (n,) of a batch, n > 0.

        Returns:
            The power of two by which everything stored must now be divided; mostly 0.
        """
        latest = float(times.max())
        if math.isnan(self._reference):
            self._reference = latest
        self._now = max(self._now, latest)
        if self._half_life is None or self._age(self._now) <= _REBASE_AT:
            return 0
        moved = math.floor(self._age(self._now))
        self._halvings += moved
        return moved

    def stored(self, weights: FloatArray, times: FloatArray) -> FloatArray:
        """Weights (n,) at times (n,), as they are stored."""
        if self._half_life is None:
            return weights
        ages = (times - self._reference) / self._half_life - self._halvings
        return weights * np.exp2(ages)

    def _age(self, time: float) -> float:
        assert self._half_life is not None
        return (time - self._reference) / self._half_life - self._halvings

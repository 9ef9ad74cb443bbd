"""What a decay clock does over the batches of a log, so that rows are weighed at once and in any process."""

from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from recsys.model.common.arrays import FloatArray, IntArray
from recsys.model.interactions.decay import DecayClock

Number = TypeVar("Number", np.float32, np.float64)


@dataclass(frozen=True)
class DecayTimeline:
    """The clock after each batch of a log.

    Attributes:
        half_life: that of the clock.
        batches: (n,) int64 numbers of the batches, ascending.
        halvings: (n,) half-lives that the reference has moved by after each batch.
        state: the clock after the last batch.
    """

    half_life: float | None
    batches: IntArray
    halvings: IntArray
    state: FloatArray

    @classmethod
    def of(cls, half_life: float | None, batches: IntArray, latest: FloatArray) -> Self:
        """From the numbers (n,) of batches, ascending, and the largest time in each (n,)."""
        clock = DecayClock(half_life)
        halvings = np.zeros(len(batches), dtype=np.int64)
        for number, time in enumerate(latest):
            clock.advance(np.array([time]))
            halvings[number] = clock.halvings
        return cls(half_life, batches, halvings, clock.state)

    @property
    def scale(self) -> float:
        """Factor from stored weights to those at the end of the log."""
        return DecayClock(self.half_life, self.state).scale

    def stored(
        self, batches: IntArray, weights: FloatArray, times: FloatArray, kind: type[Number]
    ) -> npt.NDArray[Number]:
        """Weights as a store that takes one batch after the other has them at the end of the log.

        They are rounded as when their batch is added, and halved since, which is exact above the smallest numbers.

        Args:
            batches: (n,) numbers of the batches that the weights are of.
            weights, times: (n,) of events.
            kind: Type of the numbers that are stored.
        """
        then = self.halvings[np.searchsorted(self.batches, batches)]
        amounts = np.empty(len(weights), dtype=kind)
        for halvings in np.unique(then):
            at = then == halvings
            clock = DecayClock(self.half_life, np.array([self.state[0], halvings, self.state[2]]))
            amounts[at] = clock.stored(weights[at], times[at])
        halved: npt.NDArray[Number] = np.ldexp(amounts, then - int(self.state[1]))
        return halved

"""Which ranking of a mixture serves a user, and what its values mean."""

import numpy as np

from .arrays import Array

# Added to chances and counts before their logarithm is taken.
_LEAST = 1e-6
# Rankings whose values are chances and counts.
POSITIVE = ("cooccurrence", "sessions", "repeat")


def levels(values: Array, positive: Array) -> Array:
    """Values of rankings, on scales on which log-odds are straight lines.

    Args:
        values: (..., rankings), or values of single rankings.
        positive: (rankings,) bool, or that of each value: chances and counts, of which the logarithm is taken.
    """
    scaled: Array = np.array(values, dtype=np.float64)
    np.log(np.maximum(scaled, 0) + _LEAST, out=scaled, where=np.broadcast_to(positive, scaled.shape))
    return scaled


class Choice:
    """Draws the ranking that serves a user, and turns its values into log-odds.

    Args:
        chances: (groups, rankings), with which each ranking serves a user.
        draw: (2,) the seed and the clock.
        calibration: (groups, rankings, 2), slope and intercept of the log-odds as a function of the levels.
        positive: (rankings,) see `levels`.
    """

    def __init__(self, chances: Array, draw: Array, calibration: Array, positive: Array) -> None:
        self._ends, self._draw, self._positive = np.cumsum(chances, axis=1), draw, positive
        self._slopes, self._intercepts = calibration[..., 0], calibration[..., 1]

    def of(self, rows: Array, groups: Array) -> Array:
        """(n,) number of the ranking that serves each user, by row and group."""
        chosen = (self._ends[groups] < drawn_numbers(self._draw, rows)[:, None]).sum(axis=1)
        last: Array = np.minimum(chosen, len(self._positive) - 1)
        return last

    def chances(self, groups: Array, choices: Array) -> Array:
        """(n,) float64: how likely users of groups (n,) were to be served by rankings (n,)."""
        before = np.where(choices > 0, self._ends[groups, choices - 1], 0.0)
        own = np.where(choices < len(self._positive) - 1, self._ends[groups, choices], 1.0)
        likely: Array = own - before
        return likely

    def lines(self, groups: Array, choices: Array) -> tuple[Array, Array]:
        """Slopes and intercepts (c,) of users served by rankings (c,)."""
        return self._slopes[groups, choices], self._intercepts[groups, choices]

    def levels(self, values: Array, choices: Array) -> Array:
        """(c,) levels of values (c,) of rankings (c,)."""
        return levels(values, self._positive[choices])

    def log_odds(self, values: Array, groups: Array, choices: Array) -> Array:
        """(c,) float64: the log-odds that the values (c,) of rankings (c,) stand for."""
        slopes, intercepts = self.lines(groups, choices)
        odds: Array = slopes * self.levels(values, choices) + intercepts
        return odds


def drawn_numbers(draw: Array, rows: Array) -> Array:
    """(n,) from 0 to 1, by a hash of seed, clock and row (Steele et al. 2014, SplitMix64)."""
    mixed = np.zeros(len(rows), dtype=np.uint64)
    for number in (*draw.tolist(), rows):
        mixed ^= np.asarray(number).astype(np.uint64)
        mixed += np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    numbers: Array = mixed / 2.0**64
    return numbers

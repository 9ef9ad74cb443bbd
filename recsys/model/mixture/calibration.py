"""Calibration of a mixture's rankings: from their values to the log-odds of an interaction, learned batch by batch."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recsys.model.common.arrays import FloatArray
from recsys.model.common.jit import compiled
from recsys.serving.choice import POSITIVE, levels

# Slope and intercept before anything is measured. Shares, chances and what the re-ranker makes of them are logarithms
# of probabilities already; a predicted preference is about 0 or 1; a count says little about chances.
_START = {"als": (10.0, -6.0), "ncf": (1.0, -3.0), "repeat": (1.0, -3.0)}
# Curvature with which lines are held at their start, about ten relevant candidates; it fades like that of batches. A
# little of it remains, so that the equations can be solved.
_HELD, _DAMPING = 10.0, 1e-3
# Below it the order of the values would be lost.
_LEAST_SLOPE = 1e-3
# Newton steps per batch, at most; the last is one that should gain less than this share of the objective. A step is
# halved at most so often until it lowers the objective.
_STEPS, _SETTLED, _HALVINGS = 8, 1e-4, 10


class RankingCalibration:
    """Logistic regression (Platt 1999) for each ranking and group of users: log-odds = slope * level + intercept.

    The odds are those that a candidate is relevant, in the next batch, for a user who has something relevant in it. A
    batch is learned with a quadratic that stands for the losses of earlier batches around the line that fitted them,
    and fades, so that no example is kept.

    Args:
        rankings: names of the rankings.
        forgetting: Share of the curvature that is lost with each batch.
        lines: (groups, rankings, 2), as an earlier calibration left them.
        curvature: (groups, rankings, 2, 2) of the earlier losses.
    """

    def __init__(self, rankings: Sequence[str], forgetting: float, lines: FloatArray, curvature: FloatArray) -> None:
        self._positive, self._kept = np.isin(rankings, POSITIVE), 1 - forgetting
        self.lines, self.curvature = lines, curvature

    @classmethod
    def new(cls, rankings: Sequence[str], groups: int, forgetting: float) -> "RankingCalibration":
        """Before the first batch."""
        start = np.array([_START.get(name, (1.0, 0.0)) for name in rankings])
        lines = np.tile(start, (groups, 1, 1))
        return cls(rankings, forgetting, lines, np.tile(_HELD * np.eye(2), (groups, len(rankings), 1, 1)))

    def learn(self, group: int, values: FloatArray, relevant: npt.NDArray[np.bool_]) -> None:
        """Learn from the candidates of a group: their values (c, rankings), and whether they are relevant, (c,)."""
        scaled, hits = np.ascontiguousarray(levels(values, self._positive).T), relevant.astype(np.float64)
        for ranking, own in enumerate(scaled):
            past = self._kept * self.curvature[group, ranking]
            line, bend = _fitted(own, hits, self.lines[group, ranking], past)
            self.lines[group, ranking], self.curvature[group, ranking] = line, past + bend


def _fitted(own: FloatArray, hits: FloatArray, before: FloatArray, past: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The line that fits a batch and the earlier ones best (Newton's method), and the curvature of the batch's loss."""
    held = past + _DAMPING * np.eye(2)

    def measured(line: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        loss, slope, bend = _loss(own, hits, line)
        moved = line - before
        return loss + 0.5 * float(moved @ held @ moved), slope + held @ moved, bend

    line, (reached, slope, bend) = before, measured(before)
    for _ in range(_STEPS):
        step = _step(line, slope, held + bend)
        if -(slope + 0.5 * (held + bend) @ step) @ step <= _SETTLED * abs(reached):
            return line + step, bend  # So near the end the quadratic is as good as the loss.
        for _ in range(_HALVINGS):
            after: FloatArray = line + step
            found = measured(after)
            if found[0] <= reached:
                break
            step = step / 2
        else:
            break
        line, (reached, slope, bend) = after, found
    return line, bend


def _step(line: FloatArray, slope: FloatArray, bend: FloatArray) -> FloatArray:
    """Newton's step to the lowest point of a quadratic where the line's slope is not too small."""
    step: FloatArray = np.asarray(-np.linalg.solve(bend, slope), dtype=np.float64)
    least = _LEAST_SLOPE - line[0]
    if step[0] < least:
        step[:] = least, -(slope[1] + bend[1, 0] * least) / bend[1, 1]
    return step


@compiled
def _loss(own: FloatArray, hits: FloatArray, line: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    """Sum of the log losses of levels (c,), its gradient (2,) and its curvature (2, 2)."""
    loss, slope, bend = 0.0, np.zeros(2), np.zeros((2, 2))
    for one in range(len(own)):
        odds = line[0] * own[one] + line[1]
        small = np.exp(-abs(odds))
        chance = (1.0 if odds >= 0 else small) / (1 + small)
        loss += max(odds, 0.0) - odds * hits[one] + np.log1p(small)
        slope[0] += (chance - hits[one]) * own[one]
        slope[1] += chance - hits[one]
        spread = chance * (1 - chance)
        bend[0, 0] += spread * own[one] ** 2
        bend[0, 1] += spread * own[one]
        bend[1, 1] += spread
    bend[1, 0] = bend[0, 1]
    return loss, slope, bend

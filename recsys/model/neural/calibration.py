"""Calibration: from the scores of a teacher to probabilities."""

from typing import NamedTuple

import numpy as np
import torch

from recsys.model.common.arrays import FloatArray

# Slope and intercept (the latter for one negative per pair) of the logits as a function of the teacher's scores, as
# fitted to MovieLens 100K.
_SLOPE, _INTERCEPT = 10.0, -2.3
# Bounds on a fitted slope. The lower one preserves the order of the scores.
_SLOPES = (1.0, 30.0)
_NEWTON_STEPS = 20


class Calibration(NamedTuple):
    """A line from scores to logits (Platt scaling)."""

    slope: float
    intercept: float

    @classmethod
    def prior(cls, negatives: int) -> "Calibration":
        """The calibration before there are pairs to fit it to; `negatives` is the number of negatives per pair."""
        return cls(_SLOPE, float(_INTERCEPT - np.log(negatives)))

    def chances(self, scores: torch.Tensor) -> torch.Tensor:
        """Probabilities (...) of scores (...)."""
        return torch.sigmoid(self.slope * scores + self.intercept)

    def fitted(self, scores: torch.Tensor, labels: torch.Tensor) -> "Calibration":
        """Fit to scores (n,) and labels (n,), 0 or 1; returns this calibration where the slope is out of bounds."""
        slope, intercept = fit_logistic(scores, labels)
        return Calibration(slope, intercept) if _SLOPES[0] <= slope <= _SLOPES[1] else self

    def array(self) -> FloatArray:
        """(2,): slope and intercept."""
        return np.array([self.slope, self.intercept])


def fit_logistic(scores: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Logistic regression of labels on scores, by Newton's method.

    Args:
        scores: (n,).
        labels: (n,) 0 or 1.

    Returns:
        Slope and intercept; both NaN where no finite ones exist because the scores separate the labels.
    """
    inputs = torch.stack([scores, torch.ones_like(scores)], dim=1).double()
    fitted = inputs.new_zeros(2)
    for _ in range(_NEWTON_STEPS):
        chances = torch.sigmoid(inputs @ fitted)
        curvature = inputs.T @ (inputs * (chances * (1 - chances))[:, None])
        step, failed = torch.linalg.solve_ex(curvature, inputs.T @ (labels - chances))
        if failed or not step.isfinite().all():
            return float("nan"), float("nan")
        fitted = fitted + step
    slope, intercept = fitted.tolist()
    return slope, intercept

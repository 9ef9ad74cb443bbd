"""Which chances the scores of a teacher stand for."""

from typing import NamedTuple

import numpy as np
import torch

from recsys.model.common.arrays import FloatArray

# Slope and intercept (the latter for one negative per pair) of logits in the teacher's scores: what was fitted to
# MovieLens 100K.
_SLOPE, _INTERCEPT = 10.0, -2.3
# A fitted slope is not below the first, which keeps the order, nor above the second.
_SLOPES = (1.0, 30.0)
_NEWTON_STEPS = 20


class Calibration(NamedTuple):
    """A line from scores to logits (Platt scaling)."""

    slope: float
    intercept: float

    @classmethod
    def prior(cls, negatives: int) -> "Calibration":
        """What holds until there are pairs to fit it to, each among so many negatives."""
        return cls(_SLOPE, float(_INTERCEPT - np.log(negatives)))

    def chances(self, scores: torch.Tensor) -> torch.Tensor:
        """Chances (...) of scores (...)."""
        return torch.sigmoid(self.slope * scores + self.intercept)

    def fitted(self, scores: torch.Tensor, labels: torch.Tensor) -> "Calibration":
        """Fit to scores (n,) and labels (n,), 0 or 1; this calibration where the fit is no good."""
        slope, intercept = fit_logistic(scores, labels)
        return Calibration(slope, intercept) if _SLOPES[0] <= slope <= _SLOPES[1] else self

    def array(self) -> FloatArray:
        """(2,): slope and intercept."""
        return np.array([self.slope, self.intercept])


def fit_logistic(scores: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Slope and intercept that make logits of scores, by Newton's method.

    Args:
        scores: (n,).
        labels: (n,) 0 or 1.

    Returns:
        The slope, NaN where the scores part the labels so well that there is no finite one, and the intercept.
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

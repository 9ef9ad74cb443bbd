"""Logits of a teacher's scores, fitted."""

import math

import numpy as np
import pytest
import torch

from recsys.model.neural.calibration import Calibration, fit_logistic


def test_a_logistic_fit_has_no_slope_left_to_climb() -> None:
    generator = np.random.default_rng(0)
    scores = torch.from_numpy(generator.random(4000).astype(np.float32))
    chances = torch.sigmoid(9 * scores - 4)
    labels = (torch.from_numpy(generator.random(4000)) < chances).double()
    slope, intercept = fit_logistic(scores, labels)
    left = labels - torch.sigmoid(slope * scores.double() + intercept)
    assert abs(float(left.sum())) < 1e-6
    assert abs(float((left * scores).sum())) < 1e-6
    assert (slope, intercept) == pytest.approx((9, -4), abs=1)


def test_a_logistic_fit_to_what_is_parted_is_none() -> None:
    slope, _ = fit_logistic(torch.tensor([0.0, 0.1, 0.9, 1.0]), torch.tensor([0.0, 0.0, 1.0, 1.0]).double())
    assert math.isnan(slope) or slope > 30


def test_a_fit_that_is_no_good_changes_nothing() -> None:
    generator, before = np.random.default_rng(0), Calibration.prior(4)
    scores = torch.from_numpy(generator.random(4000).astype(np.float32))
    for slope, kept in ((9.0, False), (-9.0, True), (0.0, True)):
        labels = (torch.from_numpy(generator.random(4000)) < torch.sigmoid(slope * scores - 4)).double()
        assert (before.fitted(scores, labels) == before) == kept

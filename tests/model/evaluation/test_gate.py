"""When a version may become champion."""

import pytest

from recsys.model.evaluation.gate import judge


def test_without_a_champion_a_version_passes() -> None:
    assert judge({}, None, tolerance=0, batches=5).passed


def test_without_a_common_batch_it_does_not_pass() -> None:
    verdict = judge({1: 0.9}, {2: 0.1}, tolerance=0, batches=5)
    assert not verdict.passed
    assert "never measured" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("model", "tolerance", "passed"), [(0.30, 0.0, True), (0.29, 0.0, False), (0.29, 0.05, True), (0.28, 0.05, False)]
)
def test_it_must_not_be_worse_than_the_champion_by_more_than_the_tolerance(
    model: float, tolerance: float, passed: bool
) -> None:
    verdict = judge({7: model}, {7: 0.30}, tolerance, batches=1)
    assert verdict.passed == passed
    assert verdict.figures == {"model": model, "champion": 0.30, "batches": 1.0}


def test_only_the_last_batches_that_both_were_measured_on_count() -> None:
    verdict = judge({1: 0.0, 8: 0.5, 9: 0.7, 10: 0.0}, {1: 0.9, 8: 0.5, 9: 0.5, 11: 0.9}, tolerance=0, batches=2)
    assert verdict.passed
    assert verdict.figures == {"model": pytest.approx(0.6), "champion": 0.5, "batches": 2.0}


def test_an_ndcg_that_is_not_a_number_does_not_pass() -> None:
    assert not judge({1: float("nan")}, {1: 0.1}, tolerance=0.5, batches=1).passed

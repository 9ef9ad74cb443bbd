"""The bench of growth, on sizes that take seconds."""

from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from bench.speed import scale


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "BATCH", 200)
    monkeypatch.setattr(scale, "BATCHES", 3)


def test_costs_of_a_size(tmp_path: Path) -> None:
    costs = scale.measure(times=2, share=0.002)
    assert 500 < costs.pairs <= 4_000 + 600
    assert costs.evaluate > 0
    assert 0 < costs.learn <= costs.learn_worst
    assert np.isfinite(costs.bytes_per_pair)
    larger = replace(costs, times=4, evaluate=3 * costs.evaluate)
    assert scale.growth([costs, larger], "evaluate") == pytest.approx(3)
    picture = scale.draw_costs([costs, larger], tmp_path / "scale.png")
    height, width, _ = matplotlib.image.imread(picture).shape
    assert width > height

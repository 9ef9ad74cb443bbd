import math
from collections import deque
from datetime import UTC, datetime

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.contracts import LedgerRow, StepId
from recsys.stream import plots


def row(batch: int, **metrics: float) -> LedgerRow:
    figures = {name.replace("__", "/"): value for name, value in metrics.items()}
    return LedgerRow(StepId(0, batch), batch, 1000, 10, 10, 1500, datetime(2026, 3, 1, tzinfo=UTC), figures)


def colors(picture: np.ndarray, color: str) -> int:
    """How many pixels have about this color."""
    wanted = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return int((np.abs(picture[..., :3] - wanted).max(axis=-1) < 0.02).sum())


def test_every_ranker_and_stage_that_was_measured_is_drawn(tmp_path):
    rows = [
        row(
            batch,
            model__ndcg_at_7=0.2 + batch / 400,
            popularity__ndcg_at_7=0.15,
            first__ndcg_at_7=0.2 if batch > 10 and batch % 5 == 0 else math.nan,
            spark_seconds=1.0,
            learn_seconds=0.5,
        )
        for batch in range(60)
    ]
    path = plots.quality(deque(rows), tmp_path / "deep" / "quality.png", 7)
    picture = matplotlib.image.imread(path)
    assert picture.shape[:2] == (840, 1350)
    every = [color for _, _, color, _ in plots.RANKERS] + [color for _, _, color in plots.STAGES]
    assert all(colors(picture, color) > 200 for color in every)
    assert [file.name for file in path.parent.iterdir()] == ["quality.png"]

    unlike = matplotlib.image.imread(plots.quality(rows, tmp_path / "other.png", 8))
    assert colors(unlike, plots.RANKERS[1][2]) == 0


@pytest.mark.parametrize("rows", [[], [row(0)], [row(5, model__ndcg_at_20=0.1)], [row(0), row(1, spark_seconds=2.0)]])
def test_a_young_stream_has_a_picture_too(tmp_path, rows):
    picture = matplotlib.image.imread(plots.quality(rows, tmp_path / "quality.png", 20))
    assert picture.shape[:2] == (840, 1350)


@settings(deadline=None)
@given(
    values=st.lists(st.floats(0, 1) | st.just(math.nan), min_size=1, max_size=30),
    window=st.integers(1, 12),
)
def test_a_trailing_mean_is_the_mean_of_what_is_known(values, window):
    means = plots.trailing_mean(np.array(values), window)
    for at, (value, mean) in enumerate(zip(values, means, strict=True)):
        known = [one for one in values[max(0, at + 1 - window) : at + 1] if not math.isnan(one)]
        if math.isnan(value):
            assert math.isnan(mean)
        else:
            assert mean == pytest.approx(sum(known) / len(known), abs=1e-12)

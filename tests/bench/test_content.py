"""The bench of contents: the same batches for both models, and the figures of its last line."""

import numpy as np
import pytest

from bench.quality import content
from bench.quality.content import Compared
from tests.model.helpers import clustered_batches, described_groups, make_settings


def test_both_models_are_measured_on_the_same_batches() -> None:
    batches = clustered_batches(10, 150)
    catalog = described_groups({item for batch in batches for item in batch.item_ids})
    settings = make_settings(model={"kind": "mixture", "factors": 4}, recommend={"k": 5, "exclude_seen": False})
    found = content.compare("test", batches, catalog, settings)
    assert found.ndcg.shape == found.recall.shape == (2, 8)
    assert found.seconds.shape == (2, 10)
    assert found.seconds.min() > 0
    assert found.ratio()[0] > 1
    nothing = content.compare("test", batches, catalog.__class__(catalog.items, 0 * catalog.vectors), settings)
    np.testing.assert_array_equal(nothing.ndcg[0], found.ndcg[0])
    assert nothing.ratio() == (pytest.approx(1.0), pytest.approx(0.0))


def test_the_last_line_tells_the_smallest_gain_and_the_highest_cost() -> None:
    first = Compared(
        np.array([[1.0, 2.0], [1.5, 3.0]]), np.array([[1.0, 1.0], [1.0, 2.0]]), np.array([[1.0, 1, 9], [2, 2, 2]])
    )
    second = Compared(np.array([[1.0, 1.0], [0.5, 1.3]]), np.array([[1.0, 1.0], [1.0, 0.0]]), np.array([[1.0], [1.5]]))
    assert first.ratio() == (1.5, 0.0)
    assert second.ratio()[0] == pytest.approx(0.9)
    assert second.ratio()[1] == pytest.approx(np.sqrt(0.4**2 + 0.4**2) / 2)
    assert content.last_line([first, second]) == (
        "content_vs_without=0.9000 content_vs_without_mean=1.2000 content_recall_mean=1.0000 content_learn_time=2.00"
    )
    assert "1.5000 +- 0.0000" in content.line("films", first)

"""The bench of one more member: the same batches for both models, and the figures of its last line."""

from dataclasses import replace

import numpy as np
import pytest

from bench.quality import member
from bench.quality.member import Compared
from recsys.contracts import Contents
from tests.model.helpers import clustered_batches, described_groups, make_settings


def test_both_models_are_measured_on_the_same_batches() -> None:
    batches = clustered_batches(10, 150)
    catalog = described_groups({item for batch in batches for item in batch.item_ids})
    settings = make_settings(model={"kind": "mixture", "factors": 4}, recommend={"k": 5, "exclude_seen": False})
    found = member.compare("test", batches, catalog, settings, "content")
    assert found.ndcg.shape == found.recall.shape == (2, 8)
    assert found.seconds.shape == (2, 10)
    assert found.seconds.min() > 0
    assert found.ratio()[0] > 1
    bare = [replace(batch, contents=Contents()) for batch in batches]
    nothing = member.compare("test", bare, None, settings, "content")
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
    assert member.last_line([first, second]) == (
        "member_vs_without=0.9000 member_vs_without_mean=1.2000 member_recall_mean=1.0000 member_learn_time=2.00"
    )
    assert "1.5000 +- 0.0000" in member.line("films", first)

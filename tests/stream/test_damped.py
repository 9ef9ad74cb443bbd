"""Every down-weighting has an answer."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.recommender import OnlineModel
from recsys.stream.damped import damped
from recsys.tables import log

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_what_counts_less_than_it_weighs_is_listed_with_its_share() -> None:
    columns = {
        "user_id": ["ann", "bot", "bot"],
        "item_id": ["tea", "milk", "tea"],
        "weight": [4.0, 4.0, 4_000.0],
        "events": [1, 1, 1_000],
        "first_event_time": [NOON] * 3,
        "last_event_time": [NOON] * 3,
        "impressions": [0] * 3,
    }
    rows = pa.table(columns, schema=log.ROWS)
    settings = Settings.model_validate({"device": "cpu", "model": {"kind": "als", "factors": 4}})
    (why,) = damped(rows, settings).to_pylist()
    assert why == {
        "user_id": "bot",
        "item_id": "tea",
        "events": 1_000,
        "weight": 4_000.0,
        "share": pytest.approx(0.02),
        "user_events": 1_001,
    }
    model = OnlineModel(settings)
    figures = model.update(log.to_batch(rows), StepId(0, 0))
    assert figures["damped_pairs"] == 1
    assert figures["damped_weight_share"] == pytest.approx(3_920 / 4_008)
    learned = model.history.user_rows(model.users.lookup(["bot"]))
    assert sorted(learned.weights.tolist()) == pytest.approx([4.0, 80.0])
    assert damped(log.ROWS.empty_table(), settings).num_rows == 0

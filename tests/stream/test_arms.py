"""An experiment in the stream: its arms are measured on every batch, shadows too, and clicks are counted by arm."""

import json
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.config.experiment import Experiment
from recsys.config.sections import EventWeight
from recsys.experiment import arms_of
from recsys.registry import versions
from recsys.registry.client import connect
from recsys.stream.job import run_stream
from recsys.tables import ledger
from recsys.tables.delta import Tables
from tests.streams import write_stream

USERS = [f"u{number}" for number in range(400)]
LIST = f"recsys/1:reranker:5.000000e-01:{'a' * 16}"


def test_arms_are_measured_and_their_clicks_counted(
    spark: SparkSession, stream: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(stream.source.path)
    write_stream(folder, files=6)
    run_stream(stream)
    kept = versions.champion(connect(stream), "recsys")
    assert kept is not None
    old, shadow = ({"share": share, "model": kept.uri} for share in (0.5, 0))
    arms = {"control": {"share": 0.5}, "old": old, "shadow": shadow}
    experiment = Experiment.model_validate({"arms": arms})
    lost = {**arms, "old": {"share": 0.5, "model": "models:/recsys/99"}}
    tried = stream.model_copy(update={"experiment": Experiment.model_validate({"arms": lost})})
    assert run_stream(tried).batches == 0
    assert "experiment.arms.old is not measured: the registry holds no models:/recsys/99" in caplog.text

    shown = [
        {"user_id": user, "item_id": "i1", "event_type": kind, "event_time": 1.71e9, "list_id": LIST}
        for number, user in enumerate(USERS)
        for kind in (["impression"] * 4 + ["view"] * (number % 3 == 0))
    ]
    (folder / "shown.json").write_text("\n".join(json.dumps(event) for event in shown))
    # A type of impressions may come later; it changes nothing of what was learned.
    weights = {**stream.weights, "impression": EventWeight(weight=0, impression=True)}
    run_stream(stream.model_copy(update={"experiment": experiment, "weights": weights}))
    row = ledger.read(Tables(spark, stream.storage), generation=0, after=5)[-1]
    ndcg = "ndcg_at_5"
    assert row.metrics[f"experiment/control/{ndcg}"] == row.metrics[f"champion/{ndcg}"]
    assert row.metrics[f"experiment/shadow/{ndcg}"] == row.metrics[f"experiment/old/{ndcg}"]
    ends = (row.metrics[f"experiment/old/ndcg_{end}"] for end in ("lower", "upper"))
    assert next(ends) <= row.metrics[f"experiment/old/{ndcg}"] <= next(ends)
    assert row.artifacts["experiment/old"] == row.artifacts["experiment/shadow"] == kept.digest
    assert row.artifacts["experiment/control"] == row.artifacts["champion"]
    places = arms_of(USERS, experiment)
    for place, name in enumerate(("control", "old")):
        own = places == place
        clicks = sum(own[number] for number in range(0, len(USERS), 3))
        assert row.metrics[f"experiment/{name}/impressions"] == own.sum()
        assert row.metrics[f"experiment/{name}/clicks"] == clicks
        assert row.metrics[f"experiment/{name}/click_rate"] == pytest.approx(clicks / own.sum())
    assert row.metrics["experiment/shadow/impressions"] == 0
    assert "experiment/shadow/click_rate" not in row.metrics

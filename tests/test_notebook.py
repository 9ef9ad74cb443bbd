"""A stream in the background of a notebook: its handle, and the session and the settings of the notebook."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

import recsys
from recsys.config import Settings
from recsys.contracts import StepId
from recsys.errors import ConfigError, InputError
from recsys.notebook import StreamStatus, _settings
from tests.stream.checks import MakeSettings
from tests.streams import write_stream

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def small(tmp_path: Path, settings: MakeSettings) -> Settings:
    return settings(
        tmp_path,
        source={"options": {"maxFilesPerTrigger": "1"}, "columns": {"event_id": None}},
        weights={"view": 1, "purchase": 3},
        register={"every_batches": 2},
        recommend={"k": 5, "exclude_seen": False},
    )


@pytest.mark.mlflow
def test_a_stream_in_the_background(spark: "SparkSession", small: Settings, tmp_path: Path) -> None:
    write_stream(tmp_path / "events", files=4)
    before = dict(spark.conf.getAll)
    given = {"spark.spark.sql.shuffle.partitions": "3"}
    with recsys.stream(small) as running:
        assert len(running.quality()) <= 4
        done = running.wait()
        assert (done.state, done.batches, done.last, done.error) == ("finished", 4, StepId(0, 3), None)
        assert str(done) == "finished: 4 batches, the last is 0-3"
    assert running.stop().batches == 4
    assert spark.conf.getAll == before
    assert running._spark is not spark

    quality = running.quality()
    assert quality["batch_id"].tolist() == [0, 1, 2, 3]
    assert quality["events"].sum() == 480
    assert quality["model"].notna().sum() == quality["popularity"].notna().sum() == 3
    assert running.plot().axes[0].get_ylabel() == "NDCG@5"
    assert running.recommend("u1", k=2).columns.tolist() == ["user_id", "rank", "item_id", "score"]

    # One that would run on is stopped between two batches.
    write_stream(tmp_path / "events", files=5, first=4)
    on = recsys.stream(small, **{"trigger.mode": "processing_time", "trigger.interval": "1 second", **given})
    while not on.status().batches:
        assert on.wait(0.1).state == "running"
    assert on.stop().batches == 1
    assert on.status().state == "stopped"
    assert on._spark is not None
    assert on._spark.conf.get("spark.sql.shuffle.partitions") == "3"
    assert spark.conf.getAll == before

    # One that fails says so, and raises at the end of the block. Its champion is there all the same.
    catalog = tmp_path / "catalog.csv"
    pd.DataFrame({"item_id": [f"i{item}" for item in range(40)], "title": "<b>tea</b>", "text": ""}).to_csv(catalog)
    wrong = {"source.path": str(tmp_path / "missing"), "items.path": str(catalog)}
    failing = recsys.stream(small, **wrong)
    failed = failing.wait()
    assert (failed.state, failed.batches) == ("failed", 0)
    assert "missing" in (failed.error or "")
    assert "&lt;b&gt;tea" in failing.recommend("u1")._repr_html_()
    with pytest.raises(InputError, match="missing"), failing:
        pass
    with pytest.raises(InputError, match="missing"):
        failing.stop()
    with pytest.raises(ZeroDivisionError), failing:
        raise ZeroDivisionError  # What the block raises counts.


def test_settings_are_given_in_several_ways(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("recommend: {k: 7}\n")
    assert _settings(str(file), {"model.factors": 8}).recommend.k == 7
    made = _settings(_settings(file, {}), {"model.factors": 8, "source.options.maxFilesPerTrigger": "1"})
    assert (made.recommend.k, made.model.factors) == (7, 8)
    assert made.source.options == {"maxFilesPerTrigger": "1"}
    assert _settings(None, {}) == Settings()
    for wrong in ("model.factor", "seed.x"):
        with pytest.raises(ConfigError, match=wrong):
            _settings(None, {wrong: 1})


def test_a_status_of_nothing_yet() -> None:
    assert str(StreamStatus("running", 0, None, None)) == "running: 0 batches"

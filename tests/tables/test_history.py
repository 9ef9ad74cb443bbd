"""A history in bulk: counted, cut, and logged in one commit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys.batches import batch_starts
from recsys.config import Settings
from recsys.contracts import INTERACTION_LOG, StepId
from recsys.tables import history, log, quarantine
from recsys.tables.clean import tag
from recsys.tables.delta import Tables

pytestmark = pytest.mark.spark
Factory = Callable[..., Settings]

COLUMNS = "user_id STRING, item_id STRING, event_type STRING, value STRING, event_time STRING, event_id STRING"
# Out of order; two events of the instant 20, two of one user and item.
EVENTS = [("b", "y", 30), ("a", "x", 10), ("a", "x", 20), ("b", "x", 20), ("c", "z", 40), ("a", "x", 41)]


def tagged(spark: SparkSession, settings: Settings):
    rows = [(user, item, "view", None, str(1_700_000_000 + second), None) for user, item, second in EVENTS]
    rows += [("a", None, "view", None, "1700000000", None), ("a", "x", "stare", None, None, None)]
    read = spark.createDataFrame(rows, COLUMNS).withColumns(
        {"unreadable": F.lit(None).cast("string"), "raw": F.lit("raw"), "ingested_at": F.current_timestamp()}
    )
    return tag(read, settings)


def test_a_history_is_counted_by_instant(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    events = tagged(spark, settings(tmp_path))
    counts = history.count(events)
    assert ((counts.times / 1e6).astype(int) - 1_700_000_000).tolist() == [10, 20, 30, 40, 41]
    assert counts.events.tolist() == [1, 2, 1, 1, 1]
    assert counts.quarantined == 2
    assert quarantine.reasons(events) == {"missing event_time": 1, "missing item_id": 1, "unknown event_type": 1}


def test_nothing_is_counted_as_nothing(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    counts = history.count(tagged(spark, settings(tmp_path)).limit(0))
    assert (len(counts.times), counts.quarantined) == (0, 0)


@pytest.mark.parametrize("batches", [1, 2, 3, 7, 100])
def test_a_batch_begins_at_its_first_instant(spark: SparkSession, batches: int) -> None:
    starts = (10 * np.arange(batches)).tolist()
    instants = np.arange(10 * batches + 5)
    found = spark.range(len(instants)).select("id", history.batch_of(F.col("id"), starts).alias("batch")).toArrow()
    wanted = np.searchsorted(starts, found["id"].to_numpy(), side="right") - 1
    assert found["batch"].to_pylist() == wanted.tolist()


def test_a_history_is_logged_once_and_in_one_commit(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    chosen = settings(tmp_path, weights={"view": 2})
    tables = Tables(spark, chosen.storage)
    tables.create_missing()
    events = tagged(spark, chosen)
    counts = history.count(events)
    starts = batch_starts(counts.times, 3, counts.events)
    versions = {history.append(tables, events, chosen.weights, counts, starts, "history") for _ in range(2)}
    assert versions == {1}
    held = {
        step: list(zip(batch.user_ids, batch.item_ids, batch.weights.tolist(), batch.events.tolist(), strict=True))
        for step, batch in log.batches(tables)
    }
    assert held == {
        StepId(0, 0): [("a", "x", 4.0, 2), ("b", "x", 2.0, 1)],
        StepId(0, 1): [("a", "x", 2.0, 1), ("b", "y", 2.0, 1), ("c", "z", 2.0, 1)],
    }
    assert len(tables.read(INTERACTION_LOG).inputFiles()) == 1

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.contracts import INTERACTION_LOG, QUARANTINE, StepId
from recsys.tables import log, quarantine
from recsys.tables.clean import tag
from recsys.tables.delta import Tables
from tests.tables.helpers import NOON, append_batches, drain, event, log_rows, write_lines
from tests.tables.test_clean import as_text

Factory = Callable[..., Settings]


def transactions(tables: Tables, name: str) -> list[tuple[str, int]]:
    """(application id, version) of every transaction in a table's Delta log."""
    files = sorted(Path(tables.location(name), "_delta_log").glob("*.json"))
    actions = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [(action["txn"]["appId"], action["txn"]["version"]) for action in actions if "txn" in action]


def test_a_repeated_append_is_a_no_op(tables: Tables) -> None:
    rows = log_rows(("b", "x", 1.0), ("a", "y", 0.1))
    versions = [log.append(tables, rows, StepId(0, 4), "app") for _ in range(2)]
    assert versions == [1, 1]
    assert transactions(tables, INTERACTION_LOG) == [("app", 4)]
    assert log.read_batch(tables, StepId(0, 4)).equals(rows)


def test_a_batch_is_one_file(tables: Tables) -> None:
    log.append(tables, log_rows(*[(f"u{number}", "i", 1.0) for number in range(500)]), StepId(0, 0), "app")
    assert len(list(Path(tables.location(INTERACTION_LOG)).glob("*.parquet"))) == 1


def test_a_batch_without_rows_writes_nothing(tables: Tables) -> None:
    assert log.append(tables, log_rows(), StepId(0, 0), "app") == 0
    assert log.read_batch(tables, StepId(0, 0)).num_rows == 0
    assert log.last_step(tables) is None
    assert list(log.batches(tables)) == []


def test_collect_counts_and_sorts(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    users = ["é", "z", "Z", "a", "10", "9"]
    events = [event(user_id=user, event_type="purchase") for user in users] * 2
    configured = settings(tmp_path)
    bad = [event(user_id=None), event(user_id="z", event_type="x"), event(user_id=None, event_type="x")]
    rows, counts = log.collect(tag(as_text(spark, *events, *bad), configured), configured.weights)
    assert rows["user_id"].to_pylist() == sorted(users, key=str.encode)
    assert rows["weight"].to_pylist() == [8.0] * 6
    reasons = {"missing user_id": 2, "unknown event_type": 2}
    assert counts == log.BatchCounts(records=15, quarantined=3, reasons=reasons)
    assert rows.schema.field("last_event_time").type == pa.timestamp("us", "UTC")


@pytest.mark.parametrize(("good", "bad"), [(0, 0), (0, 2), (2, 0)])
def test_collect_of_lopsided_batches(
    spark: SparkSession, settings: Factory, tmp_path: Path, good: int, bad: int
) -> None:
    configured = settings(tmp_path)
    events = [event()] * good + [event(item_id=None)] * bad
    tagged = tag(as_text(spark, event(), *events).filter("event_id != '0'"), configured)
    rows, counts = log.collect(tagged, configured.weights)
    assert (rows.num_rows, counts.records, counts.quarantined) == (min(good, 1), good + bad, bad)


def test_every_record_is_learned_set_aside_or_a_duplicate(
    spark: SparkSession, settings: Factory, tables: Tables, tmp_path: Path
) -> None:
    configured = settings(tmp_path, source={"options": {"maxFilesPerTrigger": 1}})
    kinds = ["view", "purchase", "sneeze"]
    for number in range(3):
        events = [event(user_id=str(n % 4), event_type=kinds[n % 3], event_id=str(n % 9)) for n in range(20)]
        write_lines(tmp_path / f"events/{number}.json", *events, "no json")
    drained = drain(spark, configured)
    for number, rows in enumerate(drained.rows):
        log.append(tables, rows, StepId(0, number), "app")
    learned = tables.read(INTERACTION_LOG).groupBy().sum("events").collect()[0][0]
    assert learned + len(drained.rejected) + drained.duplicates == 63


def test_quarantine_takes_the_bad_records_once(
    spark: SparkSession, settings: Factory, tables: Tables, tmp_path: Path
) -> None:
    tagged = tag(as_text(spark, event(), event(user_id=None, item_id=None)), settings(tmp_path))
    for _ in range(2):
        quarantine.append(tables, tagged, StepId(2, 5), "app", records=1)
    stored = tables.read(QUARANTINE).toArrow().to_pylist()
    reasons = ["missing user_id", "missing item_id"]
    wanted = {"generation": 2, "batch_id": 5, "raw": "text", "reasons": reasons, "ingested_at": NOON, "source": 0}
    assert stored == [wanted]
    assert transactions(tables, QUARANTINE) == [("app", 5)]


def test_the_tail_comes_in_order_and_within_its_bounds(tables: Tables) -> None:
    batches = [[("b", "x", float(number)), ("a", "y", 0.5)] for number in range(12)]
    append_batches(tables, batches)
    tail = list(log.batches(tables, StepId(0, 3), StepId(0, 10)))
    assert [step.batch_id for step, _ in tail] == list(range(4, 11))
    for step, batch in tail:
        assert (batch.user_ids, batch.item_ids) == (["a", "b"], ["y", "x"])
        np.testing.assert_array_equal(batch.weights, [0.5, float(step.batch_id)])
        np.testing.assert_array_equal(batch.times, [NOON.timestamp()] * 2)


def test_epochs_follow_each_other(tables: Tables) -> None:
    append_batches(tables, [[("a", "x", 1.0)], [("b", "x", 1.0)]])
    log.append(tables, log_rows(("c", "x", 1.0)), StepId(1, 1), "next")
    version = log.append(tables, log_rows(("d", "x", 1.0)), StepId(1, 2), "next")
    assert [step for step, _ in log.batches(tables)] == [StepId(0, 0), StepId(0, 1), StepId(1, 1), StepId(1, 2)]
    assert [step for step, _ in log.batches(tables, version=version - 1)][-1] == StepId(1, 1)
    assert [step for step, _ in log.batches(tables, StepId(0, 1), StepId(1, 1))] == [StepId(1, 1)]
    assert log.last_step(tables, 0) == StepId(0, 1)
    assert log.last_step(tables) == StepId(1, 2)

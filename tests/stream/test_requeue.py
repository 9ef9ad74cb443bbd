"""Quarantined records come back once, corrected, and the stream learns them; wherever the job is interrupted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from recsys.cli import BAD_INPUT, run_job
from recsys.contracts import QUARANTINE, REQUEUED
from recsys.errors import ConfigError, InputError
from recsys.storage import upkeep_lock
from recsys.stream.requeue import parts, requeue, target
from recsys.tables.delta import Tables
from recsys.tables.requeue import KEY
from tests.stream.checks import MakeSettings
from tests.stream.disturbed import InterruptedStage
from tests.tables.helpers import drain, event, write_lines

STRANGE = "quote'\"`;-- \\ 🛒\n\t"


@pytest.fixture
def tables(spark: SparkSession, settings: MakeSettings, empty_tables: Callable[[str], None], tmp_path: Path) -> Tables:
    storage = settings(tmp_path).storage
    empty_tables(storage.root)
    return Tables(spark, storage)


def quarantine_all(tables: Tables, rejected: list[dict[str, Any]], batch: int | None = None) -> None:
    """Store what a drained stream rejected, as the stream does."""
    rows = [{**record, "batch_id": record["batch_id"] if batch is None else batch} for record in rejected]
    frame = tables.spark.createDataFrame(pa.Table.from_pylist(rows))
    tables.append(QUARANTINE, frame, "test", rows[0]["batch_id"])


def stop_at(stage: str) -> Callable[[str, Path], None]:
    def observe(reached: str, file: Path) -> None:
        if reached == stage:
            raise InterruptedStage

    return observe


def shown(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("requeued-*"))


def hidden(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob(".requeued-*.json"))


def test_records_come_back_once_wherever_the_job_is_interrupted(
    spark: SparkSession, tables: Tables, settings: MakeSettings, tmp_path: Path
) -> None:
    folder = tmp_path / "events"
    before = settings(tmp_path, weights={"view": 1, "buy": 3})
    twice = event(user_id=STRANGE, item_id=STRANGE, event_type="veiw")
    first = [
        event(event_id="1"),
        event(event_id="1", item_id="good twin", event_type="veiw"),
        # Long before everything else, and of the same id: only the first of the two counts, as anywhere.
        event(event_id="2", event_type="veiw", event_time="2001-01-01T00:00:00.123456Z"),
        event(event_id="2", event_type="veiw", event_time="2001-01-01T00:00:00.123456Z"),
        event(event_id="3", event_type="stare"),
        event(event_id="4", event_type="buy", value=True),
    ]
    write_lines(folder / "0.json", *first, '{"user_id": "u1"', twice, twice)
    drained = drain(spark, before)
    assert drained.pairs == [("u", "i", 1.0, 1)]
    quarantine_all(tables, drained.rejected)
    stored = tables.read(QUARANTINE).count()
    assert stored == 8

    corrected = settings(
        tmp_path,
        weights={"view": 1, "buy": 3},
        requeue={"event_types": {"veiw": "view"}, "reasons": ["unknown event_type"]},
    )
    dry = requeue(corrected, dry_run=True)
    assert (dry.records, dry.files, dry.remaining) == (5, (), {"unknown event_type": 1})
    assert not tables.exists(REQUEUED)
    with upkeep_lock(corrected.storage.root), pytest.raises(InputError, match="maintain or requeue is running"):
        requeue(corrected)

    with pytest.raises(InterruptedStage):
        requeue(corrected, observe=stop_at("written"))
    assert (len(hidden(folder)), shown(folder)) == (1, [])
    with pytest.raises(InterruptedStage):
        requeue(corrected, observe=stop_at("recorded"))
    assert (len(hidden(folder)), shown(folder)) == (1, [])
    assert drain(spark, before).records == 0, "Spark does not see a hidden file"
    # The run after it publishes that file, even if it is itself about something else.
    other = corrected.model_copy(update={"requeue": corrected.requeue.model_copy(update={"batches": [99]})})
    finished = requeue(other)
    assert (finished.records, len(finished.files)) == (0, 1)
    assert (hidden(folder), len(shown(folder))) == ([], 1)
    for _ in range(2):
        assert requeue(corrected).records == 0
    assert len(shown(folder)) == 1
    assert tables.read(QUARANTINE).count() == stored, "records stay with the batches that they came with"
    assert tables.read(REQUEUED).agg({"records": "sum"}).collect()[0][0] == 5

    back = drain(spark, before)
    # The good twin arrived within the watermark, so the corrected one is its duplicate.
    assert sorted(back.pairs) == [(STRANGE, STRANGE, 2.0, 2), ("u", "i", 1.0, 1)]
    assert (back.rejected, back.duplicates) == ([], 2)
    late = [row for table in back.rows for row in table.to_pylist() if row["user_id"] == "u"]
    assert str(late[0]["last_event_time"]) == "2001-01-01 00:00:00.123456+00:00"


def test_new_rules_other_names_and_what_stays(
    spark: SparkSession, tables: Tables, settings: MakeSettings, tmp_path: Path
) -> None:
    """Names of columns as the stream has them come out; what was judged by the clock is judged by the same clock."""
    folder = tmp_path / "events"
    source = {"columns": {"item_id": "sku", "event_id": None}, "options": {"lineSep": "\r\n"}}
    folder.mkdir()
    lines = [
        {"uid": "a", "sku": 1, "event_type": "view", "event_time": 1714564800},
        {"uid": "b", "sku": 2, "event_type": "stare", "event_time": "2024-05-01"},
        {"uid": "c", "sku": 3, "event_type": "view", "event_time": "2094-05-01"},
    ]
    (folder / "0.json").write_text("".join(f"{json.dumps(line)}\r\n" for line in lines))
    narrow = settings(tmp_path, source=source, weights={"view": 1})
    quarantine_all(tables, drain(spark, narrow).rejected)
    wide = {"source": source, "weights": {"view": 1, "stare": 0.5}, "requeue": {"columns": {"user_id": "uid"}}}
    summary = requeue(settings(tmp_path, **wide))
    assert (summary.records, summary.remaining) == (2, {"event_time in the future": 1})
    assert drain(spark, settings(tmp_path, **wide)).pairs == [("a", "1", 1.0, 1), ("b", "2", 0.5, 1)]
    # Bytes that were no text are lost in the quarantine; such a record does not come back as another one.
    broken = {"raw": '{"uid": "\ufffd", "sku": 1, "event_type": "view", "event_time": 1}'}
    quarantine_all(
        tables,
        [{"generation": 0, **broken, "reasons": ["user_id is not UTF-8"], "ingested_at": summary_time(tables)}],
        batch=7,
    )
    early = {**wide, "source": {**source, "earliest_time": "1960-01-01T00:00:00Z"}}
    assert requeue(settings(tmp_path, **early)).records == 0


def test_records_come_back_to_the_source_that_they_came_from(
    spark: SparkSession, tables: Tables, settings: MakeSettings, tmp_path: Path
) -> None:
    """Two sources gave the same text, which the names and weights of each read differently."""
    text = {"user": "a", "buyer": "b", "item_id": "i", "event_type": "stare", "event_time": 1714564800}
    for name in ("events", "partner"):
        write_lines(tmp_path / name / "0.json", text)
    both = {
        "source": {"columns": {"user_id": "user", "event_id": None}},
        "sources": [
            {"path": str(tmp_path / "partner"), "columns": {"user_id": "buyer", "event_id": None}, "weight": 0.5}
        ],
    }
    rejected = drain(spark, settings(tmp_path, **both, weights={"view": 1})).rejected
    assert sorted(row["source"] for row in rejected) == [0, 1]
    quarantine_all(tables, rejected)
    wide = {**both, "weights": {"view": 1, "stare": 2}}
    for number, name in ((1, "partner"), (0, "events")):
        chosen = settings(tmp_path, **wide, requeue={"source": number})
        assert [(summary.records, len(summary.files)) for summary in (requeue(chosen), requeue(chosen))] == [
            (1, 1),
            (0, 0),
        ]
        assert len(shown(tmp_path / name)) == 1
    assert sorted(drain(spark, settings(tmp_path, **wide)).pairs) == [("a", "i", 2.0, 1), ("b", "i", 1.0, 1)]
    with pytest.raises(ConfigError, match=r"'requeue.source': there is no source 2; 0 is source, and sources has 1"):
        requeue(settings(tmp_path, **wide, requeue={"source": 2}))


def summary_time(tables: Tables) -> Any:
    return tables.read(QUARANTINE).toArrow()["ingested_at"][0].as_py()


def test_where_files_go(settings: MakeSettings, tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    assert target(settings(tmp_path)) == (tmp_path / "events", "\n")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"format": "csv"}, "source.format is csv"),
        ({"path": str(tmp_path / "events/*.json")}, "is no folder"),
        ({"options": {"pathGlobFilter": "*.jsonl"}}, "leaves out"),
        ({"options": {"lineSep": ";"}}, "no line break"),
    ]
    for source, why in cases:
        with pytest.raises(ConfigError, match=f"{why}.*set requeue.path"):
            target(settings(tmp_path, source=source))
        elsewhere = settings(tmp_path, source=source, requeue={"path": str(tmp_path / "new")})
        assert target(elsewhere) == (tmp_path / "new", "\n")
    (tmp_path / "events/0.csv").touch()
    csv = settings(tmp_path, source={"format": "csv"})
    assert run_job(lambda _: requeue(csv), []) == BAD_INPUT


def test_files_are_cut_between_records() -> None:
    counts = np.array([3, 1, 1, 4, 9, 1, 1])
    rows = pa.table({**{column: list(range(7)) for column in KEY}, "records": counts})
    cut = [part["records"].to_pylist() for part in parts(rows, 5)]
    assert cut == [[3, 1, 1], [4, 9], [1, 1]]
    assert [part.num_rows for part in parts(rows, None)] == [7]
    assert list(parts(rows.slice(0, 0), 5)) == []

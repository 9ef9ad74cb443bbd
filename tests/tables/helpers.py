"""What several tests of the tables need: events, log rows, and a stream that is worked off to its end."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.tables import log
from recsys.tables.delta import Tables
from recsys.tables.log import BatchCounts
from recsys.tables.quarantine import quarantined
from recsys.tables.source import computed_once, dropped_duplicates, open_events

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def event(**fields: Any) -> dict[str, Any]:
    """A good event, but for the fields given."""
    return {"user_id": "u", "item_id": "i", "event_type": "view", "event_time": "2024-05-01T12:00:00Z", **fields}


def write_lines(file: Path, *events: dict[str, Any] | str) -> None:
    """Write events as JSON lines; a text is written as it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in events)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@dataclass
class Drained:
    """What a stream gave when it was worked off: rows and counts by batch, rejected records, duplicates dropped."""

    rows: list[pa.Table]
    counts: list[BatchCounts]
    rejected: list[dict[str, Any]]
    duplicates: int

    @property
    def pairs(self) -> list[tuple[str, str, float, int]]:
        """(user, item, weight, events) of all batches."""
        columns = ["user_id", "item_id", "weight", "events"]
        return [tuple(row.values()) for table in self.rows for row in table.select(columns).to_pylist()]

    @property
    def reasons(self) -> list[list[str]]:
        return [record["reasons"] for record in self.rejected]

    @property
    def records(self) -> int:
        return sum(counts.records for counts in self.counts)


def drain(spark: SparkSession, settings: Settings) -> Drained:
    """Work off the configured source, with the checkpoint kept under the storage root."""
    drained = Drained([], [], [], 0)

    def take(events: DataFrame, batch_id: int) -> None:
        with computed_once(events):
            rows, counts = log.collect(events, settings.weights)
            if counts.quarantined:
                drained.rejected += quarantined(events, StepId(0, batch_id)).toArrow().to_pylist()
        drained.rows.append(rows)
        drained.counts.append(counts)

    writer = open_events(spark, settings).writeStream.foreachBatch(take).trigger(availableNow=True)
    query = writer.option("checkpointLocation", f"{settings.storage.root}/checkpoint").start()
    try:
        query.awaitTermination()
    finally:
        query.stop()
    drained.duplicates = sum(dropped_duplicates(progress) for progress in query.recentProgress)
    return drained


def log_rows(*rows: tuple[str, str, float], time: datetime = NOON) -> pa.Table:
    """Rows as `log.collect` returns them, of one event each."""
    columns = [list(column) for column in zip(*sorted(rows), strict=True)] or [[], [], []]
    times = [time] * len(rows)
    return pa.Table.from_arrays([*columns, [1] * len(rows), times, times, [0] * len(rows)], schema=log.ROWS)


def append_batches(tables: Tables, batches: Sequence[Sequence[tuple[str, str, float]]], first: int = 0) -> None:
    """Append batches of (user, item, weight) to the log, numbered from `first` in generation 0."""
    for number, rows in enumerate(batches, start=first):
        log.append(tables, log_rows(*rows), StepId(0, number), "test")

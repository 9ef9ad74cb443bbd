"""Reads quarantined records again, under the present settings, and keeps a record of what has come back.

Beside records, the table `requeued` has the requests for batches that the stream has set aside, one row each.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys.config import Settings
from recsys.config.operation import Requeue
from recsys.contracts import (
    BATCH,
    EVENT_TYPE,
    GENERATION,
    QUARANTINE,
    RAW,
    REASONS,
    RECORD,
    REQUEUED,
    REQUEUED_SCHEMA,
    SOURCE,
    StepId,
)
from recsys.tables.clean import is_good, with_reasons
from recsys.tables.conditions import of_generation
from recsys.tables.delta import Tables
from recsys.tables.formats import parse_json

LINE, RECORDS, FILE = "line", "records", "file"
_REQUESTS = pa.schema(
    [
        (GENERATION, pa.int64()),
        (BATCH, pa.int64()),
        (RECORD, pa.string()),
        (RECORDS, pa.int64()),
        (FILE, pa.string()),
        ("requeued_at", pa.timestamp("us", "UTC")),
    ]
)
# Which record of the quarantine: rows with all three alike are alike, and come back together.
KEY = (GENERATION, BATCH, RECORD)

# In the column `record`, of a row that asks for a batch.
_WHOLE_BATCH = "batch set aside"
_BEFORE = "reasons_before"
_NOT_UTF8 = " is not UTF-8"


def create_missing(tables: Tables) -> None:
    """Make the table `requeued`, if it is missing."""
    tables.create_missing({REQUEUED: REQUEUED_SCHEMA})


def outstanding(tables: Tables, wanted: Requeue) -> DataFrame:
    """Rows of the quarantine that have not come back, with their `record`.

    Args:
        tables: The tables.
        wanted: Which source, reasons and batches.
    """
    rows = tables.read(QUARANTINE).filter(F.isnotnull(RAW))
    # Rows of an earlier release do not say where they come from.
    source = F.coalesce(F.col(SOURCE), F.lit(0)) if SOURCE in rows.columns else F.lit(0)
    text = F.concat_ws("\n", F.lit(wanted.source), RAW) if wanted.source else F.col(RAW)
    rows = rows.filter(source == wanted.source).withColumn(RECORD, F.sha2(text, 256))
    if wanted.reasons:
        rows = rows.filter(F.arrays_overlap(REASONS, F.array(*map(F.lit, wanted.reasons))))
    if wanted.batches:
        rows = rows.filter(F.col(BATCH).isin(wanted.batches))
    if tables.exists(REQUEUED):
        rows = rows.join(tables.read(REQUEUED), on=list(KEY), how="left_anti")
    return rows


def judged(rows: DataFrame, settings: Settings) -> DataFrame:
    """Judge rows of the quarantine by the rules of the stream, as of the time when they were ingested.

    Args:
        rows: From `outstanding`.
        settings: Those of the source that they come from; the sections source, weights and requeue are used.

    Returns:
        `generation, batch_id, record`, `reasons` under the present settings, and `line`: the record as the stream reads
        it, a JSON object with the names of `source.columns`.
    """
    source, correction = settings.source, settings.requeue
    # Only JSON is kept as it was read; of other formats the quarantine has a JSON object.
    options = source.options if source.format == "json" else {}
    names: dict[str, str | None] = source.columns.model_dump()
    found = names | dict(correction.columns)
    events = parse_json(rows.withColumnRenamed(REASONS, _BEFORE), found, options)
    again = with_reasons(events.withColumn(EVENT_TYPE, _replaced(EVENT_TYPE, correction.event_types)), settings)
    # The text in the quarantine has lost the bytes that made such a record bad.
    lost = F.exists(_BEFORE, lambda reason: reason.endswith(_NOT_UTF8))
    written = {name: F.col(column).alias(name) for column, name in names.items() if name is not None}
    return again.select(
        *KEY,
        F.when(lost, F.col(_BEFORE)).otherwise(F.col(REASONS)).alias(REASONS),
        F.to_json(F.struct(*written.values())).alias(LINE),
    )


def good(rows: DataFrame) -> pa.Table:
    """The good ones of judged rows on the driver: key, `line` and `records`, one row per key, in order of the keys."""
    lines = rows.filter(is_good()).groupBy(*KEY).agg(F.first(LINE).alias(LINE), F.count("*").alias(RECORDS))
    return lines.toArrow().sort_by([(column, "ascending") for column in KEY])


def record(tables: Tables, rows: pa.Table, file: str, app_id: str) -> None:
    """Record rows of `good` as requeued in a file, once for each `app_id`."""
    size, now = rows.num_rows, datetime.now(UTC)
    noted = rows.select([*KEY, RECORDS])
    noted = noted.append_column(FILE, pa.repeat(pa.scalar(file), size))
    noted = noted.append_column("requeued_at", pa.repeat(pa.scalar(now, pa.timestamp("us", "UTC")), size))
    tables.append(REQUEUED, noted, app_id, 0)


def recorded_files(tables: Tables) -> Sequence[str]:
    """Paths of all files that are recorded."""
    records = tables.read(REQUEUED).filter(F.col(RECORD) != _WHOLE_BATCH)
    return sorted(row[FILE] for row in records.select(FILE).distinct().collect())


def request(tables: Tables, step: StepId, events: int, times: int) -> None:
    """Ask for a batch that was set aside, once for each `times`, the number of earlier requests for it."""
    row = {GENERATION: step.generation, BATCH: step.batch_id, RECORD: _WHOLE_BATCH, RECORDS: events, FILE: ""}
    rows = pa.Table.from_pylist([{**row, "requeued_at": datetime.now(UTC)}], _REQUESTS)
    tables.append(REQUEUED, rows, f"recsys:requeue:batch {step}", times)


def requests(tables: Tables, generation: int) -> Counter[int]:
    """How often each batch of a generation was asked for, by id."""
    if not tables.exists(REQUEUED):
        return Counter()
    rows = tables.rows(REQUEUED, [BATCH, RECORD], of_generation(generation)).to_pylist()
    return Counter(row[BATCH] for row in rows if row[RECORD] == _WHOLE_BATCH)


def _replaced(column: str, replacements: dict[str, str]) -> Column:
    cases = [F.when(F.col(column) == wrong, F.lit(right)) for wrong, right in replacements.items()]
    return F.coalesce(*cases, F.col(column))

"""The interaction log: what every micro-batch added, one row per (user, item). It is the write-ahead log of the model.

The rows a model learns from are collected from Spark once, as Arrow, and that same Arrow table is appended: what is in
the log and what was learned cannot differ.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys.config.sections import EventWeight
from recsys.contracts import (
    BATCH,
    EVENTS,
    FIRST_TIME,
    GENERATION,
    INGESTED_AT,
    INTERACTION_LOG,
    ITEM,
    LAST_TIME,
    USER,
    WEIGHT,
    InteractionBatch,
    StepId,
)
from recsys.tables.clean import TOTALS, aggregate, is_good, weigh
from recsys.tables.delta import Tables

# Rows of a batch on the driver.
ROWS = pa.schema(
    {
        USER: pa.string(),
        ITEM: pa.string(),
        WEIGHT: pa.float64(),
        EVENTS: pa.int64(),
        FIRST_TIME: pa.timestamp("us", "UTC"),
        LAST_TIME: pa.timestamp("us", "UTC"),
    }
)
_BY_IDS = [(USER, "ascending"), (ITEM, "ascending")]


@dataclass(frozen=True)
class BatchCounts:
    """What a batch held.

    Attributes:
        records: records after de-duplication, good and bad.
        quarantined: the bad ones among them.
        ingested_at: when Spark planned the batch (UTC); None if it held no record.
    """

    records: int
    quarantined: int
    ingested_at: datetime | None


def collect(tagged: DataFrame, weights: Mapping[str, EventWeight]) -> tuple[pa.Table, BatchCounts]:
    """Aggregate the good events of a tagged batch and bring them to the driver, in one Spark action.

    Returns:
        The rows, in the schema `ROWS`, sorted by the bytes of user and item id, and the batch's counts.
    """
    # Bad records become one more group, that of the null ids: so they are counted without a second pass.
    ids = {column: F.when(is_good(), F.col(column)) for column in (USER, ITEM)}
    groups = aggregate(weigh(tagged.withColumns(ids), weights)).toArrow()
    bad = pc.is_null(groups[USER])
    counts = BatchCounts(
        records=pc.sum(groups[EVENTS]).as_py() or 0,
        quarantined=pc.sum(groups[EVENTS].filter(bad)).as_py() or 0,
        ingested_at=pc.max(groups[INGESTED_AT]).as_py(),
    )
    return _sorted(groups.filter(pc.invert(bad)).select(TOTALS)), counts


def append(tables: Tables, rows: pa.Table, step: StepId, app_id: str) -> int:
    """Append a batch's rows once.

    Args:
        tables: The tables.
        rows: As `collect` returned them.
        step: Their step; the batch id is the version of the transaction.
        app_id: Identifies the stream; the same after every restart.

    Returns:
        Delta version of the log that holds the rows; its latest if there is none to write, or if they were there.
    """
    if rows.num_rows == 0:
        return tables.version(INTERACTION_LOG)
    numbers = {GENERATION: step.generation, BATCH: step.batch_id}
    constants = [pa.repeat(pa.scalar(number, pa.int64()), rows.num_rows) for number in numbers.values()]
    numbered = pa.table([*constants, *rows.columns], names=[*numbers, *rows.column_names])
    # One file per batch: the rows are few, and they stay in order.
    frame = tables.spark.createDataFrame(numbered).coalesce(1)
    return tables.append(INTERACTION_LOG, frame, app_id, step.batch_id)


def to_batch(rows: pa.Table) -> InteractionBatch:
    """Turn rows, as `collect` returns them, into what the model learns from."""
    return InteractionBatch(
        user_ids=rows[USER].to_pylist(),
        item_ids=rows[ITEM].to_pylist(),
        weights=rows[WEIGHT].to_numpy(),
        events=rows[EVENTS].to_numpy(),
        times=rows[LAST_TIME].cast(pa.int64()).to_numpy() / 1e6,
    )


def read_batch(tables: Tables, step: StepId) -> pa.Table:
    """Read one batch's rows back, as `collect` returned them; no rows if the log does not have the batch."""
    rows = tables.read(INTERACTION_LOG).filter((F.col(GENERATION) == step.generation) & (F.col(BATCH) == step.batch_id))
    return _sorted(rows.select(*TOTALS).toArrow())


def batches_after(tables: Tables, step: StepId, through: StepId) -> Iterator[tuple[StepId, InteractionBatch]]:
    """Read the batches after one step, up to and with another, in order. Batches without good events are left out."""
    wanted = after(step) & ~after(through)
    return _batches(tables.read(INTERACTION_LOG).filter(wanted))


def everything(tables: Tables, version: int | None = None) -> Iterator[tuple[StepId, InteractionBatch]]:
    """Read every batch of the log in order, as the log is now or as of a Delta version."""
    return _batches(tables.read(INTERACTION_LOG, version))


def after(step: StepId) -> Column:
    """Condition on a table with steps: the row comes after this one."""
    generation, batch = F.col(GENERATION), F.col(BATCH)
    return (generation > step.generation) | ((generation == step.generation) & (batch > step.batch_id))


def last_step(tables: Tables, generation: int | None = None, name: str = INTERACTION_LOG) -> StepId | None:
    """Newest step of a table with steps, or of one of its generations; None if there is none."""
    rows = tables.read(name)
    if generation is not None:
        rows = rows.filter(F.col(GENERATION) == generation)
    newest = rows.agg(F.max(F.struct(GENERATION, BATCH)).alias("step")).select("step.*").collect()[0]
    return None if newest[GENERATION] is None else StepId(newest[GENERATION], newest[BATCH])


def _batches(rows: DataFrame) -> Iterator[tuple[StepId, InteractionBatch]]:
    """Cut rows of the log into batches.

    Only the numbers are sorted as a whole; the ids are sorted batch by batch, where they are few.
    """
    table = rows.select(GENERATION, BATCH, *TOTALS).toArrow()
    generations, batches = table[GENERATION].to_numpy(), table[BATCH].to_numpy()
    if table.num_rows == 0:
        return
    order = np.lexsort((batches, generations))
    table, generations, batches = table.take(order), generations[order], batches[order]
    starts = np.flatnonzero(np.diff(generations, prepend=-1) | np.diff(batches, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        step = StepId(int(generations[start]), int(batches[start]))
        yield step, to_batch(_sorted(table.slice(start, end - start).select(TOTALS)))


def _sorted(rows: pa.Table) -> pa.Table:
    return rows.sort_by(_BY_IDS).cast(ROWS).combine_chunks()

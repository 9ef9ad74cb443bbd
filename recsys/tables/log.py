"""The interaction log: what each micro-batch added, one row per (user, item). It is the write-ahead log of the model.

Rows are collected from Spark once, as an Arrow table, and that same table is appended and learned. So the log and the
model cannot differ.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

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
    INTERACTION_LOG,
    ITEM,
    LAST_TIME,
    REASONS,
    USER,
    WEIGHT,
    InteractionBatch,
    StepId,
)
from recsys.tables.clean import TOTALS, aggregate, is_good, weigh
from recsys.tables.delta import Tables

# Schema of a batch on the driver.
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
_BETWEEN_REASONS = "\n"
_BY_IDS = [(USER, "ascending"), (ITEM, "ascending")]


@dataclass(frozen=True)
class BatchCounts:
    """Counts of a batch.

    Attributes:
        records: records after de-duplication, good and bad.
        quarantined: bad records among them.
        reasons: number of bad records by reason; a record may have several.
    """

    records: int
    quarantined: int
    reasons: Mapping[str, int] = field(default_factory=dict)


def collect(tagged: DataFrame, weights: Mapping[str, EventWeight]) -> tuple[pa.Table, BatchCounts]:
    """Aggregate the good events of a tagged batch and collect them on the driver, in one Spark action.

    Returns:
        The rows, in the schema `ROWS`, sorted by the bytes of user and item id, and the batch's counts.
    """
    # Bad records become groups with their reasons in place of an item, so they are counted without a second pass.
    user = F.when(is_good(), F.col(USER))
    item = F.when(is_good(), F.col(ITEM)).otherwise(F.array_join(REASONS, _BETWEEN_REASONS))
    groups = aggregate(weigh(tagged.withColumns({USER: user, ITEM: item}), weights)).toArrow()
    bad = pc.is_null(groups[USER])
    rejected = groups.filter(bad)
    counts = BatchCounts(
        records=pc.sum(groups[EVENTS]).as_py() or 0,
        quarantined=pc.sum(rejected[EVENTS]).as_py() or 0,
        reasons=_by_reason(rejected[ITEM].to_pylist(), rejected[EVENTS].to_pylist()),
    )
    return _sorted(groups.filter(pc.invert(bad)).select(TOTALS)), counts


def _by_reason(joined: Sequence[str], records: Sequence[int]) -> dict[str, int]:
    """Records by reason, in alphabetical order, from records by all reasons of a record."""
    counts: Counter[str] = Counter()
    for reasons, number in zip(joined, records, strict=True):
        counts.update(dict.fromkeys(reasons.split(_BETWEEN_REASONS), number))
    return dict(sorted(counts.items()))


def append(tables: Tables, rows: pa.Table, step: StepId, app_id: str, input_fingerprint: str | None = None) -> int:
    """Append a batch's rows once.

    Args:
        tables: The tables.
        rows: As `collect` returned them.
        step: Step of the batch; the batch id is the transaction version.
        app_id: Identifies the stream; the same after every restart.
        input_fingerprint: Fingerprint of what the batch read, see `tables.checkpoint.Plan`; stored with the commit.

    Returns:
        Delta version of the log that holds the rows; the latest version if there are none, or if they were there.
    """
    if rows.num_rows == 0:
        return tables.version(INTERACTION_LOG)
    numbers = {GENERATION: step.generation, BATCH: step.batch_id}
    constants = [pa.repeat(pa.scalar(number, pa.int64()), rows.num_rows) for number in numbers.values()]
    numbered = pa.table([*constants, *rows.columns], names=[*numbers, *rows.column_names])
    # One file per batch, because the rows are few and have to stay in order.
    frame = tables.spark.createDataFrame(numbered).coalesce(1)
    return tables.append(INTERACTION_LOG, frame, app_id, step.batch_id, user_metadata=input_fingerprint)


def to_batch(rows: pa.Table) -> InteractionBatch:
    """Convert rows, as `collect` returns them, to a batch for the model."""
    return InteractionBatch(
        user_ids=rows[USER].to_pylist(),
        item_ids=rows[ITEM].to_pylist(),
        weights=rows[WEIGHT].to_numpy(),
        events=rows[EVENTS].to_numpy(),
        times=rows[LAST_TIME].cast(pa.int64()).to_numpy() / 1e6,
    )


def read_batch(tables: Tables, step: StepId) -> pa.Table:
    """Read the rows of a batch, as `collect` returned them; no rows if the log does not have the batch."""
    rows = tables.read(INTERACTION_LOG).filter((F.col(GENERATION) == step.generation) & (F.col(BATCH) == step.batch_id))
    return _sorted(rows.select(*TOTALS).toArrow())


def batches_after(tables: Tables, step: StepId, through: StepId) -> Iterator[tuple[StepId, InteractionBatch]]:
    """Read the batches after `step`, through `through`, in order. Batches without good events are skipped."""
    wanted = after(step) & ~after(through)
    return _batches(tables.read(INTERACTION_LOG).filter(wanted))


def everything(tables: Tables, version: int | None = None) -> Iterator[tuple[StepId, InteractionBatch]]:
    """Read every batch of the log in order, at its latest version or at a given Delta version."""
    return _batches(tables.read(INTERACTION_LOG, version))


def after(step: StepId) -> Column:
    """Condition on a table with steps: the row comes after `step`."""
    generation, batch = F.col(GENERATION), F.col(BATCH)
    return (generation > step.generation) | ((generation == step.generation) & (batch > step.batch_id))


def last_step(tables: Tables, generation: int | None = None, name: str = INTERACTION_LOG) -> StepId | None:
    """Latest step of a table with steps, or of one of its generations; None if there is none."""
    rows = tables.read(name)
    if generation is not None:
        rows = rows.filter(F.col(GENERATION) == generation)
    newest = rows.agg(F.max(F.struct(GENERATION, BATCH)).alias("step")).select("step.*").collect()[0]
    return None if newest[GENERATION] is None else StepId(newest[GENERATION], newest[BATCH])


def _batches(rows: DataFrame) -> Iterator[tuple[StepId, InteractionBatch]]:
    """Split rows of the log into batches.

    The whole table is sorted by step only. Ids are sorted within each batch, where they are few.
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

"""The interaction log: what each micro-batch added, one row per (user, item) and hour of event time.

It is the write-ahead log of the model. Rows are collected from Spark once, as an Arrow table, and that same table is
appended and learned. So the log and the model cannot differ.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.config.sections import EventWeight
from recsys.contracts import (
    BATCH,
    EVENTS,
    FIRST_TIME,
    GENERATION,
    IMPRESSIONS,
    INTERACTION_LOG,
    ITEM,
    LAST_TIME,
    LIST_ID,
    REASONS,
    USER,
    WEIGHT,
    Contents,
    InteractionBatch,
    Left,
    StepId,
)
from recsys.tables.clean import TOTALS, aggregate, is_good, is_listed, weigh
from recsys.tables.conditions import between, of_step
from recsys.tables.delta import Tables

# Schema of a batch on the driver.
ROWS = pa.schema(
    {
        # 64-bit offsets: the ids of a batch may pass 2 GiB.
        USER: pa.large_string(),
        ITEM: pa.large_string(),
        WEIGHT: pa.float64(),
        EVENTS: pa.int64(),
        FIRST_TIME: pa.timestamp("us", "UTC"),
        LAST_TIME: pa.timestamp("us", "UTC"),
        IMPRESSIONS: pa.int64(),
    }
)
# How many rows of the log are in memory at once, if its batches are smaller.
ROWS_AT_ONCE = 1_000_000
_BETWEEN_REASONS = "\n"
_LISTED = "listed"
# Column: a row has impressions only.
_ONLY = "shown_only"
_IN_ORDER = [(column, "ascending") for column in (USER, ITEM, LAST_TIME)]


@dataclass(frozen=True)
class BatchCounts:
    """Counts of a batch.

    Attributes:
        records: records after de-duplication, good and bad.
        quarantined: bad records among them.
        reasons: number of bad records by reason; a record may have several.
        listed: good records that say which recommendations they answer.
    """

    records: int
    quarantined: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    listed: int = 0


def collect(tagged: DataFrame, weights: Mapping[str, EventWeight]) -> tuple[pa.Table, BatchCounts]:
    """Aggregate the good events of a tagged batch and collect them on the driver, in one Spark action.

    Args:
        tagged: With the columns of `clean.tag`.
        weights: Weight of each event type.

    Returns:
        The rows, in the schema `ROWS`, sorted by the bytes of user and item id and by time, and the batch's counts.
    """
    # Bad records become groups with their reasons in place of an item, so they are counted without a second pass.
    user = F.when(is_good(), F.col(USER))
    item = F.when(is_good(), F.col(ITEM)).otherwise(F.array_join(REASONS, _BETWEEN_REASONS))
    listed = is_listed().cast("bigint") if LIST_ID in tagged.columns else F.lit(0).cast("bigint")
    weighed = weigh(tagged.withColumns({USER: user, ITEM: item, _LISTED: listed}), weights)
    groups = aggregate(weighed, sums=[_LISTED]).toArrow()
    bad = pc.is_null(groups[USER])
    rejected = groups.filter(bad)
    counts = BatchCounts(
        records=pc.sum(groups[EVENTS]).as_py() or 0,
        quarantined=pc.sum(rejected[EVENTS]).as_py() or 0,
        reasons=_by_reason(rejected[ITEM].to_pylist(), rejected[EVENTS].to_pylist()),
        listed=pc.sum(groups[_LISTED]).as_py() or 0,
    )
    return sorted_rows(groups.filter(pc.invert(bad))), counts


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
    return tables.append(INTERACTION_LOG, numbered, app_id, step.batch_id, user_metadata=input_fingerprint)


def to_batch(rows: pa.Table) -> InteractionBatch:
    """Convert rows, as `collect` returns them, to a batch for the model."""
    impressions = rows[IMPRESSIONS].to_numpy()
    left = Left()
    if impressions.any():
        shown_only = impressions == rows[EVENTS].to_numpy()
        left = _left(rows, shown_only, int(impressions.sum()))
        rows = rows.filter(pa.array(~shown_only))
        impressions = impressions[~shown_only]
    return InteractionBatch(
        user_ids=rows[USER].to_pylist(),
        item_ids=rows[ITEM].to_pylist(),
        weights=rows[WEIGHT].to_numpy(),
        events=rows[EVENTS].to_numpy() - impressions,
        times=rows[LAST_TIME].cast(pa.int64()).to_numpy() / 1e6,
        left=left,
    )


def _left(rows: pa.Table, shown_only: npt.NDArray[np.bool_], impressions: int) -> Left:
    """The pairs of rows (n,), sorted by pair, none of which has an interaction."""
    pairs = rows.select([USER, ITEM]).append_column(_ONLY, pa.array(shown_only))
    # In one thread, so that pairs stay in their order.
    found = pairs.group_by([USER, ITEM], use_threads=False).aggregate([(_ONLY, "all")])
    kept = found.filter(found[f"{_ONLY}_all"])
    return Left(kept[USER].to_pylist(), kept[ITEM].to_pylist(), impressions)


def joined(batches: Sequence[InteractionBatch]) -> InteractionBatch:
    """The rows of several batches as one, in the order that a batch has.

    Of several vectors of an item that of the first batch that has one counts.
    """
    rows = pa.table(
        {
            USER: pa.array([user for batch in batches for user in batch.user_ids], pa.string()),
            ITEM: pa.array([item for batch in batches for item in batch.item_ids], pa.string()),
            WEIGHT: np.concatenate([batch.weights for batch in batches]),
            EVENTS: np.concatenate([batch.events for batch in batches]),
            LAST_TIME: np.concatenate([batch.times for batch in batches]),
        }
    ).sort_by(_IN_ORDER)
    taken = {pair for batch in batches for pair in zip(batch.user_ids, batch.item_ids, strict=True)}
    shown = {pair for batch in batches for pair in zip(batch.left.user_ids, batch.left.item_ids, strict=True)}
    left = sorted(shown - taken)
    brought: dict[str, npt.NDArray[np.int8]] = {}
    for batch in batches:
        for item, vector in zip(batch.contents.item_ids, batch.contents.vectors, strict=True):
            brought.setdefault(item, vector)
    return InteractionBatch(
        user_ids=rows[USER].to_pylist(),
        item_ids=rows[ITEM].to_pylist(),
        weights=rows[WEIGHT].to_numpy(),
        events=rows[EVENTS].to_numpy(),
        times=rows[LAST_TIME].to_numpy(),
        left=Left(
            [user for user, _ in left],
            [item for _, item in left],
            sum(batch.left.impressions for batch in batches),
        ),
        contents=Contents(list(brought), np.stack(list(brought.values()))) if brought else Contents(),
    )


def read_batch(tables: Tables, step: StepId) -> pa.Table:
    """Read the rows of a batch, as `collect` returned them; no rows if the log does not have the batch."""
    return sorted_rows(tables.rows(INTERACTION_LOG, TOTALS, of_step(step)))


def interacted(tables: Tables) -> DataFrame:
    """`user_id`, `item_id` of all pairs with an interaction, for executors; a pair has a row for each batch."""
    rows = tables.read(INTERACTION_LOG)
    return rows.where(F.col(EVENTS) > F.coalesce(IMPRESSIONS, F.lit(0))).select(USER, ITEM)


def batches(
    tables: Tables, after: StepId | None = None, through: StepId | None = None, version: int | None = None
) -> Iterator[tuple[StepId, InteractionBatch]]:
    """Read batches in order. Batches without good events are skipped.

    The log is read in ranges of steps of about a million rows, so memory does not follow its length.

    Args:
        tables: The tables.
        after: The first batch is the one after this step; None for the first of all.
        through: The last batch; None for the last of all.
        version: Delta version of the log; None for the latest.
    """
    counts = tables.rows_by_step(INTERACTION_LOG, between(after, through), version)
    for steps in _ranges(counts, ROWS_AT_ONCE):
        before = StepId(steps[0].generation, steps[0].batch_id - 1)
        rows = tables.rows(INTERACTION_LOG, [GENERATION, BATCH, *TOTALS], between(before, steps[-1]), version)
        yield from _batches(rows)


def last_step(tables: Tables, generation: int | None = None, name: str = INTERACTION_LOG) -> StepId | None:
    """Latest step of a table with steps, or of one of its generations; None if there is none."""
    span = tables.span(name, generation)
    return None if span is None else span[1]


def last_input(tables: Tables) -> str | None:
    """Fingerprint of what the last batch in the log has read; None if the last hundred commits do not say."""
    noted = (commit.get("userMetadata") for commit in tables.commits(INTERACTION_LOG, 100))
    return next((text for text in noted if text is not None), None)


def _ranges(counts: Mapping[StepId, int], at_once: int) -> Iterator[list[StepId]]:
    """Cut steps in order into ranges of about so many rows; a range has at least one step."""
    steps: list[StepId] = []
    rows = 0
    for step, count in counts.items():
        if steps and rows + count > at_once:
            yield steps
            steps, rows = [], 0
        steps.append(step)
        rows += count
    if steps:
        yield steps


def _batches(table: pa.Table) -> Iterator[tuple[StepId, InteractionBatch]]:
    """Split rows of the log into batches."""
    generations, numbers = table[GENERATION].to_numpy(), table[BATCH].to_numpy()
    order = np.lexsort((numbers, generations))
    table, generations, numbers = table.take(order), generations[order], numbers[order]
    starts = np.flatnonzero(np.diff(generations, prepend=-1) | np.diff(numbers, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        step = StepId(int(generations[start]), int(numbers[start]))
        yield step, to_batch(sorted_rows(table.slice(start, end - start)))


def sorted_rows(rows: pa.Table) -> pa.Table:
    """Rows of one batch, in the schema `ROWS`, sorted by the bytes of user and item id, and by time."""
    chosen = rows.select(TOTALS)
    # Rows of a table that had no such column are null there.
    counted = pc.fill_null(chosen[IMPRESSIONS], 0)
    chosen = chosen.set_column(chosen.schema.get_field_index(IMPRESSIONS), IMPRESSIONS, counted)
    return chosen.cast(ROWS).sort_by(_IN_ORDER).combine_chunks()

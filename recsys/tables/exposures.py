"""The table `exposures`: which lists of recommendations were shown to whom, and what became of them, by batch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys.config.experiment import Experiment
from recsys.config.sections import EventWeight
from recsys.contracts import (
    BATCH,
    CLICKS,
    CONTROL_CLICKS,
    CONTROL_IMPRESSIONS,
    EXPLORED_CLICKS,
    EXPLORED_IMPRESSIONS,
    EXPLORED_ITEM,
    EXPOSURES,
    GENERATION,
    IMPRESSIONS,
    INGESTED_AT,
    ITEM,
    LIST_ID,
    PROPENSITY,
    RANKING,
    TABLE_SCHEMAS,
    USER,
    WEIGHT,
    StepId,
)
from recsys.experiment import arms_of
from recsys.exposure import CONTROL_MARK, EXPLORED_MARK, ITEM_DIGITS, Origin, rates_by_group
from recsys.tables.clean import is_listed, weigh
from recsys.tables.conditions import between, of_step
from recsys.tables.delta import Tables

# Of a batch, for the ledger: items of lists that were shown, and clicks on them.
METRICS = {IMPRESSIONS: "exposure/impressions", CLICKS: "exposure/clicks"}
_COLUMNS = pa.schema(
    [
        (GENERATION, pa.int64()),
        (BATCH, pa.int64()),
        # 64-bit offsets: the ids of a batch may pass 2 GiB.
        (USER, pa.large_string()),
        (LIST_ID, pa.large_string()),
        ("model_name", pa.string()),
        ("model_version", pa.string()),
        (RANKING, pa.string()),
        (PROPENSITY, pa.float64()),
        (IMPRESSIONS, pa.int64()),
        (CLICKS, pa.int64()),
        (INGESTED_AT, pa.timestamp("us", "UTC")),
        (EXPLORED_ITEM, pa.large_string()),
        (EXPLORED_IMPRESSIONS, pa.int64()),
        (EXPLORED_CLICKS, pa.int64()),
        (CONTROL_IMPRESSIONS, pa.int64()),
        (CONTROL_CLICKS, pa.int64()),
    ]
)


def append(
    tables: Tables,
    tagged: DataFrame,
    weights: Mapping[str, EventWeight],
    step: StepId,
    app_id: str,
    in_bulk: bool = False,
) -> None:
    """Append what a batch says about lists, once.

    An item of a list counts as shown once, and as clicked once: by any event of positive weight that answers the list.
    One in an explored place counts there, and not for the list, whose version and ranking did not choose it.
    This goes through the batch again, so skip it if `log.collect` counted no such records.

    Args:
        tables: The tables.
        tagged: The batch, tagged, with a column `list_id`.
        weights: Weight of each event type.
        step: Step of the batch; the batch id is the transaction version.
        app_id: Identifies the stream; the same after every restart.
        in_bulk: Leave the rows to Spark, because they may be too many for the driver.
    """
    clicked = (F.col(IMPRESSIONS) == 0) & (F.col(WEIGHT) > 0)
    items = weigh(tagged.filter(is_listed()), weights).groupBy(USER, LIST_ID, ITEM)
    each = items.agg(
        F.max(IMPRESSIONS).alias(IMPRESSIONS),
        F.max(clicked.cast("bigint")).alias(CLICKS),
        F.max(INGESTED_AT).alias(INGESTED_AT),
    )
    explored, control = (_in_place(mark) for mark in (EXPLORED_MARK, CONTROL_MARK))
    sums = {
        name: F.sum(F.when(where, F.col(count)))
        for where, names in (
            (~explored, (IMPRESSIONS, CLICKS)),
            (explored, (EXPLORED_IMPRESSIONS, EXPLORED_CLICKS)),
            (control, (CONTROL_IMPRESSIONS, CONTROL_CLICKS)),
        )
        for name, count in zip(names, (IMPRESSIONS, CLICKS), strict=True)
    }
    sums |= {name: F.coalesce(sums[name], F.lit(0)) for name in (IMPRESSIONS, CLICKS)}
    counted = each.groupBy(USER, LIST_ID).agg(
        F.max(F.when(explored, F.col(ITEM))).alias(EXPLORED_ITEM),
        F.max(INGESTED_AT).alias(INGESTED_AT),
        *(total.alias(name) for name, total in sums.items()),
    )
    if not in_bulk:
        rows = _rows(counted.toArrow(), step).sort_by([(name, "ascending") for name in (USER, LIST_ID)])
        tables.append(EXPOSURES, rows, app_id, step.batch_id)
        return

    def with_origins(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from _rows(pa.Table.from_batches([batch]), step).to_batches()

    frame = counted.mapInArrow(with_origins, TABLE_SCHEMAS[EXPOSURES].replace(" NOT NULL", ""))
    tables.append(EXPOSURES, frame, app_id, step.batch_id)


def figures(tables: Tables, step: StepId, experiment: Experiment) -> dict[str, float]:
    """What a batch says about lists, for the ledger; nothing if it says nothing.

    Args:
        tables: The tables.
        step: Step of the batch.
        experiment: The figures of its arms are among them, if there are any.

    Returns:
        Sums by the names of `METRICS`. Of each arm `experiment/ARM/impressions` and `experiment/ARM/clicks`, and where
        the batch has enough users `experiment/ARM/click_rate`, and the ends of its interval, `..._lower`, `..._upper`.
    """
    rows = tables.rows(EXPOSURES, [USER, PROPENSITY, *METRICS], of_step(step))
    if not len(rows):
        return {}
    found = {metric: float(pc.sum(rows[name]).as_py()) for name, metric in METRICS.items()}
    if not experiment.arms:
        return found
    rows = rows.filter(pc.is_valid(rows[PROPENSITY]))
    users = rows[USER].combine_chunks().dictionary_encode()
    codes = users.indices.to_numpy().astype(np.int64)
    arms = arms_of(users.dictionary.to_pylist(), experiment)[codes]
    impressions, clicks = (rows[name].to_numpy() for name in METRICS)
    rates = rates_by_group(arms, len(experiment.arms), codes, impressions, clicks)
    for arm, group in zip(experiment.arms, rates, strict=True):
        found[f"experiment/{arm}/impressions"] = float(group.impressions)
        found[f"experiment/{arm}/clicks"] = float(group.clicks)
        if group.observed is not None:
            found[f"experiment/{arm}/click_rate"] = group.observed.rate
            found[f"experiment/{arm}/click_rate_lower"] = group.observed.lower
            found[f"experiment/{arm}/click_rate_upper"] = group.observed.upper
    return found


def _in_place(mark: str) -> Column:
    """Whether an item stands in the place of a list of which the list's id tells by a mark."""
    digest = F.substring(F.sha2(ITEM, 256), 1, ITEM_DIGITS)
    of_list = F.substring(LIST_ID, -ITEM_DIGITS - 1, ITEM_DIGITS + 1)
    return F.startswith(of_list, F.lit(mark)) & (F.concat(F.lit(mark), digest) == of_list)


@dataclass(frozen=True)
class ExploredCounts:
    """What was shown in explored places, and clicked.

    Attributes:
        items: impressions and clicks by item.
        control: impressions and clicks in the same place of the controls.
    """

    items: dict[str, tuple[int, int]]
    control: tuple[int, int]


def explored(tables: Tables, since: datetime) -> ExploredCounts:
    """Counts of explored places, and of their controls, in what has come in since a time."""
    shown = tables.read(EXPOSURES).where(F.col(INGESTED_AT) >= F.lit(since))
    told = shown.where(F.isnotnull(EXPLORED_ITEM) | F.isnotnull(CONTROL_IMPRESSIONS))
    names = EXPLORED_IMPRESSIONS, EXPLORED_CLICKS, CONTROL_IMPRESSIONS, CONTROL_CLICKS
    sums = told.groupBy(EXPLORED_ITEM).agg(*(F.coalesce(F.sum(name), F.lit(0)).alias(name) for name in names))
    items, control = dict[str, tuple[int, int]](), (0, 0)
    for item, *counts in sums.collect():
        if item is None:
            control = counts[2], counts[3]
        else:
            items[item] = counts[0], counts[1]
    return ExploredCounts(items, control)


def newest(tables: Tables, after: StepId | None) -> pa.Table:
    """Read the rows of the batches after a step (None: all), without generation, batch and time."""
    names = [USER, LIST_ID, "model_name", "model_version", RANKING, PROPENSITY, IMPRESSIONS, CLICKS]
    return tables.rows(EXPOSURES, names, between(after, None))


def _rows(counted: pa.Table, step: StepId) -> pa.Table:
    """With where the lists come from."""
    encoded = counted[LIST_ID].cast(pa.large_string()).combine_chunks().dictionary_encode()
    origins = [Origin.of(list_id) for list_id in encoded.dictionary.to_pylist()]

    def of_origin(field: pa.Field) -> pa.Array:
        values = [None if origin is None else getattr(origin, field.name) for origin in origins]
        return pa.array(values, field.type).take(encoded.indices)

    numbers = {GENERATION: step.generation, BATCH: step.batch_id}
    columns = []
    for field in _COLUMNS:
        if field.name in numbers:
            columns.append(pa.repeat(pa.scalar(numbers[field.name], field.type), len(counted)))
        elif field.name in counted.column_names:
            columns.append(counted[field.name].cast(field.type))
        else:
            columns.append(of_origin(field))
    return pa.table(columns, _COLUMNS)

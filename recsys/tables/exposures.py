"""The table `exposures`: which lists of recommendations were shown to whom, and what became of them, by batch."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.config.sections import EventWeight
from recsys.contracts import (
    BATCH,
    CLICKS,
    EXPOSURES,
    GENERATION,
    IMPRESSIONS,
    INGESTED_AT,
    LIST_ID,
    PROPENSITY,
    RANKING,
    USER,
    WEIGHT,
    StepId,
)
from recsys.exposure import Origin
from recsys.tables.clean import is_listed, weigh
from recsys.tables.conditions import of_step
from recsys.tables.delta import Tables

# Of a batch, for the ledger: items of lists that were shown, and clicks on them.
METRICS = {IMPRESSIONS: "exposure/impressions", CLICKS: "exposure/clicks"}
_COLUMNS = pa.schema(
    [
        (GENERATION, pa.int64()),
        (BATCH, pa.int64()),
        (USER, pa.string()),
        (LIST_ID, pa.string()),
        ("model_name", pa.string()),
        ("model_version", pa.string()),
        (RANKING, pa.string()),
        (PROPENSITY, pa.float64()),
        (IMPRESSIONS, pa.int64()),
        (CLICKS, pa.int64()),
        (INGESTED_AT, pa.timestamp("us", "UTC")),
    ]
)


def append(tables: Tables, tagged: DataFrame, weights: Mapping[str, EventWeight], step: StepId, app_id: str) -> int:
    """Append what a batch says about lists, once.

    A click is an event of positive weight that answers a list. This computes the batch a second time, so skip it if
    `log.collect` counted no such records.

    Args:
        tables: The tables.
        tagged: The batch, tagged, with a column `list_id`.
        weights: Weight of each event type.
        step: Step of the batch; the batch id is the transaction version.
        app_id: Identifies the stream; the same after every restart.

    Returns:
        Delta version of `exposures` that holds the rows.
    """
    clicked = F.when((F.col(IMPRESSIONS) == 0) & (F.col(WEIGHT) > 0), 1).otherwise(0)
    listed = weigh(tagged.filter(is_listed()), weights).groupBy(USER, LIST_ID)
    counted = listed.agg(
        F.sum(IMPRESSIONS).alias(IMPRESSIONS),
        F.sum(clicked).alias(CLICKS),
        F.max(INGESTED_AT).alias(INGESTED_AT),
    )
    return tables.append(EXPOSURES, _rows(counted.toArrow(), step), app_id, step.batch_id)


def figures(tables: Tables, step: StepId) -> dict[str, float]:
    """Sums of a batch, for the ledger; none if it says nothing about lists."""
    rows = tables.rows(EXPOSURES, list(METRICS), of_step(step))
    return {metric: float(pc.sum(rows[name]).as_py()) for name, metric in METRICS.items()} if len(rows) else {}


def _rows(counted: pa.Table, step: StepId) -> pa.Table:
    """With where the lists come from."""
    encoded = counted[LIST_ID].combine_chunks().dictionary_encode()
    origins = [Origin.of(list_id) for list_id in encoded.dictionary.to_pylist()]
    places = encoded.indices.to_pylist()

    def of_origin(name: str) -> list[object]:
        values = [None if origin is None else getattr(origin, name) for origin in origins]
        return [values[place] for place in places]

    known = {name: of_origin(name) for name in ("model_name", "model_version", RANKING, PROPENSITY)}
    numbers = {GENERATION: [step.generation] * len(counted), BATCH: [step.batch_id] * len(counted)}
    given = {name: counted[name] for name in (USER, LIST_ID, IMPRESSIONS, CLICKS, INGESTED_AT)}
    columns = {**numbers, **known, **given}
    arrays = [
        column.cast(field.type) if isinstance(column, pa.ChunkedArray) else pa.array(column, field.type)
        for field in _COLUMNS
        for column in [columns[field.name]]
    ]
    order = [(name, "ascending") for name in (USER, LIST_ID)]
    return pa.Table.from_arrays(arrays, schema=_COLUMNS).sort_by(order)

"""Refreshes the totals in `interactions` from the log.

The last step that the totals include is stored in the same commit as the totals, so the two cannot disagree, whenever
the job dies.
"""

import json

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from recsys.contracts import (
    BATCH,
    EVENTS,
    FIRST_TIME,
    GENERATION,
    IMPRESSIONS,
    INTERACTION_LOG,
    INTERACTIONS,
    ITEM,
    LAST_TIME,
    USER,
    WEIGHT,
    StepId,
)
from recsys.tables import log
from recsys.tables.clean import TOTALS, totals
from recsys.tables.conditions import Conditions, between, to_column
from recsys.tables.delta import Tables

_TAKEN = " of what was taken"
# Commits that leave the rows unchanged. After any other commit that is not a refresh, the totals cannot be trusted.
_KEEP_ROWS = {"CREATE TABLE", "SET TBLPROPERTIES", "OPTIMIZE", "VACUUM START", "VACUUM END"}
# So many rows are merged on the driver, which starts sooner than Spark does.
THROUGH_DRIVER = 1_000_000
# More totals than that are written again only when the log has grown by a share of them. So a row of the log causes at
# most 1 + 1 / share rows to be written, however long the history is.
SHARE = 1 / 8


def refresh(tables: Tables) -> StepId | None:
    """Add the rows of the log that `interactions` does not include yet, in one atomic commit.

    If it is unknown what the totals include (a new table, or one that was restored or written by hand), they are
    recomputed from the whole log. Sums of weights are exact, so every schedule of refreshes gives the same bits.
    Nothing is done while large totals lack only a small share, see `SHARE`.

    Returns:
        The last step that the totals include; None if the log is empty.
    """
    included, newest = refreshed_through(tables), log.last_step(tables)
    if newest is None or included == newest:
        return included
    missing = between(included, newest)
    present = 0 if included is None else tables.count(INTERACTIONS)
    added = sum(tables.rows_by_step(INTERACTION_LOG, missing).values())
    few = present + added <= THROUGH_DRIVER
    if not few and added < present * SHARE:
        return included
    merged = _merged_on_driver if few else _merged_by_spark
    watermark = json.dumps({GENERATION: newest.generation, BATCH: newest.batch_id})
    tables.overwrite(INTERACTIONS, merged(tables, missing, keep=included is not None), watermark)
    return newest


def _merged_on_driver(tables: Tables, missing: Conditions, keep: bool) -> pa.Table:
    parts = [tables.rows(INTERACTION_LOG, TOTALS, missing), *([tables.rows(INTERACTIONS, TOTALS)] if keep else [])]
    rows = pa.concat_tables(parts)
    impressions = pc.fill_null(rows[IMPRESSIONS], 0)
    rows = rows.set_column(rows.schema.get_field_index(IMPRESSIONS), IMPRESSIONS, impressions)
    # As in `clean.totals`: what was only shown has times of its own only where there are no others.
    taken = pc.greater(rows[EVENTS], impressions)
    for name in (FIRST_TIME, LAST_TIME):
        rows = rows.append_column(f"{name}{_TAKEN}", pc.if_else(taken, rows[name], None))
    kinds = {WEIGHT: "sum", EVENTS: "sum", FIRST_TIME: "min", LAST_TIME: "max", IMPRESSIONS: "sum"}
    kinds |= {f"{FIRST_TIME}{_TAKEN}": "min", f"{LAST_TIME}{_TAKEN}": "max"}
    merged = rows.group_by([USER, ITEM], use_threads=False).aggregate(list(kinds.items()))
    found = {column: merged[f"{column}_{kind}"] for column, kind in kinds.items()}
    for name in (FIRST_TIME, LAST_TIME):
        found[name] = pc.coalesce(found[f"{name}{_TAKEN}"], found[name])
    return pa.table({name: merged[name] if name in (USER, ITEM) else found[name] for name in TOTALS})


def _merged_by_spark(tables: Tables, missing: Conditions, keep: bool) -> DataFrame:
    rows = tables.read(INTERACTION_LOG).filter(to_column(missing)).select(*TOTALS)
    return totals(tables.read(INTERACTIONS).unionByName(rows) if keep else rows)


def refreshed_through(tables: Tables) -> StepId | None:
    """Last step that `interactions` includes, read from its history; None if the history does not say."""
    changes = (commit for commit in tables.commits(INTERACTIONS, 100) if commit["operation"] not in _KEEP_ROWS)
    last = next(changes, None)
    noted = None if last is None else last.get("userMetadata")
    if noted is None:
        return None
    watermark = json.loads(noted)
    return StepId(watermark[GENERATION], watermark[BATCH])

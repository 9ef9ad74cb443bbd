"""Refreshes the totals in `interactions` from the log.

The last step that the totals include is stored in the same commit as the totals, so the two cannot disagree, whenever
the job dies.
"""

import json

from pyspark.sql import functions as F

from recsys.contracts import BATCH, GENERATION, INTERACTION_LOG, INTERACTIONS, StepId
from recsys.tables import log
from recsys.tables.clean import TOTALS, totals
from recsys.tables.delta import Tables

# Commits that leave the rows unchanged. After any other commit that is not a refresh, the totals cannot be trusted.
_KEEP_ROWS = {"CREATE TABLE", "SET TBLPROPERTIES", "OPTIMIZE", "VACUUM START", "VACUUM END"}
_BEFORE_ALL = StepId(-1, -1)


def refresh(tables: Tables) -> StepId | None:
    """Add the rows of the log that `interactions` does not include yet, in one atomic commit.

    If it is unknown what the totals include (a new table, or one that was restored or written by hand), they are
    recomputed from the whole log. Sums of weights are exact, so every schedule of refreshes gives the same bits.

    Returns:
        The last step that the totals include; None if the log is empty.
    """
    included, newest = refreshed_through(tables), log.last_step(tables)
    if newest is None or included == newest:
        return included
    added = tables.read(INTERACTION_LOG).filter(log.after(included or _BEFORE_ALL) & ~log.after(newest))
    if included is not None:
        added = tables.read(INTERACTIONS).unionByName(added.select(*TOTALS))
    watermark = json.dumps({GENERATION: newest.generation, BATCH: newest.batch_id})
    tables.overwrite(INTERACTIONS, totals(added), watermark)
    return newest


def refreshed_through(tables: Tables) -> StepId | None:
    """Last step that `interactions` includes, read from its history; None if the history does not say."""
    history = tables.handle(INTERACTIONS).history().select("version", "operation", "userMetadata")
    changes = history.filter(~F.col("operation").isin(*_KEEP_ROWS)).orderBy(F.desc("version")).take(1)
    if not changes or changes[0].userMetadata is None:
        return None
    watermark = json.loads(changes[0].userMetadata)
    return StepId(watermark[GENERATION], watermark[BATCH])

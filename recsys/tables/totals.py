"""The fold: brings the totals in `interactions` up to date with the log.

How far the totals go is kept in the very commit that wrote them, so the two cannot disagree, whenever the job dies.
"""

import json

from pyspark.sql import functions as F

from recsys.contracts import BATCH, GENERATION, INTERACTION_LOG, INTERACTIONS, StepId
from recsys.tables import log
from recsys.tables.clean import TOTALS, totals
from recsys.tables.delta import Tables

# Commits that leave a table's rows as they are; any other that is not a fold makes the totals untrustworthy.
_KEEP_ROWS = {"CREATE TABLE", "SET TBLPROPERTIES", "OPTIMIZE", "VACUUM START", "VACUUM END"}
_BEFORE_ALL = StepId(-1, -1)


def refresh(tables: Tables) -> StepId | None:
    """Add the log's rows that `interactions` does not hold yet, in one atomic commit.

    If nobody can say how far the totals go (a new table, one restored or written by hand), they are made anew from the
    whole log. Weights are added in the order of the steps: any schedule of folds gives the same bits.

    Returns:
        The last step that is folded in; None if the log is empty.
    """
    folded, newest = refreshed_through(tables), log.last_step(tables)
    if newest is None or folded == newest:
        return folded
    added = tables.read(INTERACTION_LOG).filter(log.after(folded or _BEFORE_ALL) & ~log.after(newest))
    if folded is not None:
        step = [
            F.lit(number).cast("bigint").alias(c) for c, number in ((GENERATION, _BEFORE_ALL.generation), (BATCH, -1))
        ]
        added = tables.read(INTERACTIONS).select(*step, *TOTALS).unionByName(added)
    watermark = json.dumps({GENERATION: newest.generation, BATCH: newest.batch_id})
    tables.overwrite(INTERACTIONS, totals(added, [GENERATION, BATCH]), watermark)
    return newest


def refreshed_through(tables: Tables) -> StepId | None:
    """Last step that `interactions` holds, as its history tells; None if it does not tell."""
    history = tables.handle(INTERACTIONS).history().select("version", "operation", "userMetadata")
    changes = history.filter(~F.col("operation").isin(*_KEEP_ROWS)).orderBy(F.desc("version")).take(1)
    if not changes or changes[0].userMetadata is None:
        return None
    watermark = json.loads(changes[0].userMetadata)
    return StepId(watermark[GENERATION], watermark[BATCH])

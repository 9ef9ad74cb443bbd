"""Upkeep of the tables while a stream writes to them: compaction, retention of old rows, vacuum.

The stream only appends to the tables that are compacted here, and an append never fails because of this. A compaction
commits beside appends, too. A deletion does not: it starts again after an append, and gives up for this time where
appends are too frequent. `recommendations` and the tables of vectors get a small file, and marks for rows that are
gone, whenever rows of them change. A compaction beside `batch_score` makes one of the two fail, and its next run does
the work. `interactions` is overwritten as a whole, so there is nothing to compact in it, and only files that it no
longer uses are removed.
"""

from collections.abc import Callable
from datetime import datetime

from delta.exceptions import ConcurrentAppendException, ConcurrentDeleteDeleteException, ConcurrentDeleteReadException
from pyspark.sql import Column
from pyspark.sql import functions as F

from recsys.contracts import (
    EXPOSURES,
    INGESTED_AT,
    INTERACTION_LOG,
    ITEM_CONTENTS,
    MODEL_UPDATES,
    QUARANTINE,
    RECOMMENDATIONS,
    SCORING_RUNS,
    TRIALS,
    VECTOR_SCHEMAS,
    StepId,
)
from recsys.tables.conditions import between, to_column
from recsys.tables.delta import Tables

# Tables to which every batch, or every scoring, adds a file.
GROWING = (
    INTERACTION_LOG,
    MODEL_UPDATES,
    QUARANTINE,
    EXPOSURES,
    ITEM_CONTENTS,
    TRIALS,
    RECOMMENDATIONS,
    SCORING_RUNS,
    *VECTOR_SCHEMAS,
)
# Spark lists at most this many files of a vacuum that is only tried.
VACUUM_LISTS = 1000
_ATTEMPTS = 10
_CONFLICTS = (ConcurrentAppendException, ConcurrentDeleteReadException, ConcurrentDeleteDeleteException)


def count_files(tables: Tables, name: str) -> int:
    """Number of files that the latest version of a table consists of."""
    return int(tables.handle(name).detail().select("numFiles").collect()[0][0])


def compact(tables: Tables, name: str) -> tuple[int, int]:
    """Join small files of a table; its rows stay the same, and so do earlier versions until they are vacuumed.

    Returns:
        Number of files that were joined, and of those that have their rows now.
    """
    metrics = tables.handle(name).optimize().executeCompaction().select("metrics.*").collect()[0]
    return int(metrics.numFilesRemoved), int(metrics.numFilesAdded)


def count_old_rows(tables: Tables, name: str, before: datetime, through: StepId) -> int:
    """Number of rows that `delete_old_rows` would delete."""
    return tables.read(name).filter(_is_old(before, through)).count()


def delete_old_rows(tables: Tables, name: str, before: datetime, through: StepId) -> bool:
    """Delete old rows; returns False where the stream appended to the table at every attempt.

    Args:
        tables: The tables.
        name: A table with steps and `ingested_at`.
        before: Rows of batches that were ingested before this time are deleted.
        through: Last step in the ledger. A batch that is not in it yet still needs its rows.
    """
    return succeeds(lambda: tables.handle(name).delete(_is_old(before, through)))


def count_unused_files(tables: Tables, name: str) -> int:
    """Number of files that `vacuum` would remove, counted up to `VACUUM_LISTS` where Spark counts them."""
    return tables.unused_files(name)


def vacuum(tables: Tables, name: str) -> None:
    """Remove files that no recent version of a table uses; older versions can no longer be read.

    What is recent is the table's property `delta.deletedFileRetentionDuration`, a week by default. Delta ignores a
    retention that is given with the command, and a change of the property would end the appends beside it.
    """
    tables.spark.sql(f"VACUUM {tables.sql_name(name)}").collect()


def _is_old(before: datetime, through: StepId) -> Column:
    return (F.col(INGESTED_AT) < F.lit(before)) & to_column(between(None, through))


def succeeds(change: Callable[[], object]) -> bool:
    """Make a change to a table, again where a commit of another job came between; returns False if one always did."""
    for _ in range(_ATTEMPTS):
        try:
            change()
        except _CONFLICTS:
            continue
        return True
    return False

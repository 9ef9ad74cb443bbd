"""The table `recommendations`: a row for each user, written only where a list has changed."""

from dataclasses import dataclass

from pyspark.sql import DataFrame

from recsys.contracts import ITEM, RECOMMENDATIONS, USER
from recsys.tables.delta import Tables

# Without deletion vectors, one row that changes has its whole file written again. The change feed tells consumers that
# keep a copy what to update.
_PROPERTIES = {"delta.enableDeletionVectors": "true", "delta.enableChangeDataFeed": "true"}
# Another version, another time or another score alone is no other list.
_CHANGED = f"NOT (old.items.{ITEM} <=> new.items.{ITEM}) OR old.model_name <> new.model_name"


@dataclass(frozen=True)
class Synced:
    """What became of the rows.

    Attributes:
        written: users with a new list, or another one than before.
        removed: users who have none any more.
    """

    written: int
    removed: int


def sync(tables: Tables, frame: DataFrame) -> Synced:
    """Make the table hold these lists, in one commit: a reader sees the lists of before or the new ones, never a mix.

    The row of a user whose items are the same, in the same order, stays as it is, with the version and the scores of
    the run that made it.

    Args:
        tables: The tables.
        frame: One row per user, with the columns of the table.
    """
    rows = frame.select(USER, "items", "model_name", "model_version", "scored_at")
    if not _prepared(tables):
        tables.overwrite(RECOMMENDATIONS, rows)  # With nothing to compare with, this is a third of the work.
        return Synced(tables.read(RECOMMENDATIONS).count(), 0)
    merge = (
        tables.handle(RECOMMENDATIONS)
        .alias("old")
        .merge(rows.alias("new"), f"old.{USER} = new.{USER}")
        .whenMatchedUpdateAll(condition=_CHANGED)
        .whenNotMatchedInsertAll()
        .whenNotMatchedBySourceDelete()
    )
    done = merge.execute().collect()[0]
    return Synced(int(done.num_updated_rows + done.num_inserted_rows), int(done.num_deleted_rows))


def _prepared(tables: Tables) -> bool:
    """Whether the table has rows; its properties, which one that was made elsewhere lacks, are set."""
    found = tables.handle(RECOMMENDATIONS).detail().select("properties", "numFiles").collect()[0]
    if not _PROPERTIES.items() <= found.properties.items():
        pairs = ", ".join(f"'{key}' = '{value}'" for key, value in _PROPERTIES.items())
        tables.spark.sql(f"ALTER TABLE {tables.sql_name(RECOMMENDATIONS)} SET TBLPROPERTIES ({pairs})")
    return bool(found.numFiles)

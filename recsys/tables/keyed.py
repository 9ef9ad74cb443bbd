"""Tables with one row per key, in which a run writes only the rows that have changed."""

from dataclasses import dataclass

from pyspark.sql import DataFrame

from recsys.tables.delta import Tables

# Without deletion vectors, one row that changes has its whole file written again. The change feed tells consumers that
# keep a copy what to update.
_PROPERTIES = {"delta.enableDeletionVectors": "true", "delta.enableChangeDataFeed": "true"}


@dataclass(frozen=True)
class Synced:
    """What became of the rows.

    Attributes:
        written: keys with a new row, or another one than before.
        removed: keys that have none any more.
    """

    written: int
    removed: int


def sync(tables: Tables, name: str, frame: DataFrame, key: str, changed: str, others_stay: bool = False) -> Synced:
    """Make a table hold these rows, in one commit: a reader sees the rows of before or the new ones, never a mix.

    Args:
        tables: The tables.
        name: The table.
        frame: One row per key, with the columns of the table.
        key: Column with the key.
        changed: Whether a row `new` differs from the row `old` of its key, in SQL; if not, the old one stays.
        others_stay: Keep the rows of keys that the frame does not have.
    """
    if not _prepared(tables, name):
        tables.overwrite(name, frame)  # With nothing to compare with, this is a third of the work.
        return Synced(tables.read(name).count(), 0)
    merge = (
        tables.handle(name)
        .alias("old")
        .merge(frame.alias("new"), f"old.{key} = new.{key}")
        .whenMatchedUpdateAll(condition=changed)
        .whenNotMatchedInsertAll()
    )
    if not others_stay:
        merge = merge.whenNotMatchedBySourceDelete()
    done = merge.execute().collect()[0]
    return Synced(int(done.num_updated_rows + done.num_inserted_rows), int(done.num_deleted_rows))


def _prepared(tables: Tables, name: str) -> bool:
    """Whether the table has rows; its properties, which one that was made elsewhere lacks, are set."""
    found = tables.handle(name).detail().select("properties", "numFiles").collect()[0]
    if not _PROPERTIES.items() <= found.properties.items():
        pairs = ", ".join(f"'{key}' = '{value}'" for key, value in _PROPERTIES.items())
        tables.spark.sql(f"ALTER TABLE {tables.sql_name(name)} SET TBLPROPERTIES ({pairs})")
    return bool(found.numFiles)

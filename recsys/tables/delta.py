"""Access to the Delta tables: by path under the storage root, or by name in a catalog."""

from collections.abc import Mapping
from typing import cast

from delta import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, DataFrameWriter, SparkSession
from pyspark.sql.types import StructField, StructType

from recsys.config.sections import Storage
from recsys.contracts import INTERACTION_LOG, MODEL_UPDATES, QUARANTINE, TABLE_SCHEMAS
from recsys.errors import InputError
from recsys.storage import table_path
from recsys.tables.failures import first_line

# Session setting in which Delta records the version of its last commit.
LAST_COMMIT = "spark.databricks.delta.lastCommitVersionInSession"

# A stream commits all the time: with a checkpoint of the Delta log every 10 commits, one batch in ten waits for it.
# Statistics cover the two leading columns only, generation and batch id, because these tables are read by them.
_STREAMED = {"delta.checkpointInterval": "100", "delta.dataSkippingNumIndexedCols": "2"}
PROPERTIES = {INTERACTION_LOG: _STREAMED, QUARANTINE: _STREAMED, MODEL_UPDATES: _STREAMED}


# What an earlier release called the column `generation`.
_EARLIER_GENERATION = "epoch"


class Tables:
    """The tables of one storage root or catalog schema.

    Args:
        spark: Session that reads and writes the tables.
        storage: Where the tables are.
    """

    def __init__(self, spark: SparkSession, storage: Storage) -> None:
        self.spark = spark
        self._storage = storage

    def location(self, name: str) -> str:
        """Path or `catalog.schema.name` of a table, for messages."""
        if self._storage.catalog:
            return f"{self._storage.catalog}.{name}"
        return table_path(self._storage.root, name)

    def create_missing(self, schemas: Mapping[str, str] = TABLE_SCHEMAS) -> None:
        """Create missing tables, and add the columns that tables of an earlier release lack.

        Args:
            schemas: Column definitions by table.

        Raises:
            InputError: the storage cannot be written to, or has a table of this name with other columns, such as one
                that an earlier release made.
        """
        for name, columns in schemas.items():
            wanted = cast(StructType, StructType.fromDDL(columns))
            try:
                found = self._create(name, columns).toDF().schema
                if _lacks_last_columns(found, wanted):
                    self._add_columns(name, wanted.fields[len(found) :])
                    found = self.handle(name).toDF().schema
            except (PySparkException, Py4JJavaError) as error:
                self._refuse_earlier_release(name, self._present_columns(name))
                raise InputError(f"cannot create table {self.location(name)}: {first_line(error)}") from error
            self._refuse_earlier_release(name, found.names)
            # Spark reports all columns of a table as nullable, even inside structs, so only names and types count.
            if found.simpleString() != wanted.simpleString():
                raise InputError(
                    f"table {self.location(name)} has columns of another kind ({found.simpleString():.200}): "
                    "set storage.root to another folder"
                )

    def read(self, name: str, version: int | None = None) -> DataFrame:
        """Read a table, at its latest version or at a given Delta version."""
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        return reader.table(self._identifier(name)) if self._storage.catalog else reader.load(self.location(name))

    def append(
        self, name: str, rows: DataFrame, app_id: str, txn_version: int, user_metadata: str | None = None
    ) -> int:
        """Append rows once: a write with an (app_id, txn_version) that the table has committed before is a no-op.

        Args:
            name: The table.
            rows: The rows.
            app_id: Identifies the writer; the same after every restart.
            txn_version: Number of the write; it increases from commit to commit.
            user_metadata: Text stored with the commit in the table's history.

        Returns:
            Delta version that holds the rows; the latest version if they were there already.
        """
        writer = rows.write.format("delta").mode("append")
        if user_metadata is not None:
            writer = writer.option("userMetadata", user_metadata)
        return self._commit(name, rows, writer.option("txnAppId", app_id).option("txnVersion", txn_version))

    def overwrite(self, name: str, rows: DataFrame, user_metadata: str | None = None) -> int:
        """Replace all rows of a table in one commit.

        Args:
            name: The table.
            rows: The new rows; they may be computed from the old ones.
            user_metadata: Text stored with the commit in the table's history.

        Returns:
            Delta version of the commit.
        """
        writer = rows.write.format("delta").mode("overwrite")
        if user_metadata is not None:
            writer = writer.option("userMetadata", user_metadata)
        return self._commit(name, rows, writer)

    def last_user_metadata(self, name: str) -> str | None:
        """Text stored with the last commit of a table that has one, of the last hundred."""
        noted = self.handle(name).history(100).filter("userMetadata IS NOT NULL").orderBy("version", ascending=False)
        newest = noted.select("userMetadata").first()
        return None if newest is None else str(newest[0])

    def version(self, name: str) -> int:
        """Latest Delta version of a table."""
        return int(self.handle(name).history(1).select("version").collect()[0][0])

    def identity(self, name: str) -> str:
        """Delta's id of a table. It survives a move; a table that is created again has another one."""
        return str(self.handle(name).detail().select("id").collect()[0][0])

    def handle(self, name: str) -> DeltaTable:
        """`DeltaTable` of a table, for its history and maintenance."""
        if self._storage.catalog:
            return DeltaTable.forName(self.spark, self._identifier(name))
        return DeltaTable.forPath(self.spark, self.location(name))

    def exists(self, name: str) -> bool:
        """Whether a table has been made."""
        if self._storage.catalog:
            return self.spark.catalog.tableExists(self._identifier(name))
        return DeltaTable.isDeltaTable(self.spark, self.location(name))

    def sql_name(self, name: str) -> str:
        """What a table is called in SQL, for statements that have no other interface."""
        if self._storage.catalog:
            return self._identifier(name)
        return f"delta.`{self.location(name).replace('`', '``')}`"

    def _present_columns(self, name: str) -> list[str]:
        """Columns of a table, none if it is not there or cannot be read."""
        try:
            return self.handle(name).toDF().columns
        except (PySparkException, Py4JJavaError):
            return []

    def _refuse_earlier_release(self, name: str, columns: list[str]) -> None:
        if _EARLIER_GENERATION in columns:
            place = "storage.catalog to a new schema" if self._storage.catalog else "storage.root to a new folder"
            raise InputError(
                f"table {self.location(name)} was made by an earlier release (it has a column "
                f"'{_EARLIER_GENERATION}'), and this release reads only its own tables: set {place}, and read the "
                f"events again from the start"
            )

    def _create(self, name: str, columns: str) -> DeltaTable:
        properties = PROPERTIES.get(name, {})
        if self._storage.catalog:
            # SQL from our own constants, because the builder takes no three-part name.
            pairs = ", ".join(f"'{key}' = '{value}'" for key, value in properties.items())
            listed = f"TBLPROPERTIES ({pairs})" if pairs else ""
            self.spark.sql(f"CREATE TABLE IF NOT EXISTS {self._identifier(name)} ({columns}) USING DELTA {listed}")
            return self.handle(name)
        defined = cast(StructType, StructType.fromDDL(columns))
        builder = DeltaTable.createIfNotExists(self.spark).addColumns(defined).location(self.location(name))
        for key, value in properties.items():
            builder = builder.property(key, value)
        return builder.execute()

    def _add_columns(self, name: str, columns: list[StructField]) -> None:
        added = ", ".join(f"{column.name} {column.dataType.simpleString()}" for column in columns)
        self.spark.sql(f"ALTER TABLE {self.sql_name(name)} ADD COLUMNS ({added})")

    def _commit(self, name: str, rows: DataFrame, writer: DataFrameWriter) -> int:
        # Inside foreachBatch the rows belong to a clone of the session, and Delta records the version there.
        session = rows.sparkSession
        session.conf.unset(LAST_COMMIT)
        if self._storage.catalog:
            writer.saveAsTable(self._identifier(name))
        else:
            writer.save(self.location(name))
        made = session.conf.get(LAST_COMMIT, None)
        return int(made) if made is not None else self.version(name)

    def _identifier(self, name: str) -> str:
        parts = [*(self._storage.catalog or "").split("."), name]
        return ".".join(f"`{part.replace('`', '``')}`" for part in parts)


def _lacks_last_columns(found: StructType, wanted: StructType) -> bool:
    """Whether a table lacks nothing but the last columns, which are nullable."""
    first, last = StructType(wanted.fields[: len(found)]), wanted.fields[len(found) :]
    return bool(last) and found.simpleString() == first.simpleString() and all(column.nullable for column in last)

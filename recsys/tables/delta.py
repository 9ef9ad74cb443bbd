"""Access to the Delta tables: by path or URI under the storage root, or by name in a catalog.

Large reads and writes are Spark's. What the driver reads or appends itself goes through delta-rs where the tables are
on a path, see `path_table`, and through Spark in a catalog, which may manage the commits of its tables.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
from delta import DeltaTable
from deltalake.exceptions import DeltaError
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructField, StructType

from recsys.config.sections import Storage
from recsys.contracts import (
    ALERTS,
    EXPOSURES,
    INTERACTION_LOG,
    ITEM_CONTENTS,
    MODEL_UPDATES,
    QUARANTINE,
    RECOMMENDATIONS,
    REQUEUED,
    TABLE_SCHEMAS,
    TRIALS,
    UPKEEP,
    VECTOR_SCHEMAS,
    WRITERS,
    StepId,
)
from recsys.errors import InputError
from recsys.remote import is_uri
from recsys.storage import table_path
from recsys.tables.conditions import Conditions
from recsys.tables.failures import explain_failure, first_line
from recsys.tables.path_table import PathTable
from recsys.tables.session import session_beside
from recsys.tables.spark_table import SparkTable

# A stream commits all the time: with a checkpoint of the Delta log every 10 commits, one batch in ten waits for it.
# Statistics cover the two leading columns only, generation and batch id, because these tables are read by them.
_STREAMED = {"delta.checkpointInterval": "100", "delta.dataSkippingNumIndexedCols": "2"}
PROPERTIES = {
    INTERACTION_LOG: _STREAMED,
    QUARANTINE: _STREAMED,
    MODEL_UPDATES: _STREAMED,
    ALERTS: _STREAMED,
    TRIALS: _STREAMED,
    EXPOSURES: _STREAMED,
    ITEM_CONTENTS: _STREAMED,
    # One row that is replaced every few minutes: the history of a day is enough.
    **{
        name: {f"delta.{kept}RetentionDuration": "interval 1 days" for kept in ("deletedFile", "log")}
        for name in (WRITERS, UPKEEP)
    },
}
# The tables that only the holder of the lease may append to. The totals say themselves how far they are, and an alert
# harms nothing.
FENCED = (INTERACTION_LOG, QUARANTINE, MODEL_UPDATES, TRIALS, EXPOSURES, ITEM_CONTENTS)
# Spark alone writes their rows, with deletion vectors.
_WRITTEN_BY_SPARK = (RECOMMENDATIONS, *VECTOR_SCHEMAS)

# What an earlier release called the column `generation`.
_EARLIER_GENERATION = "epoch"


@dataclass(frozen=True)
class Fence:
    """What keeps a writer that has lost its lease from writing.

    Attributes:
        token: Token of the lease; commits of delta-rs carry it, and fail if the table has another one.
        check: Called before commits of Spark, which cannot carry it; raises if the lease is lost.
    """

    token: int
    check: Callable[[], None]


class Tables:
    """The tables of one storage root or catalog schema.

    Args:
        spark: Session that reads and writes the tables; None to read, where `read_on_driver` says that it is enough.
        storage: Where the tables are.

    Attributes:
        fence: That of the lease that this process holds, see `tables.lease`; None while it holds none.
    """

    def __init__(self, spark: SparkSession | None, storage: Storage) -> None:
        self._spark = spark
        self.fence: Fence | None = None
        self._storage = storage
        named = bool(storage.catalog)
        names = (*TABLE_SCHEMAS, REQUEUED, UPKEEP, *VECTOR_SCHEMAS)
        places = {name: self._identifier(name) if named else self.location(name) for name in names}
        self._by_spark = {} if spark is None else {name: SparkTable(spark, at, named) for name, at in places.items()}
        local = {name: PathTable(place, name in _WRITTEN_BY_SPARK) for name, place in places.items()}
        self._on_path = local if read_on_driver(storage) else {}

    def beside(self) -> "Tables":
        """The same tables for another thread, with the same fence: neither a session nor a table may be shared.

        In a session Delta notes its last commit, and a table on a path keeps its state between calls.
        """
        other = Tables(None if self._spark is None else session_beside(self._spark), self._storage)
        other.fence = self.fence
        return other

    @property
    def one_committer(self) -> bool:
        """Whether only one process at a time may commit with Spark, and none beside it.

        Delta's writer for S3 looks whether a commit is there before it puts one, in two steps: it can overwrite what
        another process has committed in between. Those of delta-rs are put under the condition that there is none.
        """
        return not self._storage.catalog and is_uri(self._storage.root)

    @property
    def spark(self) -> SparkSession:
        """The session."""
        assert self._spark is not None, "these tables are read on the driver"
        return self._spark

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
            OutsideDownError: the storage does not answer.
        """
        for name, columns in schemas.items():
            wanted = cast(StructType, StructType.fromDDL(columns))
            try:
                found = self._created(name, columns)
                if _lacks_last_columns(found, wanted):
                    self._add_columns(name, wanted.fields[len(found) :])
                    found = self._created(name, columns)
            except (PySparkException, Py4JJavaError, DeltaError, OSError) as error:
                explained = explain_failure(error)
                if explained is not None:
                    raise explained from error
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
        """Read a table with Spark, at its latest version or at a given Delta version."""
        return self._by_spark[name].read(version)

    def rows(
        self, name: str, columns: Sequence[str], where: Conditions = ((),), version: int | None = None
    ) -> pa.Table:
        """Rows on the driver, in no order; texts have 64-bit offsets where the table is on a path.

        Args:
            name: The table.
            columns: Names of the columns wanted.
            where: What must hold; by default all rows.
            version: Delta version; None for the latest.
        """
        return self._driver(name).rows(columns, where, version)

    def rows_by_step(self, name: str, where: Conditions, version: int | None = None) -> dict[StepId, int]:
        """Number of rows of each step, in the order of the steps.

        Args:
            name: A table with steps.
            where: What must hold.
            version: Delta version; None for the latest.
        """
        return self._driver(name).rows_by_step(where, version)

    def span(self, name: str, generation: int | None = None) -> tuple[StepId, StepId] | None:
        """First and last step of a generation in a table, by default the latest; None if there is no row of it."""
        return self._driver(name).span(generation)

    def append(
        self, name: str, rows: pa.Table | DataFrame, app_id: str, txn_version: int, user_metadata: str | None = None
    ) -> int:
        """Append rows once: a write with an (app_id, txn_version) that the table has committed before is a no-op.

        Args:
            name: The table.
            rows: The rows: an Arrow table, or a Spark frame where they are too many for the driver.
            app_id: Identifies the writer; the same after every restart.
            txn_version: Number of the write; it increases from commit to commit.
            user_metadata: Text stored with the commit in the table's history.

        Returns:
            Delta version that holds the rows; the latest version if they were there already.
        """
        if isinstance(rows, pa.Table) and self._on_path:
            token = self._token(name)
            return self._on_path[name].append(rows, app_id, txn_version, user_metadata, token)
        self._check_lease(name)
        return self._by_spark[name].append(self._frame(rows), app_id, txn_version, user_metadata)

    def overwrite(self, name: str, rows: pa.Table | DataFrame, user_metadata: str | None = None) -> int:
        """Replace all rows of a table in one commit.

        Args:
            name: The table.
            rows: The new rows; they may be computed from the old ones.
            user_metadata: Text stored with the commit in the table's history.

        Returns:
            Delta version of the commit.
        """
        if isinstance(rows, pa.Table) and self._on_path:
            return self._on_path[name].overwrite(rows, user_metadata)
        return self._by_spark[name].overwrite(self._frame(rows), user_metadata)

    def replace(self, name: str, rows: pa.Table, revision: int) -> bool:
        """Replace all rows of a table if its last revision is `revision - 1`; returns whether it was.

        Args:
            name: A table that is written in no other way.
            rows: The new rows.
            revision: At least 1; the first one needs a table without rows.
        """
        if self._on_path:
            return self._on_path[name].replace(rows, revision)
        return self._by_spark[name].replace(self._frame(rows), revision)

    def set_token(self, token: int) -> None:
        """From now on, only a writer whose lease has this token can append; in a catalog, this does nothing.

        Raises:
            LeaseError: the tables have a greater token.
        """
        for name in FENCED if self._on_path else ():
            self._on_path[name].set_token(token)

    def count(self, name: str) -> int:
        """Number of rows of a table."""
        return self._driver(name).count()

    def commits(self, name: str, limit: int | None = None) -> list[dict[str, Any]]:
        """The last commits of a table, newest first: `version`, `operation` and `userMetadata` of each, if it has one.

        Args:
            name: The table.
            limit: How many; None for all that the Delta log still has.
        """
        return self._driver(name).commits(limit)

    def version(self, name: str) -> int:
        """Latest Delta version of a table."""
        return self._driver(name).version()

    def columns(self, name: str) -> list[str]:
        """Names of the columns that a table has."""
        if self._on_path:
            return [field["name"] for field in json.loads(self._on_path[name].schema())["fields"]]
        return self.read(name).columns

    def identity(self, name: str) -> str:
        """Delta's id of a table. It survives a move; a table that is created again has another one."""
        return self._driver(name).identity()

    def unused_files(self, name: str) -> int:
        """Number of files that no recent version of a table uses, counted up to 1,000 where Spark counts them."""
        path = self._on_path.get(name)
        if path is not None and not path.rows_by_spark:
            return path.unused_files()  # Spark takes seconds.
        # In SQL, because DeltaTable.vacuum cannot be tried.
        return len(self.spark.sql(f"VACUUM {self.sql_name(name)} DRY RUN").collect())

    def handle(self, name: str) -> DeltaTable:
        """`DeltaTable` of a table, for its history and maintenance."""
        return self._by_spark[name].handle()

    def _driver(self, name: str) -> PathTable | SparkTable:
        """What the driver reads a table with."""
        return self._on_path[name] if self._on_path else self._by_spark[name]

    def _frame(self, rows: pa.Table | DataFrame) -> DataFrame:
        # One file: what the driver holds is small.
        return self.spark.createDataFrame(rows).coalesce(1) if isinstance(rows, pa.Table) else rows

    def exists(self, name: str) -> bool:
        """Whether a table has been made."""
        if self._storage.catalog:
            return self.spark.catalog.tableExists(self._identifier(name))
        return self._on_path[name].exists()

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

    def _created(self, name: str, columns: str) -> StructType:
        """Schema of a table, which is created if it is missing."""
        properties, defined = PROPERTIES.get(name, {}), cast(StructType, StructType.fromDDL(columns))
        if self._on_path:
            table = self._on_path[name]
            if not table.exists():
                table.create(defined.json(), properties)
            return StructType.fromJson(json.loads(table.schema()))
        # SQL from our own constants, because the builder takes no three-part name.
        pairs = ", ".join(f"'{key}' = '{value}'" for key, value in properties.items())
        listed = f"TBLPROPERTIES ({pairs})" if pairs else ""
        self.spark.sql(f"CREATE TABLE IF NOT EXISTS {self._identifier(name)} ({columns}) USING DELTA {listed}")
        return self.handle(name).toDF().schema

    def _add_columns(self, name: str, columns: list[StructField]) -> None:
        added = ", ".join(f"{column.name} {column.dataType.simpleString()}" for column in columns)
        self.spark.sql(f"ALTER TABLE {self.sql_name(name)} ADD COLUMNS ({added})")

    def _token(self, name: str) -> int | None:
        return self.fence.token if self.fence is not None and name in FENCED else None

    def _check_lease(self, name: str) -> None:
        if self.fence is not None and name in FENCED:
            self.fence.check()

    def _identifier(self, name: str) -> str:
        parts = [*(self._storage.catalog or "").split("."), name]
        return ".".join(f"`{part.replace('`', '``')}`" for part in parts)


def read_on_driver(storage: Storage) -> bool:
    """Whether the driver reads the tables by itself, because they are on a path."""
    return not storage.catalog


def _lacks_last_columns(found: StructType, wanted: StructType) -> bool:
    """Whether a table lacks nothing but the last columns, which are nullable."""
    first, last = StructType(wanted.fields[: len(found)]), wanted.fields[len(found) :]
    return bool(last) and found.simpleString() == first.simpleString() and all(column.nullable for column in last)

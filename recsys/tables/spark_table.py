"""A Delta table through Spark: in a catalog, or on a path for what is too much for the driver."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from delta import DeltaTable
from pyspark.sql import DataFrame, DataFrameWriter, SparkSession
from pyspark.sql import functions as F

from recsys.contracts import BATCH, GENERATION, StepId
from recsys.tables.conditions import Conditions, of_generation, to_column
from recsys.tables.path_table import WRITER

# Session setting in which Delta records the version of its last commit.
LAST_COMMIT = "spark.databricks.delta.lastCommitVersionInSession"


class SparkTable:
    """One table.

    Args:
        spark: session that reads and writes it.
        location: the folder, or the quoted name in a catalog.
        named: whether it is the name in a catalog.
    """

    def __init__(self, spark: SparkSession, location: str, named: bool) -> None:
        self.spark = spark
        self._location = location
        self._named = named

    def read(self, version: int | None = None) -> DataFrame:
        """The table, at its latest version or at a given Delta version."""
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        return reader.table(self._location) if self._named else reader.load(self._location)

    def handle(self) -> DeltaTable:
        """`DeltaTable` of the table, for its history and maintenance."""
        if self._named:
            return DeltaTable.forName(self.spark, self._location)
        return DeltaTable.forPath(self.spark, self._location)

    def version(self) -> int:
        """Latest Delta version."""
        return int(self.commits(1)[0]["version"])

    def identity(self) -> str:
        """Delta's id of the table."""
        return str(self.handle().detail().select("id").collect()[0][0])

    def commits(self, limit: int | None = None) -> list[dict[str, Any]]:
        """The last commits, newest first, as the Delta log describes them."""
        found = self.handle().history(limit).select("version", "operation", "userMetadata")
        return [row.asDict() for row in found.orderBy(F.desc("version")).collect()]

    def count(self) -> int:
        """Number of rows."""
        return self.read().count()

    def rows(self, columns: Sequence[str], where: Conditions, version: int | None = None) -> pa.Table:
        """Rows that meet the conditions, on the driver."""
        return self.read(version).filter(to_column(where)).select(*columns).toArrow()

    def rows_by_step(self, where: Conditions, version: int | None = None) -> dict[StepId, int]:
        """Number of rows of each step, in the order of the steps."""
        found = self.read(version).filter(to_column(where)).groupBy(GENERATION, BATCH).count()
        steps = {StepId(row[GENERATION], row[BATCH]): int(row["count"]) for row in found.collect()}
        return dict(sorted(steps.items()))

    def span(self, generation: int | None = None) -> tuple[StepId, StepId] | None:
        """First and last step of a generation, by default the latest; None if there is no row of it."""
        rows = self.read()
        if generation is None:
            generation = rows.agg(F.max(GENERATION)).collect()[0][0]
        if generation is None:
            return None
        first, last = rows.filter(to_column(of_generation(generation))).agg(F.min(BATCH), F.max(BATCH)).collect()[0]
        return None if first is None else (StepId(generation, first), StepId(generation, last))

    def append(self, rows: DataFrame, app_id: str, txn_version: int, user_metadata: str | None = None) -> int:
        """Append rows once, see `Tables.append`."""
        writer = _noted(rows.write.format("delta").mode("append"), user_metadata)
        return self._commit(rows, writer.option("txnAppId", app_id).option("txnVersion", txn_version))

    def overwrite(self, rows: DataFrame, user_metadata: str | None = None) -> int:
        """Replace all rows in one commit, see `Tables.overwrite`."""
        return self._commit(rows, _noted(rows.write.format("delta").mode("overwrite"), user_metadata))

    def replace(self, rows: DataFrame, revision: int) -> bool:
        """Replace all rows if the last revision of the table is before `revision`; returns whether it was."""
        writer = rows.write.format("delta").mode("overwrite").option("txnAppId", WRITER).option("txnVersion", revision)
        before = self.version()
        return self._commit(rows, writer) > before

    def _commit(self, rows: DataFrame, writer: DataFrameWriter) -> int:
        # Inside foreachBatch the rows belong to a clone of the session, and Delta records the version there.
        session = rows.sparkSession
        session.conf.unset(LAST_COMMIT)
        if self._named:
            writer.saveAsTable(self._location)
        else:
            writer.save(self._location)
        made = session.conf.get(LAST_COMMIT, None)
        return int(made) if made is not None else self.version()


def _noted(writer: DataFrameWriter, user_metadata: str | None) -> DataFrameWriter:
    return writer if user_metadata is None else writer.option("userMetadata", user_metadata)

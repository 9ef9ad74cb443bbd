"""A Delta table on a path, read and appended to on the driver, without Spark.

Spark's append under a transaction id takes about half a second, however few the rows are, because it reconstructs the
whole state of the table. delta-rs writes the same commit in milliseconds, and Spark reads it like its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake

from recsys.contracts import BATCH, GENERATION, StepId
from recsys.tables.conditions import Conditions, to_expression


class PathTable:
    """One table. Its state is kept between calls, and brought up to date by every call.

    Args:
        path: the folder of the table.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._opened: DeltaTable | None = None

    def exists(self) -> bool:
        """Whether there is a Delta table at the path."""
        return DeltaTable.is_deltatable(self.path)

    def create(self, schema: str, properties: Mapping[str, str]) -> None:
        """Create the table.

        Args:
            schema: as JSON, in Delta's and Spark's form.
            properties: properties of the table.
        """
        DeltaTable.create(self.path, schema=Schema.from_json(schema), configuration=dict(properties))

    def schema(self) -> str:
        """The schema as JSON, in Delta's and Spark's form."""
        return self._latest().schema().to_json()

    def version(self) -> int:
        """Latest Delta version."""
        return self._latest().version()

    def identity(self) -> str:
        """Delta's id of the table."""
        return str(self._latest().metadata().id)

    def commits(self, limit: int | None = None) -> list[dict[str, Any]]:
        """The last commits, newest first, as the Delta log describes them."""
        return self._latest().history(limit)

    def append(self, rows: pa.Table, app_id: str, txn_version: int, user_metadata: str | None = None) -> int:
        """Append rows once: a write with an (app_id, txn_version) that the table has committed before is a no-op.

        Args:
            rows: the rows.
            app_id: identifies the writer.
            txn_version: number of the write; it increases from commit to commit.
            user_metadata: text stored with the commit.

        Returns:
            Delta version that holds the rows; the latest version if they were there already.

        Raises:
            CommitFailedError: another writer has used the same app_id since this one last looked.
        """
        table = self._latest()
        # Nothing is refused because of its transaction id alone: whoever writes has to look.
        done = table.transaction_version(app_id)
        if done is not None and done >= txn_version:
            return table.version()
        noted = {} if user_metadata is None else {"userMetadata": user_metadata}
        commit = CommitProperties(custom_metadata=noted, app_transactions=[Transaction(app_id, txn_version)])
        write_deltalake(table, rows, mode="append", commit_properties=commit)
        return table.version()

    def overwrite(self, rows: pa.Table, user_metadata: str | None = None) -> int:
        """Replace all rows in one commit.

        Args:
            rows: the new rows.
            user_metadata: text stored with the commit.

        Returns:
            Delta version of the commit.
        """
        table = self._latest()
        noted = {} if user_metadata is None else {"userMetadata": user_metadata}
        write_deltalake(table, rows, mode="overwrite", commit_properties=CommitProperties(custom_metadata=noted))
        return table.version()

    def count(self) -> int:
        """Number of rows."""
        files = pa.table(self._latest().get_add_actions())
        return int(pc.sum(files["num_records"]).as_py() or 0)

    def rows(self, columns: Sequence[str], where: Conditions, version: int | None = None) -> pa.Table:
        """Rows that meet the conditions, texts with 64-bit offsets.

        Args:
            columns: names of the columns wanted.
            where: what must hold; files whose statistics exclude it are not read.
            version: Delta version; None for the latest.
        """
        return self._dataset(version).to_table(columns=list(columns), filter=to_expression(where))

    def parts(self, columns: Sequence[str], where: Conditions, version: int | None = None) -> Iterator[pa.RecordBatch]:
        """The same as `rows`, in parts of bounded size."""
        yield from self._dataset(version).to_batches(columns=list(columns), filter=to_expression(where))

    def span(self, generation: int | None = None) -> tuple[StepId, StepId] | None:
        """First and last step of a generation, by default the latest; None if there is no row of it.

        Files that hold one generation only, as all but compacted ones do, are known by their statistics.
        """
        files = pa.table(self._latest().get_add_actions(flatten=True))
        if files.num_rows == 0:
            return None
        bounds = [f"{end}.{column}" for column in (GENERATION, BATCH) for end in ("min", "max")]
        known = files.select(bounds) if set(bounds) <= set(files.column_names) else None
        if generation is None:
            generation = self._latest_generation(known)
        pure = [] if known is None else _batch_bounds(known, generation)
        same = (GENERATION, "==", generation)
        beyond: Conditions = [[same, (BATCH, "<", min(pure))], [same, (BATCH, ">", max(pure))]] if pure else [[same]]
        found = [*pure, *self.rows([BATCH], beyond)[BATCH].to_pylist()]
        return (StepId(generation, min(found)), StepId(generation, max(found))) if found else None

    def _latest_generation(self, known: pa.Table | None) -> int:
        if known is None or known[f"max.{GENERATION}"].null_count:
            return int(pc.max(self.rows([GENERATION], [[]])[GENERATION]).as_py())
        return int(pc.max(known[f"max.{GENERATION}"]).as_py())

    def _latest(self) -> DeltaTable:
        if self._opened is None:
            self._opened = DeltaTable(self.path)
        else:
            self._opened.update_incremental()
        return self._opened

    def _dataset(self, version: int | None) -> Any:
        table = self._latest() if version is None else DeltaTable(self.path, version=version)
        return table.to_pyarrow_dataset(as_large_types=True)


def _batch_bounds(known: pa.Table, generation: int) -> list[int]:
    """First and last batch of the files that hold one generation only; empty if there are none."""
    alone = pc.and_(pc.equal(known[f"min.{GENERATION}"], generation), pc.equal(known[f"max.{GENERATION}"], generation))
    of_one = known.filter(alone)
    if of_one.num_rows == 0:
        return []
    return [int(pc.min(of_one[f"min.{BATCH}"]).as_py()), int(pc.max(of_one[f"max.{BATCH}"]).as_py())]

"""A Delta table on a path, read and appended to on the driver, without Spark.

Spark's append under a transaction id takes about half a second, however few the rows are, because it reconstructs the
whole state of the table. delta-rs writes the same commit in milliseconds, and Spark reads it like its own.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from recsys.contracts import BATCH, GENERATION, StepId
from recsys.errors import InputError, LeaseError
from recsys.remote import RemotePath
from recsys.storage import place_of
from recsys.tables.conditions import Conditions, to_expression
from recsys.tables.failures import table_failures

# Application id under which every commit of a writer has the token of its lease. Delta lets no two commits that were
# made at the same time have one application id, so a writer whose lease was taken over cannot commit.
WRITER = "recsys:writer"
_TRIES = 20
# What delta-rs gives to Arrow: tables without deletion vectors and column mapping.
_READER_VERSION = 1
# A table is reopened after so many versions: delta-rs keeps about 75 kB of every commit that it follows.
_REOPEN_AFTER = 100


class PathTable:
    """One table. Its state is kept between calls, and brought up to date, or sometimes read again, by every call.

    Args:
        path: folder or URI of the table.
        rows_by_spark: whether only Spark reads and writes its rows, so that it may have features that Arrow has not.
    """

    def __init__(self, path: str, rows_by_spark: bool = False) -> None:
        self.path = path
        self.rows_by_spark = rows_by_spark
        self._opened: DeltaTable | None = None
        self._opened_at = 0

    def exists(self) -> bool:
        """Whether there is a Delta table at the path."""
        with table_failures(self.path, reading=False):
            return DeltaTable.is_deltatable(self.path)

    def create(self, schema: str, properties: Mapping[str, str]) -> None:
        """Create the table.

        Args:
            schema: as JSON, in Delta's and Spark's form.
            properties: properties of the table.
        """
        with table_failures(self.path, reading=False):
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

    def append(
        self, rows: pa.Table, app_id: str, txn_version: int, user_metadata: str | None = None, token: int | None = None
    ) -> int:
        """Append rows once: a write with an (app_id, txn_version) that the table has committed before is a no-op.

        Args:
            rows: the rows.
            app_id: identifies the writer.
            txn_version: number of the write; it increases from commit to commit.
            user_metadata: text stored with the commit.
            token: token of the writer's lease, see `set_token`.

        Returns:
            Delta version that holds the rows; the latest version if they were there already.

        Raises:
            CommitFailedError: another writer has used the same app_id since this one last looked.
            LeaseError: the table has another token.
        """
        # Nothing is refused because of its transaction id alone: whoever writes has to look.
        table = self._latest()
        done = table.transaction_version(app_id)
        if done is not None and done >= txn_version:
            return table.version()
        return self._write(table, rows, "append", user_metadata, token, Transaction(app_id, txn_version))

    def overwrite(self, rows: pa.Table, user_metadata: str | None = None) -> int:
        """Replace all rows in one commit.

        Args:
            rows: the new rows.
            user_metadata: text stored with the commit.

        Returns:
            Delta version of the commit.
        """
        return self._write(self._latest(), rows, "overwrite", user_metadata, None)

    def replace(self, rows: pa.Table, revision: int) -> bool:
        """Replace all rows if the last revision of the table is `revision - 1`; returns whether it was."""
        try:
            table = self._latest()
            if (table.transaction_version(WRITER) or 0) == revision - 1:
                self._write(table, rows, "overwrite", None, None, Transaction(WRITER, revision))
                return True
        except CommitFailedError:
            pass  # Another one was faster.
        return False

    def set_token(self, token: int) -> None:
        """From now on, only a writer with this token can append to the table.

        Raises:
            LeaseError: the table has a greater token.
        """
        for _ in range(_TRIES):
            table = self._latest()
            if (table.transaction_version(WRITER) or 0) > token:
                break
            nothing = pa.schema(table.schema().to_arrow()).empty_table()
            try:
                self._write(table, nothing, "append", None, None, Transaction(WRITER, token))
            except CommitFailedError:
                continue  # The writer before this one was in the middle of a commit.
            return
        raise LeaseError(f"another writer has taken over {self.path}")

    def _write(
        self,
        table: DeltaTable,
        rows: pa.Table,
        mode: Literal["append", "overwrite"],
        user_metadata: str | None,
        token: int | None,
        *transactions: Transaction,
    ) -> int:
        # The state that the caller has looked at: brought up to date here, it would no longer conflict with a commit
        # that came after that look.
        noted = {} if user_metadata is None else {"userMetadata": user_metadata}
        held = () if token is None else (Transaction(WRITER, token),)
        commit = CommitProperties(custom_metadata=noted, app_transactions=[*transactions, *held])
        try:
            self._refuse_other_token(token)
            with table_failures(self.path, reading=False):
                write_deltalake(table, rows, mode=mode, commit_properties=commit)
        except CommitFailedError:
            self._latest()
            self._refuse_other_token(token)
            raise
        return table.version()

    def _refuse_other_token(self, token: int | None) -> None:
        assert self._opened is not None
        if token is not None and self._opened.transaction_version(WRITER) != token:
            raise LeaseError(f"another writer has taken over {self.path}, and this one stops: start it again later")

    def count(self) -> int:
        """Number of rows."""
        files = pa.table(self._latest().get_add_actions())
        return int(pc.sum(files["num_records"]).as_py() or 0)

    def unused_files(self) -> int:
        """Number of files that no recent version uses, those that a writer left behind among them."""
        # The log goes on naming what an earlier vacuum has removed.
        unused, folder = self._latest().vacuum(dry_run=True, full=True), place_of(self.path)
        if isinstance(folder, RemotePath):
            return len(set(unused) & set(folder.files()))
        return sum((folder / file).exists() for file in unused)

    def rows(self, columns: Sequence[str], where: Conditions, version: int | None = None) -> pa.Table:
        """Rows that meet the conditions, texts with 64-bit offsets.

        Args:
            columns: names of the columns wanted.
            where: what must hold; files whose statistics exclude it are not read.
            version: Delta version; None for the latest.
        """
        with table_failures(self.path, reading=True):
            return self._dataset(version).to_table(columns=list(columns), filter=to_expression(where))

    def rows_by_step(self, where: Conditions, version: int | None = None) -> dict[StepId, int]:
        """Number of rows of each step, in the order of the steps."""
        counts: Counter[StepId] = Counter()
        with table_failures(self.path, reading=True):
            parts = self._dataset(version).to_batches(columns=[GENERATION, BATCH], filter=to_expression(where))
            for part in parts:
                counted = pa.table(part).group_by([GENERATION, BATCH]).aggregate([([], "count_all")])
                for generation, batch, rows in zip(*(column.to_pylist() for column in counted.columns), strict=True):
                    counts[StepId(generation, batch)] += rows
        return dict(sorted(counts.items()))

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
        with table_failures(self.path, reading=True):
            if self._opened is not None and self._opened.version() < self._opened_at + _REOPEN_AFTER:
                self._opened.update_incremental()
                return self._opened
            self._opened = DeltaTable(self.path)
            self._opened_at = self._opened.version()
        needed = self._opened.protocol().min_reader_version
        if needed > _READER_VERSION and not self.rows_by_spark:
            raise InputError(
                f"table {self.path} needs Delta reader version {needed} (for deletion vectors, column mapping or the "
                f"like), and a stream reads version {_READER_VERSION}: drop the feature with ALTER TABLE ... "
                "DROP FEATURE, or keep the tables in a catalog (storage.catalog)"
            )
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

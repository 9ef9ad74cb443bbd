"""The lists of the table `recommendations`, held in memory for the versions that made them."""

from collections.abc import Sequence

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError

from recsys.config.sections import Storage
from recsys.contracts import ITEM, LIST_ID, RECOMMENDATIONS, USER
from recsys.errors import InputError
from recsys.registry.versions import Version
from recsys.storage import table_path

_TABLE = "lists"


class StoredLists:
    """Lists of one version, by user.

    Args:
        rows: `user_id`, `items` and `list_id` of each list.
    """

    def __init__(self, rows: pa.Table) -> None:
        self._items, self._ids = (rows.column(name).combine_chunks() for name in ("items", LIST_ID))
        self._places = {user: place for place, user in enumerate(rows.column(USER).to_pylist())}

    def __len__(self) -> int:
        return len(self._places)

    def of(self, user_id: str, k: int | None) -> tuple[list[str], list[float]] | None:
        """Item ids and scores of a user's list, the first `k` or all; None if there are fewer, or no list."""
        place = self._places.get(user_id)
        if place is None:
            return None
        items = self._items[place].as_py()
        if k is not None and k > len(items):
            return None
        return [item[ITEM] for item in items[:k]], [item["score"] for item in items[:k]]

    def list_id(self, user_id: str) -> str | None:
        """Id of a user's list; None for a list of an earlier release."""
        found: str | None = self._ids[self._places[user_id]].as_py()
        return found


_COLUMNS = [(USER, pa.string()), ("items", pa.list_(pa.null())), (LIST_ID, pa.string())]
NO_LISTS = StoredLists(pa.schema(_COLUMNS).empty_table())


class StoredTable:
    """The table, read without Spark. A table of a catalog counts as one without lists.

    Args:
        storage: Where it is.
    """

    def __init__(self, storage: Storage) -> None:
        self.path = None if storage.catalog else table_path(storage.root, RECOMMENDATIONS)
        self._read: tuple[set[str], int] | None = None

    def newer(self, versions: Sequence[Version]) -> dict[str, StoredLists] | None:
        """The lists of each version, by its URI; None if nothing has changed since the last call.

        Raises:
            InputError: the table cannot be read. The next call tries again.
        """
        try:
            table = DeltaTable(self.path) if self.path and DeltaTable.is_deltatable(self.path) else None
            state = {version.uri for version in versions}, -1 if table is None else table.version()
            if state == self._read:
                return None
            lists = {version.uri: NO_LISTS if table is None else _lists_of(table, version) for version in versions}
        except (DeltaError, OSError, pa.ArrowException) as error:
            text = " ".join(str(error).split())
            raise InputError(f"table {self.path} cannot be read: {text:.200}") from error
        self._read = state
        return lists


def _lists_of(table: DeltaTable, version: Version) -> StoredLists:
    # Not as an Arrow dataset, which knows no deletion vectors.
    name, number = (text.replace("'", "''") for text in (version.name, version.version))
    made_by_it = f"model_name = '{name}' AND model_version = '{number}'"
    # One that an earlier release made has no such column until the next run of `batch_score`.
    has_ids = any(field.name == LIST_ID for field in table.schema().fields)
    columns = f"{USER}, items, {LIST_ID if has_ids else f'CAST(NULL AS TEXT) AS {LIST_ID}'}"
    found = QueryBuilder().register(_TABLE, table).execute(f"SELECT {columns} FROM {_TABLE} WHERE {made_by_it}")
    return StoredLists(pa.table(found.read_all()))

"""Reads the item catalog: ids, titles, texts and vectors."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from recsys.config.sections import Items
from recsys.errors import ConfigError, InputError

if TYPE_CHECKING:
    import pandas as pd
    from deltalake import DeltaTable

_TITLE_LENGTH = 80  # Characters of a text that stand for a title.


def read_texts(items: Items) -> tuple[list[str], list[str | None], list[str | None]]:
    """Ids, titles and texts of all items, None where one is missing. Attributes are part of a text, by their names.

    Args:
        items: The section `items`, with `path` set.

    Raises:
        InputError: the catalog is missing, cannot be read, or lacks a column.
    """
    names = items.columns
    raw = _read(items, [names.title, names.text, *names.attributes])
    told = [_text(raw, names.text), *(_named(raw, name) for name in names.attributes)]
    texts = [". ".join(part for part in parts if part) or None for parts in zip(*told, strict=True)]
    return raw[names.item_id].astype(str).tolist(), _text(raw, names.title), texts


def read_vectors(items: Items) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Ids (n,) and vectors (n, d) of the items that have one; of equal ids the last one counts.

    Args:
        items: The section `items`, with `path` and `columns.vector` set.

    Raises:
        InputError: the catalog is missing, cannot be read, or lacks a column, or vectors are no lists of numbers, or of
            several lengths.
    """
    names, column = items.columns, items.columns.vector
    raw = _read(items, [column])
    raw = raw[raw[column].notna()].drop_duplicates(names.item_id, keep="last")
    if not len(raw):
        return [], np.zeros((0, 0), dtype=np.float32)
    try:
        vectors = np.stack([np.asarray(vector, dtype=np.float32) for vector in raw[column]])
    except (TypeError, ValueError) as error:
        raise InputError(
            f"column '{column}' of the catalog {items.path} holds no lists of numbers of one length"
        ) from error
    if vectors.ndim != 2:
        raise InputError(f"column '{column}' of the catalog {items.path} holds no lists of numbers")
    return raw[names.item_id].astype(str).tolist(), vectors


def state_of(items: Items) -> str:
    """What changes whenever the catalog does: the version of a Delta table, or the time of a file's last change."""
    path = Path(items.path or "")
    if path.is_dir():
        with _failures(path):
            return f"version {_delta_table(path).version()}"
    return f"time {path.stat().st_mtime_ns}" if path.exists() else "missing"


def read_titles(items: Items) -> Mapping[str, str]:
    """What to call each item that has a title or a text; none without `items.path`.

    The last catalog is kept, and read again when it has changed.

    Raises:
        InputError: see `read_texts`.
    """
    if items.path is None:
        return {}
    return _titles(items.model_dump_json(), state_of(items))


@lru_cache(maxsize=1)
def _titles(items: str, state: str) -> Mapping[str, str]:
    read = read_texts(Items.model_validate_json(items))
    named = ((item, _title(title, text)) for item, title, text in zip(*read, strict=True))
    return {item: title for item, title in named if title}


def _title(title: str | None, text: str | None) -> str:
    """The title of an item, or else the beginning of its text."""
    chosen = (title or "").strip() or " ".join((text or "").split())
    return chosen if len(chosen) <= _TITLE_LENGTH else f"{chosen[: _TITLE_LENGTH - 1]}…"


def _read(items: Items, columns: Sequence[str | None]) -> "pd.DataFrame":
    """The rows of the catalog that have an id, with the columns wanted.

    Raises:
        ConfigError: a package is missing.
        InputError: the catalog is missing, cannot be read, or lacks a column.
    """
    path = Path(items.path or "")
    readers = {".parquet": _read_parquet, ".csv": _read_csv, ".json": _read_lines, ".jsonl": _read_lines}
    read = _read_delta if path.is_dir() else readers.get(path.suffix)
    if read is None:
        raise InputError(f"setting 'items.path': {path} is neither a Delta table, Parquet, CSV nor JSON lines")
    with _failures(path):
        raw = read(path)
    wanted = [name for name in (items.columns.item_id, *columns) if name is not None]
    missing = [name for name in wanted if name not in raw]
    if missing:
        raise InputError(f"the catalog {path} has no column '{missing[0]}': set items.columns to the names it has")
    return raw[raw[items.columns.item_id].notna()]


@contextmanager
def _failures(path: Path) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f"a catalog of items needs {error.name}: pip install {error.name}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the catalog {path}: {' '.join(str(error).split()):.300}") from error


# What these functions import is needed with a catalog only.
def _delta_table(path: Path) -> "DeltaTable":
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        return DeltaTable(path)
    except DeltaError as error:
        raise ValueError(str(error)) from error


def _read_delta(path: Path) -> "pd.DataFrame":
    return _delta_table(path).to_pandas()


def _read_parquet(path: Path) -> "pd.DataFrame":
    import pandas as pd

    return pd.read_parquet(path)


def _read_csv(path: Path) -> "pd.DataFrame":
    import pandas as pd

    return pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])


def _read_lines(path: Path) -> "pd.DataFrame":
    import pandas as pd

    return pd.read_json(path, lines=True, dtype=False)


def _named(raw: "pd.DataFrame", name: str) -> list[str | None]:
    """Values of an attribute with its name before them, None for missing values."""
    return [value and f"{name}: {value}" for value in _text(raw, name)]


def _text(raw: "pd.DataFrame", name: str | None) -> list[str | None]:
    """Values of a column as text, None for missing values; so for all of a column without a name."""
    if name is None:
        return [None] * len(raw)
    column = raw[name]
    return [None if missing else str(value) for value, missing in zip(column, column.isna(), strict=True)]

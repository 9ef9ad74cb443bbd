"""Reads the item catalog: ids, titles and texts."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import pandas as pd

from recsys.config.sections import Items
from recsys.errors import InputError

_TITLE_LENGTH = 80  # Characters of a text that stand for a title.


def read_texts(items: Items) -> tuple[list[str], list[str | None], list[str | None]]:
    """Ids, titles and texts of all items, None where one is missing.

    Args:
        items: The section `items`, with `path` set.

    Raises:
        InputError: the file is missing, cannot be read, or lacks a column.
    """
    path = Path(items.path or "")
    readers = {".parquet": pd.read_parquet, ".csv": _read_csv, ".json": _read_lines, ".jsonl": _read_lines}
    if path.suffix not in readers:
        raise InputError(f"setting 'items.path': {path} is neither Parquet, CSV nor JSON lines")
    try:
        raw = readers[path.suffix](path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the catalog {path}: {' '.join(str(error).split()):.300}") from error
    names = items.columns
    missing = [name for name in (names.item_id, names.title, names.text) if name is not None and name not in raw]
    if missing:
        raise InputError(f"the catalog {path} has no column '{missing[0]}': set items.columns to the names it has")
    raw = raw[raw[names.item_id].notna()]
    ids: list[str] = raw[names.item_id].astype(str).tolist()
    return ids, _text(raw, names.title), _text(raw, names.text)


def read_titles(items: Items) -> Mapping[str, str]:
    """What to call each item that has a title or a text; none without `items.path`.

    The last catalog is kept, and read again when its file has changed.

    Raises:
        InputError: see `read_texts`.
    """
    if items.path is None:
        return {}
    file = Path(items.path)
    return _titles(items, file.stat().st_mtime_ns if file.exists() else 0)


@lru_cache(maxsize=1)
def _titles(items: Items, changed_at: int) -> Mapping[str, str]:
    named = ((item, _title(title, text)) for item, title, text in zip(*read_texts(items), strict=True))
    return {item: title for item, title in named if title}


def _title(title: str | None, text: str | None) -> str:
    """The title of an item, or else the beginning of its text."""
    chosen = (title or "").strip() or " ".join((text or "").split())
    return chosen if len(chosen) <= _TITLE_LENGTH else f"{chosen[: _TITLE_LENGTH - 1]}…"


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])


def _read_lines(path: Path) -> pd.DataFrame:
    return pd.read_json(path, lines=True, dtype=False)


def _text(raw: pd.DataFrame, name: str | None) -> list[str | None]:
    """Values of a column as text, None for missing values; so for all of a column without a name."""
    if name is None:
        return [None] * len(raw)
    column = raw[name]
    return [None if missing else str(value) for value, missing in zip(column, column.isna(), strict=True)]

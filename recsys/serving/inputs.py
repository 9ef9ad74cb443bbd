"""What a request asks for, checked: every column that cannot be used is answered with one line."""

import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from .arrays import Array

# Ids in one list of a request; a longer one is a mistake, or meant to exhaust the server.
MOST_IDS = 100_000
# The last so many recent items count.
MOST_RECENT = 1_000
# Whole numbers below it are exact as floating-point numbers.
_EXACT = 2**53
_SHOWN = 60

Columns = Mapping[str, Sequence[Any]]
Value = TypeVar("Value")


class RefusedError(ValueError):
    """A request cannot be answered as it is. The message is one line that says why."""


def required_ids(columns: Columns, name: str) -> list[str | None]:
    """A column of ids; None for a missing one.

    Raises:
        RefusedError: there is no such column, or something is not an id.
    """
    if name not in columns:
        given = ", ".join(f"'{one}'" for one in columns) or "none"
        raise RefusedError(f"the input has no column '{name}'; it has {_shown(given)}")
    return _each(columns[name], name, _id)


def lengths(columns: Columns, default: int) -> Array:
    """Column `k`, (n,) int64, with the default for what is missing.

    Raises:
        RefusedError: something is no whole number from 1 on.
    """
    return np.array(_each(_column(columns, "k"), "k", _length, default), dtype=np.int64)


def flags(columns: Columns, name: str, default: bool) -> Array:
    """A column of true and false, (n,) bool, with the default for what is missing.

    Raises:
        RefusedError: something is neither.
    """
    return np.array(_each(_column(columns, name), name, _flag, default), dtype=bool)


def id_lists(columns: Columns, name: str) -> list[list[str] | None]:
    """A column of lists of ids; None for what is missing.

    Raises:
        RefusedError: something is no list of ids, or longer than `MOST_IDS`.
    """
    return _each(_column(columns, name), name, _ids)


def is_missing(value: Any) -> bool:
    """None, NaN, or another value that does not equal itself."""
    if value is None:
        return True
    if isinstance(value, str | list | tuple | np.ndarray):
        return False
    unequal = value != value
    # pandas.NA is neither equal nor unequal to itself.
    return not isinstance(unequal, bool | np.bool_) or bool(unequal)


def _column(columns: Columns, name: str) -> Sequence[Any]:
    """A column, or as many missing values as there are rows."""
    return columns[name] if name in columns else [None] * len(next(iter(columns.values()), ()))


def _each(column: Sequence[Any], name: str, read: Callable[[Any], Value], default: Any = None) -> list[Any]:
    """Every value of a column, read; the row is named where that fails."""
    found = list[Any]()
    for row, value in enumerate(column):
        try:
            found.append(default if is_missing(value) else read(value))
        except RefusedError as error:
            raise RefusedError(f"column '{name}', row {row}: {error}") from None
    return found


def _id(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool | np.bool_):
        raise RefusedError(f"{_shown(value)} is no id: give text or a whole number")
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real) and float(value).is_integer() and abs(float(value)) < _EXACT:
        return str(int(float(value)))  # A column of whole numbers with gaps.
    raise RefusedError(f"{_shown(value)} is no id: give text or a whole number")


def _length(value: Any) -> int:
    whole = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_) and float(value).is_integer()
    if not whole or value < 1:
        raise RefusedError(f"{_shown(value)} is no length: give a whole number from 1 on")
    # Longer than any list.
    return int(min(float(value), _EXACT))


def _flag(value: Any) -> bool:
    if isinstance(value, bool | np.bool_) or (isinstance(value, numbers.Real) and value in (0, 1)):
        return bool(value)
    raise RefusedError(f"{_shown(value)} is neither true nor false")


def _ids(value: Any) -> list[str]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable) or not hasattr(value, "__len__"):
        raise RefusedError(f"{_shown(value)} is no list of ids")
    if len(value) > MOST_IDS:
        raise RefusedError(f"{len(value):,} ids are too many: give {MOST_IDS:,} at most")
    return [_id(one) for one in value]


def _shown(value: Any) -> str:
    """A value in one short line."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."

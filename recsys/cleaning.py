"""The rules for events, on Arrow columns: the twin of `recsys.tables.clean` for data that does not come through Spark.

Both accept the same records, give the same reasons against the others, and weigh alike to the last bit;
`tests/tables/test_twin_rules.py` says so. What only Java knows is unparsable here: zones of three letters (`PST`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys.config import Settings
from recsys.config.sections import EventWeight
from recsys.contracts import EVENT_ID, EVENT_TIME, EVENT_TYPE, ITEM, LOST_BYTES, MAX_ID_BYTES, USER, VALUE, WEIGHT_PARTS
from recsys.errors import InputError
from recsys.parsing import parse_number, parse_time, strict_log2, to_micros

Mask = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# What the rules take for blank: the white space of Java's `\s`.
_BLANK = " \t\n\x0b\f\r"
# Clocks may be this far ahead.
_AHEAD = timedelta(days=1)
# Whole numbers up to here are exact as a double.
_EXACT = 2.0**53


@dataclass(frozen=True)
class Judged:
    """What the rules say of n records.

    Attributes:
        good: (n,) bool, whether nothing speaks against the record.
        users, items: n ids, as Arrow text.
        event_ids: n ids of events, null where there is none.
        weights: (n,) float64, meaningful where good.
        times: (n,) int64, microseconds since 1970 UTC, meaningful where good.
        impressions: (n,) bool, whether the record is an impression, meaningful where good.
        reasons: by reason, (n,) bool: whether it speaks against the record. A record may have several.
    """

    good: Mask
    users: pa.Array
    items: pa.Array
    event_ids: pa.Array
    weights: FloatArray
    times: IntArray
    impressions: Mask
    reasons: dict[str, Mask]


def judge(columns: Mapping[str, pa.Array], settings: Settings, now: datetime) -> Judged:
    """Apply every rule to every record, and weigh the records.

    Args:
        columns: By the names of `contracts.EVENT_COLUMNS`, arrays of n values each; those that the source lacks are
            left out. Ids and types are text, whole numbers or bytes; values are text or numbers; times are text,
            numbers (seconds or milliseconds since 1970), dates or timestamps (UTC without a zone).
        settings: The sections source (default event type, earliest time) and weights are used.
        now: When the records were read: a time more than a day later is not believed.

    Raises:
        InputError: a column holds something else.
    """
    size = len(columns[USER])
    nothing = pa.nulls(size, pa.string())
    users, items, kinds, event_ids = (
        _text(columns.get(name, nothing), name) for name in (USER, ITEM, EVENT_TYPE, EVENT_ID)
    )
    event_ids = _given(event_ids)
    kinds = _given(kinds)
    if settings.source.default_event_type is not None:
        kinds = kinds.fill_null(settings.source.default_event_type)
    values, numeric, value_given = _numbers(columns.get(VALUE, nothing))
    times, timed, time_given = _times(columns[EVENT_TIME])
    codes = _codes(kinds, list(settings.weights))
    bad_users, bad_items = _is_broken(users), _is_broken(items)
    missing_kind = kinds.is_null().to_numpy(zero_copy_only=False)
    rules = {
        "missing user_id": _given(users).is_null().to_numpy(zero_copy_only=False),
        "missing item_id": _given(items).is_null().to_numpy(zero_copy_only=False),
        "user_id is not UTF-8": bad_users,
        "item_id is not UTF-8": bad_items,
        "event_id is not UTF-8": _is_broken(event_ids),
        "user_id is too long": ~bad_users & _is_long(users),
        "item_id is too long": ~bad_items & _is_long(items),
        "missing event_type": missing_kind,
        "unknown event_type": ~missing_kind & (codes < 0),
        "missing event_time": ~time_given,
        "unparsable event_time": time_given & ~timed,
        **_time_rules(times, timed, settings.source.earliest_time, now),
        **_value_rules(values, numeric, value_given, codes, missing_kind, settings.weights),
    }
    good = ~np.logical_or.reduce(list(rules.values()))
    weights = _weigh(values, codes, settings.weights)
    impressions = np.isin(codes, [code for code, weight in enumerate(settings.weights.values()) if weight.impression])
    return Judged(good, users, items, event_ids, weights, times, impressions, rules)


def _time_rules(times: IntArray, timed: Mask, earliest: datetime, now: datetime) -> dict[str, Mask]:
    earliest = earliest if earliest.tzinfo else earliest.replace(tzinfo=UTC)
    return {
        f"event_time before {earliest:%Y-%m-%d}": timed & (times < to_micros(earliest)),
        "event_time in the future": timed & (times > to_micros(now + _AHEAD)),
    }


def _value_rules(
    values: FloatArray,
    numeric: Mask,
    given: Mask,
    codes: IntArray,
    missing_kind: Mask,
    weights: Mapping[str, EventWeight],
) -> dict[str, Mask]:
    finite = numeric & np.isfinite(values)
    needing, outside = np.zeros(len(values), dtype=bool), np.zeros(len(values), dtype=bool)
    for code, weight in enumerate(weights.values()):
        # A record without a type may have a value of any of them, and no other.
        own = (codes == code) | missing_kind
        outside |= own & ((values < weight.min_value) | (values > weight.max_value))
        if weight.value != "ignore":
            needing |= codes == code
    return {
        "missing value": ~given & needing,
        "non-numeric value": given & ~numeric,
        "non-finite value": numeric & ~finite,
        "value out of range": finite & outside,
    }


def _weigh(values: FloatArray, codes: IntArray, weights: Mapping[str, EventWeight]) -> FloatArray:
    """The weight of each record's type, times its value or log2(1 + value) if so configured; NaN for other types.

    Rounded as in Spark, see `tables.clean.weigh`.
    """
    weighed = np.full(len(values), np.nan)
    for code, weight in enumerate(weights.values()):
        own = np.flatnonzero(codes == code)
        value = values[own]
        if weight.value == "log":
            factors = strict_log2(1 + np.where((value > -1) & (value < np.inf), value, np.nan))
        else:
            factors = value if weight.value == "multiply" else np.ones(len(own))
        weighed[own] = weight.weight * factors
    rounded: FloatArray = np.rint(weighed * WEIGHT_PARTS) / WEIGHT_PARTS
    return rounded


def _text(column: pa.Array, name: str) -> pa.Array:
    """Text of ids and types, null where there is none; bytes that are not UTF-8 are replaced by `LOST_BYTES`.

    Whole numbers become text without a point, also where missing values made floating-point numbers of them.

    Raises:
        InputError: the column holds neither text nor whole numbers.
    """
    column, kind = _plain(column)
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        return column.cast(pa.string())
    if pa.types.is_floating(kind):
        numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        missing = np.isnan(numbers)
        # Infinity is not below the limit, so it is refused here, too.
        if not (missing | ((np.abs(numbers) < _EXACT) & (numbers == np.round(numbers)))).all():
            raise InputError(f"column '{name}' holds numbers with decimals: cast it to text or to whole numbers")
        return pa.array(np.where(missing, 0, numbers).astype(np.int64), mask=missing).cast(pa.string())
    if _is_binary(kind):
        return _decoded(column)
    if not _is_text(kind):
        raise InputError(f"column '{name}' holds {kind}: cast it to text or to whole numbers")
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return _decoded(column.cast(pa.large_binary()))
    return column.cast(pa.string())


def _numbers(column: pa.Array) -> tuple[FloatArray, Mask, Mask]:
    """Values as numbers, 0 where there is none; where there is one; and where anything is given.

    Raises:
        InputError: the column holds neither numbers nor text.
    """
    column, kind = _plain(column)
    if pa.types.is_integer(kind) or pa.types.is_float64(kind):
        given = column.is_valid().to_numpy(zero_copy_only=False)
        return column.cast(pa.float64(), safe=False).fill_null(0.0).to_numpy(zero_copy_only=False), given, given
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        # As they are written: 0.1 in single precision is 0.1 here, as it is where the tables read it.
        column, kind = column.cast(pa.string()), pa.string()
    if not (_is_text(kind) or _is_binary(kind) or pa.types.is_null(kind)):
        raise InputError(f"column '{VALUE}' holds {kind}: cast it to numbers")
    text = _given(_text(column, VALUE))
    numbers, numeric = _parsed(text, parse_number, np.float64)
    return numbers, numeric, text.is_valid().to_numpy(zero_copy_only=False)


def _times(column: pa.Array) -> tuple[IntArray, Mask, Mask]:
    """Microseconds since 1970, 0 where there is no time; where there is one; and where anything is given.

    Raises:
        InputError: the column holds no times, numbers or text.
    """
    column, kind = _plain(column)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        micros = column.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False).cast(pa.int64())
        given = column.is_valid().to_numpy(zero_copy_only=False)
        return micros.fill_null(0).to_numpy(zero_copy_only=False), given, given
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        column, kind = column.cast(pa.string()), pa.string()
    if not (_is_text(kind) or _is_binary(kind) or pa.types.is_null(kind)):
        raise InputError(
            f"column '{EVENT_TIME}' holds {kind}: give timestamps, ISO 8601 text, or seconds or milliseconds since 1970"
        )
    text = _given(_text(column, EVENT_TIME))
    times, timed = _parsed(text, parse_time, np.int64)
    return times, timed, text.is_valid().to_numpy(zero_copy_only=False)


def _plain(column: pa.Array) -> tuple[pa.Array, pa.DataType]:
    """The values of a dictionary written out, and the type that they have."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column, column.type


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _decoded(column: pa.Array) -> pa.Array:
    """Bytes as text; those that are not UTF-8 are replaced."""
    decoded = [None if value is None else value.decode(errors="replace") for value in column.to_pylist()]
    return pa.array(decoded, pa.string())


def _is_broken(ids: pa.Array) -> Mask:
    """Whether bytes of an id were no UTF-8."""
    broken: Mask = pc.match_substring(ids, LOST_BYTES).fill_null(False).to_numpy(zero_copy_only=False)
    return broken


def _given(text: pa.Array) -> pa.Array:
    """The text of a column, null if it is blank."""
    blank = pc.equal(pc.utf8_trim(text, characters=_BLANK), "")
    return pc.if_else(blank, pa.scalar(None, pa.string()), text)


def _is_long(ids: pa.Array) -> Mask:
    """Whether an id has more bytes than an id may have."""
    long: Mask = pc.greater(pc.binary_length(ids), MAX_ID_BYTES).fill_null(False).to_numpy(zero_copy_only=False)
    return long


def _codes(kinds: pa.Array, known: list[str]) -> IntArray:
    """Place of each type among the known ones, -1 for others."""
    places = pc.index_in(kinds, pa.array(known, pa.string()))
    codes: IntArray = places.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _parsed(
    text: pa.Array, parse: Callable[[str], float | int | None], dtype: type[Any]
) -> tuple[npt.NDArray[Any], Mask]:
    """What a parser makes of each text, equal ones parsed once: values, 0 for None, and where it is not None."""
    encoded = text.dictionary_encode()
    found = [parse(one) for one in encoded.dictionary.to_pylist()]
    parsed = np.array([0 if one is None else one for one in found] + [0], dtype=dtype)
    valid = np.array([one is not None for one in found] + [False])
    places = encoded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)
    return parsed[places], valid[places]

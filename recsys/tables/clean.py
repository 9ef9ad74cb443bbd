"""Validates and weighs events: pure functions on columns. No record is dropped; a bad one gets its reasons."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import reduce
from operator import add

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys.config import Settings
from recsys.config.sections import EventWeight
from recsys.contracts import (
    EVENT_ID,
    EVENT_TIME,
    EVENT_TYPE,
    EVENTS,
    FIRST_TIME,
    IMPRESSIONS,
    INGESTED_AT,
    ITEM,
    LAST_TIME,
    LIST_ID,
    LOST_BYTES,
    MAX_ID_BYTES,
    MILLISECONDS_FROM,
    RAW,
    REASONS,
    SOURCE_WEIGHT,
    TIME_SLOT_SECONDS,
    USER,
    VALUE,
    WEIGHT,
    WEIGHT_PARTS,
)

TOTALS = (USER, ITEM, WEIGHT, EVENTS, FIRST_TIME, LAST_TIME, IMPRESSIONS)
_SLOT = "time_slot"

# Column with the reason why a record could not be parsed, or null.
UNREADABLE = "unreadable"
# Columns with the parsed value and time, which the rules compare with the text, and with the rules that are broken.
_VALUE, _TIME = "_value", "_time"
_BROKEN = "_broken"

# Digits match in one way only: `\d+\.?\d*` would try every cut of a long row of them.
_NUMBER = r"^\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*$"
# Begins with a date. Spark would read a bare time of day as a time of the current day.
_DATE = r"^\s*[+-]?\d{4,}-\d"


def tag(events: DataFrame, settings: Settings) -> DataFrame:
    """Parse the fields of every record and collect every rule that it breaks.

    Args:
        events: The columns of `source.read_events`.
        settings: Event weights, default event type and earliest plausible time.

    Returns:
        `user_id, item_id, event_type` string, `value` double, `event_time` timestamp, `event_id` and `list_id` string
        if the source has them, `reasons` array of strings (empty for a good event), `raw` (null for a good event, where
        it is not needed) and `ingested_at`.
    """
    ids = [F.col(name) for name in (EVENT_ID, LIST_ID) if name in events.columns]
    return with_reasons(events, settings).select(
        USER,
        ITEM,
        EVENT_TYPE,
        F.col(_VALUE).alias(VALUE),
        F.col(_TIME).alias(EVENT_TIME),
        *ids,
        REASONS,
        F.when(F.size(REASONS) > 0, F.col(RAW)).alias(RAW),
        INGESTED_AT,
    )


def with_reasons(events: DataFrame, settings: Settings) -> DataFrame:
    """Add every reason against a record, and the default event type where none is given; all columns are kept.

    Args:
        events: As for `tag`.
        settings: As for `tag`.
    """
    # In two steps, so that each field is parsed once, although many rules use it.
    typed = events.withColumns(
        {
            EVENT_TYPE: F.coalesce(_given(EVENT_TYPE), F.lit(settings.source.default_event_type)),
            _VALUE: F.col(VALUE).try_cast("double"),
            _TIME: parse_time(F.col(EVENT_TIME)),
        }
    )
    rules = {
        **_id_rules([name for name in (USER, ITEM, EVENT_ID) if name in events.columns]),
        **_type_rules(settings.weights),
        **_time_rules(settings.source.earliest_time),
        **_value_rules(settings.weights),
    }
    # One bit for each rule: as a list of texts, they would be more code than Java compiles at once.
    bits = {reason: 1 << place for place, reason in enumerate(rules)}
    broken = [F.when(F.coalesce(rule, F.lit(True)), bits[reason]).otherwise(0) for reason, rule in rules.items()]
    judged = typed.withColumn(_BROKEN, reduce(add, broken))
    # `concat_ws` leaves out nulls.
    told = [F.when(F.col(_BROKEN).bitwiseAND(bit) != 0, F.lit(reason)) for reason, bit in bits.items()]
    reasons = F.when(F.col(_BROKEN) == 0, F.array().cast("array<string>")).otherwise(
        F.split(F.concat_ws("\n", *told), "\n")
    )
    return judged.withColumn(REASONS, F.when(F.isnotnull(UNREADABLE), F.array(UNREADABLE)).otherwise(reasons))


def is_good() -> Column:
    """Whether a tagged record breaks no rule."""
    return F.size(REASONS) == 0


def has_id() -> Column:
    """Whether a tagged record is good and has an event id."""
    return is_good() & F.isnotnull(_given(EVENT_ID))


def is_listed() -> Column:
    """Whether a tagged record is good and says, in a text of an id's length, which recommendations it answers."""
    return is_good() & F.isnotnull(_given(LIST_ID)) & (F.octet_length(LIST_ID) <= MAX_ID_BYTES)


def parse_time(text: Column) -> Column:
    """Parse a time: ISO 8601 (UTC if it has no zone), or seconds or milliseconds since 1970.

    Returns:
        Timestamp with microseconds; null where the text is none of these.
    """
    # The usual form, 2024-05-01..., is seen by its first letters, at a tenth of the cost of the regular expressions.
    dated = text.between("1", "3") & (F.substring(text, 5, 1) == "-") & (F.substring(text, 8, 1) == "-")
    number = F.when(text.rlike(_NUMBER), text.try_cast("double"))
    micros = F.round(number * F.when(F.abs(number) >= MILLISECONDS_FROM, 1e3).otherwise(1e6))
    other = F.coalesce(
        F.timestamp_micros(micros.try_cast("bigint")), F.when(text.rlike(_DATE), text.try_cast("timestamp"))
    )
    return F.when(dated, text.try_cast("timestamp")).otherwise(other)


def weigh(tagged: DataFrame, weights: Mapping[str, EventWeight]) -> DataFrame:
    """Add the weight of each event: the weight of its type, multiplied by value or log2(1 + value) if configured.

    Where the source has a weight of its own (`source_weight`), that counts, too. The weight is rounded to a multiple of
    1 / `WEIGHT_PARTS`, to the even one of two that are as near. A column `impressions` says whether the event is one: 1
    or 0.
    """
    value = F.col(VALUE)
    factors = {"ignore": F.lit(1.0), "multiply": value, "log": F.log2(1.0 + value)}
    cases = [
        (F.col(EVENT_TYPE) == kind, F.lit(weight.weight) * factors[weight.value]) for kind, weight in weights.items()
    ]
    weight = F.coalesce(*(F.when(condition, weight) for condition, weight in cases))
    if SOURCE_WEIGHT in tagged.columns:
        weight = weight * F.col(SOURCE_WEIGHT)
    shown = [kind for kind, weight in weights.items() if weight.impression]
    return tagged.withColumns(
        {
            WEIGHT: F.rint(weight * WEIGHT_PARTS) / WEIGHT_PARTS,
            IMPRESSIONS: F.coalesce(F.col(EVENT_TYPE).isin(*shown), F.lit(False)).cast("bigint"),
        }
    )


def aggregate(weighed: DataFrame, within: Sequence[str] = (), sums: Sequence[str] = ()) -> DataFrame:
    """Sum weighed events to one row per (user, item) and hour. The sums are exact, whatever the order of the events.

    Args:
        weighed: As `weigh` returns it.
        within: Further columns to group by, such as a batch id; they come first in the result.
        sums: Further columns to add up; they come last.
    """
    rows = weighed.select(
        *within,
        USER,
        ITEM,
        WEIGHT,
        F.lit(1).cast("bigint").alias(EVENTS),
        IMPRESSIONS,
        *sums,
        F.col(EVENT_TIME).alias(FIRST_TIME),
        F.col(EVENT_TIME).alias(LAST_TIME),
        F.floor(F.unix_micros(EVENT_TIME) / F.lit(TIME_SLOT_SECONDS * 1e6)).alias(_SLOT),
    )
    return totals(rows, [*within, _SLOT], sums).drop(_SLOT)


def totals(rows: DataFrame, within: Sequence[str] = (), sums: Sequence[str] = ()) -> DataFrame:
    """Add up rows that are totals already to one row per (user, item), within groups of further columns.

    Args:
        rows: The rows.
        within: Further columns to group by; they come first in the result.
        sums: Further columns to add up; they come last.
    """
    # Being shown moves no clock; what was only shown has no other times.
    taken = F.col(EVENTS) > F.coalesce(IMPRESSIONS, F.lit(0))
    added = rows.groupBy(*within, USER, ITEM).agg(
        F.sum(WEIGHT).alias(WEIGHT),
        F.sum(EVENTS).alias(EVENTS),
        F.coalesce(F.min(F.when(taken, F.col(FIRST_TIME))), F.min(FIRST_TIME)).alias(FIRST_TIME),
        F.coalesce(F.max(F.when(taken, F.col(LAST_TIME))), F.max(LAST_TIME)).alias(LAST_TIME),
        F.sum(F.coalesce(IMPRESSIONS, F.lit(0))).alias(IMPRESSIONS),
        *(F.sum(name).alias(name) for name in sums),
    )
    return added.select(*within, *TOTALS, *sums)


def is_written(text: Column) -> Column:
    """Whether a text holds more than white space; null for null."""
    # All white space of `\S` sorts before `!`, so most texts need no regular expression. Behind an `|` it would be
    # computed for all of them wherever a text is looked at twice.
    return F.when(text >= F.lit("!"), F.lit(True)).otherwise(text.rlike(r"\S"))


def _given(column: str) -> Column:
    """The text of a column, or null if it is blank."""
    return F.when(is_written(F.col(column)), F.col(column))


def _id_rules(names: Sequence[str]) -> dict[str, Column]:
    missing = {f"missing {column}": F.isnull(_given(column)) for column in (USER, ITEM)}
    # Typed sources hold the bytes themselves, which Python could not read back; in text they are replaced by now.
    text = {column: F.is_valid_utf8(column) & ~F.contains(column, F.lit(LOST_BYTES)) for column in names}
    broken = {f"{column} is not UTF-8": F.isnotnull(column) & ~text[column] for column in names}
    long = {
        f"{column} is too long": F.isnotnull(column) & text[column] & (F.octet_length(column) > MAX_ID_BYTES)
        for column in (USER, ITEM)
    }
    return missing | broken | long


def _type_rules(weights: Mapping[str, EventWeight]) -> dict[str, Column]:
    return {
        "missing event_type": F.isnull(EVENT_TYPE),
        "unknown event_type": F.isnotnull(EVENT_TYPE) & ~F.col(EVENT_TYPE).isin(*weights),
    }


def _time_rules(earliest: datetime) -> dict[str, Column]:
    given, time = _given(EVENT_TIME), F.col(_TIME)
    earliest = earliest if earliest.tzinfo else earliest.replace(tzinfo=UTC)
    # In microseconds: adding a day to a timestamp asks the calendar.
    too_late = F.unix_micros(INGESTED_AT) + 86_400_000_000
    return {
        "missing event_time": F.isnull(given),
        "unparsable event_time": F.isnotnull(given) & F.isnull(time),
        f"event_time before {earliest:%Y-%m-%d}": F.coalesce(time < F.lit(earliest), F.lit(False)),
        "event_time in the future": F.coalesce(F.unix_micros(time) > too_late, F.lit(False)),
    }


def _value_rules(weights: Mapping[str, EventWeight]) -> dict[str, Column]:
    given, value, event_type = _given(VALUE), F.col(_VALUE), F.col(EVENT_TYPE)
    finite = F.isnotnull(value) & ~F.isnan(value) & (F.abs(value) != float("inf"))
    outside = [
        (event_type == kind) & ~value.between(weight.min_value, weight.max_value) for kind, weight in weights.items()
    ]
    needing = [kind for kind, weight in weights.items() if weight.value != "ignore"]
    return {
        "missing value": F.isnull(given) & F.coalesce(event_type.isin(*needing), F.lit(False)),
        "non-numeric value": F.isnotnull(given) & F.isnull(value),
        "non-finite value": F.isnotnull(value) & ~finite,
        "value out of range": finite & reduce(lambda left, right: left | right, outside),
    }

"""The rules for events stand twice, on Spark's columns and on Arrow's: both judge, weigh and sum alike, to the bit."""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys.cleaning import judge
from recsys.config import Settings
from recsys.config.sections import Source
from recsys.contracts import EVENT_COLUMNS, InteractionBatch
from recsys.errors import InputError
from recsys.frames import named_columns, read_events
from recsys.tables import log
from recsys.tables.clean import tag
from recsys.tables.formats import typed
from tests.tables.helpers import NOON, event
from tests.tables.test_clean import RULES, TIMES
from tests.tables.test_hostile_input import strange_ids

Factory = Callable[..., Settings]
WEIGHTS = {
    "view": 1,
    "watch": {"weight": 0.3, "value": "log"},
    "rate": {"weight": -0.7, "value": "multiply", "min_value": -5, "max_value": 1e4},
    "shown": {"weight": 0, "impression": True},
}


def agree(spark: SparkSession, settings: Settings, columns: dict[str, pa.Array]) -> InteractionBatch | None:
    """Compare both ways record by record and pair by pair; returns what can be learned."""
    numbers = pa.array([str(number) for number in range(len(columns["user_id"]))])
    table = pa.table({**columns, "event_id": numbers})
    frame = typed(Source(), spark.createDataFrame(table)).withColumn("ingested_at", F.lit(NOON))
    tagged = tag(frame, settings).persist()
    refused = tagged.select("reasons", F.col("event_id").cast("int")).orderBy("event_id").collect()
    own = judge(named_columns(table, settings), settings, NOON).reasons
    for row in refused:
        reasons = [reason for reason, broken in own.items() if broken[row.event_id]]
        assert reasons == row.reasons, {name: column[row.event_id].as_py() for name, column in columns.items()}
    expected = log.to_batch(log.collect(tagged, settings.weights)[0])
    tagged.unpersist()
    if not expected.records:
        with pytest.raises(InputError, match="can be learned from"):
            read_events(table, settings, NOON)
        return None
    found = read_events(table, settings, NOON)[0].batch()
    assert (found.user_ids, found.item_ids) == (expected.user_ids, expected.item_ids)
    assert found.left == expected.left
    for name in ("weights", "events", "times"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes(), name
    return found


def texts(rows: list[dict[str, Any]]) -> dict[str, pa.Array]:
    names = [name for name in EVENT_COLUMNS if name != "event_id"]
    return {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names}


def test_hostile_records_of_all_kinds(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    """Every rule broken on its own, every text of a time and a value that Spark reads in a way of its own."""
    configured = settings(tmp_path, weights=WEIGHTS)
    times = [
        *TIMES, "2024-5", "2024-05-01 ", "2024-05-01T", "2024-05-01 12", "2024-05-01T12:30", "2024-05-01T12:30:15.",
        "2024-05-01T1:2:3", "2024-05-01T12:30:15.123456789Z", "2024-05-01T12:30:15,5", "2024-05-01T12:30:15z",
        "2024-05-01T12:30:15+2", "2024-05-01T12:30:15-0200", "2024-05-01T12:30:15+02:00:30", "2024-05-01T12:30 Z",
        "2024-05-01T12:30:15 UTC", "2024-05-01T12:30:15GMT+2", "2024-05-01T12:30:15 Europe/Berlin", "2024-05-01Z",
        "2024-03-31T02:30:00 Europe/Berlin", "2023-10-29T02:30:00 Europe/Berlin", "2024-05-01T12:30:15[Europe/Berlin]",
        "2024-05-01T24:00:00", "2024-05-01T23:59:60", "2023-02-29", "+2024-05-01", "-2024-05-01", "0000-01-01",
        "012024-05-01", "00002024-05-01", "294247-01-10", "294248-01-10", "2024-05-01T12:30:15+18:01",
        "\x002024-05-01", "2024-05-01\x00", "\u20032024-05-01", "2024-05-01t12:00:00", "2024-05-01  12:00",
        "٢٠٢٤-05-01",
        "2024-05-01T12:30:15.-1", "2024-05-01T12:30:15+ 2", "1e3 ", "\x0b1.7e9", "\x001.7e9", "+1.7e9", ".17e10", "5.",
        "99999999999.9999999", "1714564800.1234565", "9.3e15", "1.7e9d", "100000000000", "-1",
    ]  # fmt: skip
    values = [
        "1", " 1 ", "\t1\n", "\u00a01", "\x001", "1d", "1F", "1L", "0x1p3", "0X1.8P1", "0x1p9999", "NaN", "nan", "-nan",
        "-NaN", "inf", "-INF", "+Infinity", "1_0", "1e5", ".5", "5.", "", " ", "-", "1e", "1e400", "1e-400", "1,5", "٣",
        "--1", "true", "1.7976931348623159e308", "4.9e-324", "-5.0000001", "10000",
    ]  # fmt: skip
    rows = [event(**fields) for fields, _ in RULES]
    rows += [event(event_time=text) for text in times]
    rows += [event(event_type=kind, value=value) for kind in [*WEIGHTS, None, "x"] for value in values]
    rows += [event(user_id=text, item_id=text) for text in [*strange_ids(), "", " ", "\x0b", "\u00a0", None]]
    batch = agree(spark, configured, texts(rows))
    assert batch is not None
    assert len(batch) > 10


def test_logarithms_are_the_same_to_the_last_bit(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    values = [*generator.integers(0, 10**6, 3_000), *generator.random(3_000), *10 ** generator.uniform(-18, 6, 3_000)]
    values += [2.0**power + step for power in range(20) for step in (-1, -(2.0**-20), -1e-12, 0, 1e-12, 2.0**-21)]
    ids = pa.array([f"{number:05d}" for number in range(len(values))])
    constant = {"event_type": "watch", "event_time": "2024-05-01"}
    columns = {name: pa.array([text] * len(values)) for name, text in constant.items()}
    batch = agree(
        spark, settings(tmp_path, weights=WEIGHTS), {"user_id": ids, "item_id": ids, **columns, "value": values}
    )
    assert batch is not None
    known = [value for value in values if value >= 0]
    assert batch.weights == pytest.approx([0.3 * math.log2(1 + value) for value in known], rel=1e-9, abs=2.0**-21)


def test_typed_columns(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    days = [date(2024, 4, 1) + timedelta(number) for number in range(40)]
    moments = [datetime(1989, 12, 31, 23, 59, 59, 999_999) + timedelta(days=400 * number) for number in range(40)]
    seconds = [1_714_564_800 + number for number in range(40)]
    times = {
        "zoned": pa.array([moment.replace(tzinfo=UTC) for moment in moments], pa.timestamp("us", "Asia/Tokyo")),
        "plain": pa.array(moments, pa.timestamp("us")),
        "days": pa.array(days),
        "seconds": pa.array(seconds),
        "fractions": pa.array([second + 0.123456 for second in seconds]),
        "milliseconds": pa.array([None, *(1_000 * second + 7 for second in seconds[1:])], pa.int64()),
    }
    values = {
        "none": pa.nulls(40, pa.string()),
        "whole": pa.array([None, *range(39)], pa.int32()),
        "real": pa.array([None, math.nan, math.inf, -0.0, *(number / 7 for number in range(36))]),
        "exact": pa.array([Decimal(number) / 8 for number in range(40)], pa.decimal128(12, 3)),
    }
    users = {"whole": pa.array(range(40)), "text": pa.array([f"u{number % 7}" for number in range(40)])}
    users["bytes"] = pa.array(
        [b"\xff\xfe", b"", None, b"\xff" * 1025, "é".encode() * 513, *(f"é{n}".encode() for n in range(35))]
    )
    kinds = pa.array(["view", "watch", "rate", None] * 10).dictionary_encode().dictionary_decode()
    configured = settings(tmp_path, weights=WEIGHTS)
    items = pa.array([number % 3 for number in range(40)], pa.int16())
    cases = [(time, "none", "whole") for time in times] + [("seconds", value, "text") for value in values]
    for time, value, user in [*cases, ("seconds", "whole", "bytes")]:
        columns = {"user_id": users[user], "item_id": items, "event_type": kinds, "value": values[value]}
        assert agree(spark, configured, {**columns, "event_time": times[time]}) is not None


ISO = (
    r"[ \t]?[+-]?(20[0-9]{2}|[0-9]{4,6})-[01]?[0-9](-[0-3]?[0-9]([ T][0-2]?[0-9]"
    r"(:[0-6]?[0-9](:[0-6]?[0-9](\.[0-9]{0,8})?"
    r"(Z| UTC|UT|GMT[+-]1|[+-][01]?[0-9](:?[0-6][0-9](:[0-6][0-9])?)?| Europe/Berlin)?)?)?)?)? ?"
)
NUMBER = r"[ \t\x00]?[+-]?([0-9]{1,13}\.?[0-9]{0,8}|\.[0-9]{1,4})([eE][+-]?[0-9]{1,3})?[dfL]? ?"
records = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["a", "b", "é", "🍵", " ", "a ", None]),
        "item_id": st.sampled_from(["x", "y", "\x00", "X", ""]),
        "event_type": st.sampled_from([*WEIGHTS, "x", " ", None]),
        "list_id": st.sampled_from(["l", "", "x" * 1_025, None]),
        "value": st.none() | st.from_regex(NUMBER, fullmatch=True) | st.floats(-9, 9).map(str) | st.text(max_size=3),
        "event_time": st.just("2024-05-01T12:00:00Z")
        | st.integers(1_714_000_000, 1_714_000_003).map(str)
        | st.from_regex(ISO, fullmatch=True)
        | st.from_regex(NUMBER, fullmatch=True)
        | st.none(),
    }
)


@given(st.lists(records, min_size=150, max_size=300), st.sampled_from([None, "view", "sneeze"]))
@examples(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large, HealthCheck.too_slow],
)
def test_whatever_comes_is_judged_and_summed_alike(
    spark: SparkSession, settings: Factory, tmp_path: Path, rows: list[dict[str, Any]], default: str | None
) -> None:
    agree(spark, settings(tmp_path, weights=WEIGHTS, source={"default_event_type": default}), texts(rows))

from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chispa import assert_df_equality
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys.config import Settings
from recsys.config.sections import EventWeight
from recsys.contracts import WEIGHT_PARTS
from recsys.tables.clean import aggregate, parse_time, tag, weigh
from tests.tables.helpers import NOON, event

TEXTS = (
    "user_id string, item_id string, event_type string, value string, event_time string, event_id string, "
    "list_id string"
)
JUDGED = "user_id string, item_id string, event_type string, value double, event_time timestamp, ingested_at timestamp"


def judge(spark: SparkSession, settings: Settings, *events: dict[str, Any]) -> list[list[str]]:
    """Reasons against each event, in order; all are ingested at noon of 1 May 2024."""
    tagged = tag(as_text(spark, *events), settings)
    return [
        row.reasons for row in tagged.select("reasons", F.col("event_id").cast("int")).orderBy("event_id").collect()
    ]


def as_text(spark: SparkSession, *events: dict[str, Any]) -> DataFrame:
    columns = [column.split()[0] for column in TEXTS.split(", ")]
    rows = [{**dict.fromkeys(columns), **event, "event_id": str(number)} for number, event in enumerate(events)]
    frame = spark.createDataFrame([tuple(row[column] for column in columns) for row in rows], TEXTS)
    return frame.select(
        "*",
        F.lit(None).cast("string").alias("unreadable"),
        F.lit("text").alias("raw"),
        F.lit(NOON).alias("ingested_at"),
    )


RULES = [
    ({}, []),
    ({"user_id": None}, ["missing user_id"]),
    ({"user_id": " \t"}, ["missing user_id"]),
    ({"item_id": ""}, ["missing item_id"]),
    ({"user_id": "é" * 512}, []),
    ({"user_id": "é" * 512 + "x"}, ["user_id is too long"]),
    ({"user_id": "J\ufffdrgen"}, ["user_id is not UTF-8"]),
    ({"item_id": "x" * 1025}, ["item_id is too long"]),
    ({"user_id": " " * 1025}, ["missing user_id", "user_id is too long"]),
    ({"list_id": "any text"}, []),
    ({"list_id": "x" * 1025}, []),
    ({"event_type": None}, ["missing event_type"]),
    ({"event_type": "sneeze"}, ["unknown event_type"]),
    ({"event_time": None}, ["missing event_time"]),
    ({"event_time": "yesterday"}, ["unparsable event_time"]),
    ({"event_time": "12:30:00"}, ["unparsable event_time"]),
    ({"event_time": "NaN"}, ["unparsable event_time"]),
    ({"event_time": "1e300"}, ["unparsable event_time"]),
    ({"event_time": "1989-12-31T23:59:59Z"}, ["event_time before 1990-01-01"]),
    ({"event_time": "1990-01-01"}, []),
    ({"event_time": "2024-05-02T12:00:00Z"}, []),
    ({"event_time": "2024-05-02T12:00:01Z"}, ["event_time in the future"]),
    ({"value": "many"}, ["non-numeric value"]),
    ({"value": "NaN"}, ["non-finite value"]),
    ({"value": "-Infinity"}, ["non-finite value"]),
    ({"value": "1e7"}, ["value out of range"]),
    ({"value": "-1e6"}, []),
    ({"event_type": "watch"}, ["missing value"]),
    ({"event_type": "watch", "value": "-0.5"}, ["value out of range"]),
    ({"event_type": "watch", "value": "0"}, []),
    ({"event_type": "rate", "value": "6"}, ["value out of range"]),
]


def test_each_rule_on_its_own(spark: SparkSession, settings: Callable[..., Settings], tmp_path: Path) -> None:
    weights = {
        "view": 1,
        "watch": {"weight": 1, "value": "log"},
        "rate": {"weight": 1, "value": "multiply", "min_value": 1, "max_value": 5},
    }
    found = judge(spark, settings(tmp_path, weights=weights), *(event(**fields) for fields, _ in RULES))
    assert list(zip([fields for fields, _ in RULES], found, strict=True)) == RULES


def test_every_reason_that_applies_is_given(
    spark: SparkSession, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    bad = {"item_id": "", "event_type": "sneeze", "event_time": "1970-01-01", "value": "inf"}
    assert judge(spark, settings(tmp_path), bad, event()) == [
        [
            "missing user_id",
            "missing item_id",
            "unknown event_type",
            "event_time before 1990-01-01",
            "non-finite value",
        ],
        [],
    ]


def test_the_default_event_type_fills_only_what_is_missing(
    spark: SparkSession, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    configured = settings(tmp_path, source={"default_event_type": "purchase"})
    tagged = tag(as_text(spark, event(event_type=None), event(event_type="view"), event(event_type="x")), configured)
    kinds = {row.event_id: row.event_type for row in tagged.collect()}
    assert kinds == {"0": "purchase", "1": "view", "2": "x"}


def test_the_text_of_a_bad_record_is_kept_and_that_of_a_good_one_dropped(
    spark: SparkSession, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    tagged = tag(as_text(spark, event(), event(user_id=None)), settings(tmp_path))
    assert {row.event_id: row.raw for row in tagged.collect()} == {"0": None, "1": "text"}


TIMES = {
    "2024-05-01T12:00:00Z": NOON,
    "2024-05-01T14:00:00+02:00": NOON,
    "2024-05-01 12:00:00": NOON,
    "2024-05-01T12:00:00.123456Z": NOON.replace(microsecond=123456),
    "2024-05-01": NOON.replace(hour=0),
    "1714564800": NOON,
    "1714564800000": NOON,
    " 1714564800.123456 ": NOON.replace(microsecond=123456),
    "1.7145648E9": NOON,
    "1714564800123": NOON.replace(microsecond=123000),
    "-1": datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
    "20240501": datetime(1970, 8, 23, 6, 21, 41, tzinfo=UTC),
    "T12": None,
    "2024-13-01": None,
    "9" * 400: None,
    # Of so many digits, a pattern that can cut them in two ways tries half a million million cuts.
    "9" * 1_000_000 + "x": None,
    "1d": None,
    "": None,
}


def test_times(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(text,) for text in TIMES], "text string").coalesce(1)
    found = frame.select("text", parse_time(F.col("text")).alias("time")).toArrow().to_pylist()
    assert {row["text"]: row["time"] for row in found} == TIMES


def test_weights_follow_the_type_and_the_value(spark: SparkSession) -> None:
    weights = {
        "view": EventWeight(weight=1),
        "watch": EventWeight(weight=2, value="log", min_value=0),
        "rate": EventWeight(weight=-1, value="multiply"),
        "shown": EventWeight(weight=0, impression=True),
    }
    rows = [("view", 7.0, 1.0), ("view", None, 1.0), ("watch", 3.0, 4.0), ("watch", 0.0, 0.0), ("rate", 2.5, -2.5)]
    rows = [(*row, 0) for row in rows] + [("shown", 0.4, 0.0, 1)]
    expected = spark.createDataFrame(rows, "event_type string, value double, weight double, impressions bigint")
    assert_df_equality(weigh(expected.drop("weight", "impressions"), weights), expected, ignore_nullable=True)


events_of_pairs = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.floats(-10, 10), st.integers(0, 1000)), max_size=12
)


@given(events_of_pairs, st.randoms())
@examples(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_aggregation_agrees_with_a_loop_in_whatever_order_the_events_come(
    spark: SparkSession, events: list[tuple[str, str, float, int]], random: Any
) -> None:
    def sums(order: list[tuple[str, str, float, int]]) -> dict[tuple[str, str], tuple[float, int, int, int]]:
        rows = [(u, i, "rate", v, datetime.fromtimestamp(t, UTC), NOON) for u, i, v, t in order]
        weights = {"rate": EventWeight(weight=1, value="multiply")}
        table = aggregate(weigh(spark.createDataFrame(rows, JUDGED), weights)).toArrow().to_pylist()
        return {
            (row["user_id"], row["item_id"]): (
                row["weight"],
                row["events"],
                int(row["first_event_time"].timestamp()),
                int(row["last_event_time"].timestamp()),
            )
            for row in table
        }

    groups = defaultdict(list)
    for user, item, value, time in events:
        groups[user, item].append((value, time))
    found = sums(events)
    assert found.keys() == groups.keys()
    for pair, group in groups.items():
        weight, count, first, last = found[pair]
        times = [time for _, time in group]
        assert (count, first, last) == (len(group), min(times), max(times))
        assert weight == sum(round(value * WEIGHT_PARTS) for value, _ in group) / WEIGHT_PARTS
    shuffled = events.copy()
    random.shuffle(shuffled)
    assert sums(shuffled) == found

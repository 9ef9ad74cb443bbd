import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.config.settings import as_settings
from recsys.errors import ConfigError, InputError
from recsys.tables.failures import explain_failure
from recsys.tables.jars import kafka_package, s3_packages
from recsys.tables.session import _start_settings
from recsys.tables.source import open_events, read_events, refuse_unusable
from tests.tables.helpers import drain, event, write_lines

Factory = Callable[..., Settings]

SHOP = [
    {"customer": "ann", "article": "tea", "what": "view", "amount": None, "at": "2024-05-01T10:00:00Z"},
    {"customer": "ann", "article": "tea", "what": "rating", "amount": 4.0, "at": "2024-05-01T11:00:00Z"},
    {"customer": "bob", "article": "jam", "what": "purchase", "amount": 2.0, "at": "2024-05-01T12:00:00Z"},
    {"customer": "bob", "article": "jam", "what": "purchase", "amount": float("nan"), "at": "2024-05-01T12:00:00Z"},
]
MAPPING = {
    "user_id": "customer",
    "item_id": "article",
    "event_type": "what",
    "value": "amount",
    "event_time": "at",
    "event_id": None,
}


def write_shop(spark: SparkSession, folder: Path, kind: str) -> None:
    table = pa.Table.from_pylist(SHOP)
    folder.mkdir()
    if kind == "json":
        (folder / "a.json").write_text("".join(json.dumps(record) + "\n" for record in SHOP))
    elif kind == "csv":
        pyarrow.csv.write_csv(table, folder / "a.csv")
    elif kind == "parquet":
        pyarrow.parquet.write_table(table, folder / "a.parquet")
    else:
        spark.createDataFrame(table).write.format("delta").mode("append").save(str(folder))


@pytest.mark.parametrize("kind", ["json", "csv", "parquet", "delta"])
def test_every_format_gives_the_same_events(spark: SparkSession, settings: Factory, tmp_path: Path, kind: str) -> None:
    write_shop(spark, tmp_path / "events", kind)
    source = {"format": kind, "columns": MAPPING}
    drained = drain(spark, settings(tmp_path, source=source, weights={"view": 1, "purchase": 4, "rating": 2}))
    assert drained.pairs == [("ann", "tea", 1.0, 1), ("ann", "tea", 2.0, 1), ("bob", "jam", 4.0, 1)]
    assert drained.reasons == [["non-finite value"]]
    assert "jam" in drained.rejected[0]["raw"]


def test_typed_times_and_numbers_are_read_without_loss(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    rows = spark.sql(
        "SELECT 7L AS user_id, 'i' AS item_id, 'view' AS event_type,"
        " TIMESTAMP '2024-05-01 12:00:00.123456' AS event_time, DATE '2024-05-01' AS unused"
    )
    rows.write.format("delta").save(str(tmp_path / "events"))
    drained = drain(spark, settings(tmp_path, source={"format": "delta"}))
    assert drained.pairs == [("7", "i", 1.0, 1)]
    assert drained.rows[0]["last_event_time"][0].as_py().microsecond == 123456


def test_a_second_run_reads_only_what_is_new(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    write_lines(tmp_path / "events/1.json", event(user_id="a"), event(user_id="b"))
    assert [pair[0] for pair in drain(spark, configured).pairs] == ["a", "b"]
    write_lines(tmp_path / "events/2.json", event(user_id="c"))
    assert [pair[0] for pair in drain(spark, configured).pairs] == ["c"]


def test_duplicates_are_dropped_within_a_batch_between_batches_and_over_restarts(
    spark: SparkSession, settings: Factory, tmp_path: Path
) -> None:
    configured = settings(tmp_path, source={"options": {"maxFilesPerTrigger": 1}})
    write_lines(tmp_path / "events/1.json", event(event_id="1"), event(event_id="1"), event(event_id="2"))
    write_lines(tmp_path / "events/2.json", event(event_id="2"), event(event_id="3"))
    first = drain(spark, configured)
    # A day late by its own time, and still new: the clock is the arrival.
    late = event(event_id="4", event_time="2023-01-01")
    write_lines(tmp_path / "events/3.json", event(event_id="1"), event(event_id="3"), late)
    second = drain(spark, configured)
    assert [counts.records for counts in first.counts + second.counts] == [2, 1, 1]
    assert (first.duplicates, second.duplicates) == (2, 2)


def test_bad_records_and_records_without_an_id_are_no_duplicates_of_each_other(
    spark: SparkSession, settings: Factory, tmp_path: Path
) -> None:
    bad = [event(event_id="1", user_id=None), event(event_id="1", event_type="sneeze")]
    nameless = [event(), event(event_id=None), event(event_id=" ")]
    write_lines(tmp_path / "events/1.json", *bad, *nameless, event(event_id="1"), event(event_id="1"), "no json")
    drained = drain(spark, settings(tmp_path))
    assert (drained.records, drained.duplicates) == (7, 1)
    assert drained.pairs == [("u", "i", 4.0, 4)]
    assert sorted(drained.reasons) == [["missing user_id"], ["not JSON"], ["unknown event_type"]]


def test_a_source_without_event_ids_keeps_no_state(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    write_lines(tmp_path / "events/1.json", event(event_id="1"), event(event_id="1"))
    configured = settings(tmp_path, source={"columns": {"event_id": None}})
    assert drain(spark, configured).records == 2
    assert not (tmp_path / "recsys/checkpoint/state").exists()


def test_batches_are_bounded_by_the_number_of_records(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    for number in range(6):
        write_lines(tmp_path / f"events/{number}.json", *[event(item_id=str(item)) for item in range(10)])
    drained = drain(spark, settings(tmp_path, source={"max_records_per_batch": 25, "columns": {"event_id": None}}))
    assert [counts.records for counts in drained.counts] == [20, 20, 20]


def test_a_file_larger_than_the_bound_is_still_read(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    write_lines(tmp_path / "events/1.json", *[event(item_id=str(item)) for item in range(10)])
    assert drain(spark, settings(tmp_path, source={"max_records_per_batch": 1})).records == 10


def test_old_files_are_not_forgotten(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    import os

    write_lines(tmp_path / "events/old.json", event(user_id="old"))
    os.utime(tmp_path / "events/old.json", (1e9, 1e9))
    configured = settings(tmp_path, source={"options": {"maxFilesPerTrigger": 1, "latestFirst": False}})
    write_lines(tmp_path / "events/new.json", event(user_id="new"))
    assert {pair[0] for pair in drain(spark, configured).pairs} == {"old", "new"}
    write_lines(tmp_path / "events/older.json", event(user_id="older"))
    os.utime(tmp_path / "events/older.json", (9e8, 9e8))
    assert {pair[0] for pair in drain(spark, configured).pairs} == {"older"}


def refused(spark: SparkSession, settings: Settings, problem: type[Exception], *words: str) -> None:
    with pytest.raises(problem) as caught:
        open_events(spark, settings)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("kind", ["json", "csv", "parquet", "delta"])
def test_a_missing_path_is_refused(spark: SparkSession, settings: Factory, tmp_path: Path, kind: str) -> None:
    refused(spark, settings(tmp_path, source={"format": kind}), InputError, str(tmp_path / "events"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_empty_folder_is_refused_where_columns_must_be_learned(
    spark: SparkSession, settings: Factory, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "events").mkdir()
    refused(spark, settings(tmp_path, source={"format": kind}), InputError, "no file yet")


def test_an_empty_folder_of_json_waits_for_its_first_file(
    spark: SparkSession, settings: Factory, tmp_path: Path
) -> None:
    (tmp_path / "events").mkdir()
    assert drain(spark, settings(tmp_path)).records == 0
    write_lines(tmp_path / "events/1.json", event())
    assert drain(spark, settings(tmp_path)).records == 1


@pytest.mark.parametrize("kind", ["csv", "parquet", "delta"])
def test_a_missing_column_is_refused_by_name(spark: SparkSession, settings: Factory, tmp_path: Path, kind: str) -> None:
    write_shop(spark, tmp_path / "events", kind)
    columns = {**MAPPING, "item_id": "sku"}
    refused(spark, settings(tmp_path, source={"format": kind, "columns": columns}), InputError, "'sku'", "article")
    columns = {**MAPPING, "event_id": "number"}
    refused(spark, settings(tmp_path, source={"format": kind, "columns": columns}), InputError, "'number'")


def test_optional_columns_that_nobody_named_may_be_absent(
    spark: SparkSession, settings: Factory, tmp_path: Path
) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events/a.csv").write_text("user_id,item_id,event_time\nu,i,2024-05-01\n")
    source: dict[str, Any] = {"format": "csv"}
    refused(spark, settings(tmp_path, source=source), InputError, "'event_type'")
    drained = drain(spark, settings(tmp_path, source={**source, "default_event_type": "view"}))
    assert drained.pairs == [("u", "i", 1.0, 1)]


@pytest.mark.parametrize(
    ("source", "problem", "word"),
    [
        ({"columns": {"event_type": None}}, ConfigError, "default_event_type"),
        ({"default_event_type": "sneeze"}, ConfigError, "sneeze"),
        ({"watermark": "soon"}, ConfigError, "soon"),
        ({"options": {"multiLine": True}}, InputError, "multiLine"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    spark: SparkSession,
    settings: Factory,
    tmp_path: Path,
    source: dict[str, Any],
    problem: type[Exception],
    word: str,
) -> None:
    (tmp_path / "events").mkdir()
    refused(spark, settings(tmp_path, source=source), problem, word)


def test_column_names_are_taken_literally(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    columns = {"user_id": "a.b`c", "item_id": "item id", "event_id": None}
    record = {**event(), "a.b`c": "u1", "item id": "i1"}
    table = pa.Table.from_pylist([record])
    (tmp_path / "events").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "events/a.parquet")
    configured = settings(tmp_path, source={"format": "parquet", "columns": columns})
    assert read_events(spark, configured.source).columns[:2] == ["user_id", "item_id"]
    assert drain(spark, configured).pairs == [("u1", "i1", 1.0, 1)]


def test_a_table_of_the_catalog_is_read_by_name_and_refused_once_rows_are_deleted(
    spark: SparkSession, settings: Factory, tmp_path: Path
) -> None:
    spark.createDataFrame([event(item_id=f"i{number}") for number in range(3)]).write.format("delta").saveAsTable(
        "shop"
    )
    try:
        made = settings(tmp_path, source={"format": "delta", "table": "shop", "columns": {"event_id": None}})
        assert sorted(item for _, item, _, _ in drain(spark, made).pairs) == ["i0", "i1", "i2"]
        with pytest.raises(InputError, match="source.table shop has no column 'uid' for source.columns.user_id"):
            open_events(spark, settings(tmp_path, source={**made.source.model_dump(), "columns": {"user_id": "uid"}}))
        with pytest.raises(InputError, match=r"source\.table default\.none is not a Delta table of the catalog"):
            open_events(spark, settings(tmp_path, source={"format": "delta", "table": "default.none"}))
        spark.sql("DELETE FROM shop WHERE item_id = 'i1'")
        spark.createDataFrame([event(item_id="i3")]).write.format("delta").mode("append").saveAsTable("shop")
        with pytest.raises(StreamingQueryException) as raised:
            drain(spark, settings(tmp_path, source={**made.source.model_dump(), "options": {"startingVersion": "0"}}))
        explained = explain_failure(raised.value)
        assert isinstance(explained, InputError)
        assert "source.options.skipChangeCommits=true" in str(explained)
        lenient = {**made.source.model_dump(), "options": {"startingVersion": "0", "skipChangeCommits": "true"}}
        drained = drain(spark, settings(tmp_path / "lenient", source=lenient))
        assert sorted(item for _, item, _, _ in drained.pairs) == ["i0", "i1", "i2", "i3"]
    finally:
        spark.sql("DROP TABLE shop")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"source.format": "kafka"}, "source.topics is empty"),
        ({"source.format": "kafka", "source.topics": ["events"]}, "no 'kafka.bootstrap.servers'"),
        ({"source.topics": ["events"]}, "source.format is json"),
        ({"quarantine.dead_letter_topic": "dead"}, "quarantine.dead_letter_topic needs source.format=kafka"),
        (
            {
                "source.format": "kafka",
                "source.topics": ["events"],
                "source.options": {"kafka.bootstrap.servers": "b:9092"},
                "quarantine.dead_letter_topic": "events",
            },
            "quarantine.dead_letter_topic is one of source.topics",
        ),
        ({"source.format": "cloudFiles"}, "source.format: cloudFiles (Auto Loader) is there on Databricks only"),
    ],
)
def test_settings_of_a_source_that_cannot_work_are_refused_without_spark(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        refuse_unusable(as_settings(given))


def test_the_connector_is_asked_for_only_where_the_source_is_kafka() -> None:
    for kafka in (True, False):
        packages = _start_settings({}, kafka, s3=False)["spark.jars.packages"].split(",")
        assert (kafka_package() in packages) == kafka
    brought = {"spark.driver.extraClassPath": "/jars/spark-sql-kafka.jar"}
    assert kafka_package() not in _start_settings(brought, kafka=True, s3=False)["spark.jars.packages"]


def test_the_client_of_s3_comes_without_all_other_clients_of_amazon() -> None:
    wanted = _start_settings({"spark.jars.excludes": "a:b"}, kafka=False, s3=True)
    assert set(s3_packages()) < set(wanted["spark.jars.packages"].split(","))
    assert wanted["spark.jars.excludes"] == "a:b,software.amazon.awssdk:bundle"
    own = _start_settings({"spark.jars": "/jars/hadoop-aws-3.5.0.jar"}, kafka=False, s3=True)
    assert "hadoop-aws" not in own["spark.jars.packages"]
    assert "spark.jars.excludes" not in own


def test_sources_with_columns_and_weights_of_their_own_feed_one_log(
    spark: SparkSession, settings: Factory, tmp_path: Path
) -> None:
    """Each is read by its own mapping, ids tell duplicates across them, and a restart reads only what is new."""
    shop, ratings = tmp_path / "shop", tmp_path / "ratings"
    write_lines(tmp_path / "events/1.json", event(event_id="1"), event(event_id="2", event_type="purchase"))
    write_shop(spark, shop, "csv")
    write_lines(ratings / "1.json", {"who": "u", "what": "i", "at": 1_714_564_800, "id": "1"}, {"who": "v", "at": "?"})
    columns = {"user_id": "who", "item_id": "what", "event_time": "at", "event_id": "id", "event_type": None}
    further = [
        {"path": str(shop), "format": "csv", "columns": MAPPING, "weight": 0.25},
        {"path": str(ratings), "columns": columns, "default_event_type": "rating"},
    ]
    configured = settings(tmp_path, sources=further, weights={"view": 1, "purchase": 4, "rating": 2})
    first = drain(spark, configured)
    assert sorted(first.pairs) == [
        ("ann", "tea", 0.25, 1),
        ("ann", "tea", 0.5, 1),
        ("bob", "jam", 1.0, 1),
        ("u", "i", 5.0, 2),
    ]
    assert first.duplicates == 1
    assert sorted(first.reasons) == [["missing item_id", "unparsable event_time"], ["non-finite value"]]
    write_lines(ratings / "2.json", {"who": "w", "what": "i", "at": 1_714_564_800, "id": "9"})
    assert drain(spark, configured).pairs == [("w", "i", 2.0, 1)]

    with pytest.raises(StreamingQueryException) as raised:
        drain(spark, configured.model_copy(update={"sources": configured.sources[:1]}))
    explained = explain_failure(raised.value)
    assert isinstance(explained, InputError)
    assert "the sources of a stream are fixed for its life" in str(explained)
    gone = configured.sources[0].model_copy(update={"path": str(tmp_path / "gone")})
    with pytest.raises(InputError, match=r"sources\[0\]: source.path .*gone does not exist"):
        open_events(spark, configured.model_copy(update={"sources": [gone]}))

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.contracts import (
    DECISIONS,
    INTERACTION_LOG,
    MODEL_UPDATES,
    QUARANTINE,
    RECOMMENDATIONS,
    TABLE_SCHEMAS,
    LedgerRow,
    StepId,
)
from recsys.errors import InputError
from recsys.registry.versions import Version
from recsys.server.stored import StoredTable
from recsys.tables import checkpoint, ledger, log, recommendations
from recsys.tables.delta import Tables
from tests.tables.helpers import NOON, drain, event, log_rows, write_lines
from tests.tables.test_log import transactions

Factory = Callable[..., Settings]


def test_all_tables_are_made_once(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    tables = Tables(spark, settings(tmp_path).storage)
    tables.create_missing()
    log.append(tables, log_rows(("a", "x", 1.0)), StepId(0, 0), "app")
    tables.create_missing()
    assert tables.read(INTERACTION_LOG).count() == 1
    assert {name: tables.version(name) for name in TABLE_SCHEMAS} == {
        name: int(name == INTERACTION_LOG) for name in TABLE_SCHEMAS
    }
    assert tables.read(INTERACTION_LOG, version=0).count() == 0


def test_storage_that_cannot_be_written_is_refused(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    blocked = Tables(spark, settings(tmp_path, storage={"root": str(tmp_path / "file/root")}).storage)
    with pytest.raises(InputError, match="cannot create table") as caught:
        blocked.create_missing()
    assert "\n" not in str(caught.value)


def test_a_table_of_another_kind_is_refused(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    tables = Tables(spark, settings(tmp_path).storage)
    spark.range(1).write.format("delta").save(tables.location(INTERACTION_LOG))
    with pytest.raises(InputError, match=INTERACTION_LOG):
        tables.create_missing()


@pytest.mark.parametrize("name", [INTERACTION_LOG, QUARANTINE, MODEL_UPDATES])
@pytest.mark.parametrize("catalog", [None, "spark_catalog.before"])
def test_a_table_of_the_old_names_is_refused_with_what_to_do(
    spark: SparkSession, settings: Factory, tmp_path: Path, catalog: str | None, name: str
) -> None:
    tables = Tables(spark, settings(tmp_path, storage={"catalog": catalog}).storage)
    old = TABLE_SCHEMAS[name].replace("generation BIGINT", "epoch BIGINT")
    assert old != TABLE_SCHEMAS[name]
    spark.sql("CREATE DATABASE IF NOT EXISTS before")
    try:
        table = f"{catalog}.{name}" if catalog else f"delta.`{tables.location(name)}`"
        spark.sql(f"CREATE TABLE {table} ({old}) USING DELTA")
        place = "storage.catalog to a new schema" if catalog else "storage.root to a new folder"
        with pytest.raises(
            InputError, match=rf"{name} was made by an earlier release .*'epoch'.*set {place}"
        ) as caught:
            tables.create_missing()
        assert "\n" not in str(caught.value)
        assert "epoch" in tables.read(name).columns, "nothing was done to it"
    finally:
        spark.sql("DROP DATABASE before CASCADE")


@pytest.mark.parametrize("catalog", [None, "spark_catalog.old"])
def test_a_ledger_of_an_earlier_release_is_given_its_new_columns(
    spark: SparkSession, settings: Factory, tmp_path: Path, catalog: str | None
) -> None:
    tables = Tables(spark, settings(tmp_path, storage={"catalog": catalog}).storage)
    columns, comma, _ = TABLE_SCHEMAS[MODEL_UPDATES].partition(f", {DECISIONS}")
    assert comma
    row = LedgerRow(StepId(0, 0), 1, 10, 3, 4, 1234, NOON, {"records": 12.0}, decisions=("history counts 1/16",))
    spark.sql("CREATE DATABASE IF NOT EXISTS old")
    try:
        table = f"{catalog}.{MODEL_UPDATES}" if catalog else f"delta.`{tables.location(MODEL_UPDATES)}`"
        spark.sql(f"CREATE TABLE {table} ({columns}) USING DELTA")
        spark.sql(f"INSERT INTO {table} VALUES (0, -1, 0, 10, 3, 4, 5, map('records', 12.0D), null, null, now())")
        for _ in range(2):
            tables.create_missing()
        assert tables.version(MODEL_UPDATES) == 2
        ledger.append(tables, [row], "app", 0)
        read = ledger.read(tables, 0, after=-2)
        assert [old.decisions for old in read] == [(), row.decisions]
        assert (read[0].input, read[0].settings) == (None, {})
    finally:
        spark.sql("DROP DATABASE old CASCADE")


def test_tables_of_a_catalog(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    spark.sql("CREATE DATABASE IF NOT EXISTS shop")
    tables = Tables(spark, settings(tmp_path, storage={"catalog": "spark_catalog.shop"}).storage)
    try:
        tables.create_missing()
        log.append(tables, log_rows(("a", "x", 1.0)), StepId(0, 0), "app")
        assert log.last_step(tables) == StepId(0, 0)
        assert tables.version(INTERACTION_LOG) == 1
        assert tables.location(INTERACTION_LOG) == "spark_catalog.shop.interaction_log"
    finally:
        spark.sql("DROP DATABASE shop CASCADE")


def test_a_table_that_only_newer_readers_read_is_refused(tables: Tables) -> None:
    name = tables.sql_name(INTERACTION_LOG)
    tables.spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('delta.enableDeletionVectors' = true)")
    with pytest.raises(InputError, match=f"{INTERACTION_LOG} needs Delta reader version 3 .*DROP FEATURE"):
        tables.create_missing()


def test_the_ledger_gives_back_what_it_was_given(tables: Tables) -> None:
    rows = [
        LedgerRow(
            step=StepId(1, batch),
            log_version=batch + 1,
            events=10,
            users=3,
            items=4,
            duration_ms=1234,
            ingested_at=NOON,
            metrics={"model/ndcg_at_20": 0.25, "records": 12.0},
            model_version="7" if batch else None,
            state_uri="file:/x" if batch else None,
            decisions=("surprise rose", "effort x2") if batch else (),
            input="0123" if batch else None,
            settings={"model.kind": "als"} if batch else {},
        )
        for batch in range(3)
    ]
    for row in [rows[1], rows[1], rows[2]]:
        ledger.append(tables, [row], "app", row.step.batch_id)
    ledger.append(tables, [rows[0]], "earlier", 0)
    assert transactions(tables, MODEL_UPDATES) == [("app", 1), ("app", 2), ("earlier", 0)]
    assert ledger.read(tables, generation=1, after=-1) == rows
    assert ledger.read(tables, generation=1, after=1) == rows[2:]
    last = ledger.last_row(tables)
    assert last is not None
    assert last.step == StepId(1, 2)
    assert ledger.first_step(tables, 1) == StepId(1, 0)


def test_only_lists_that_changed_are_written(tables: Tables) -> None:
    """Rows of other lists keep their version, time and scores, whatever the new ones are; the change feed tells."""
    schema = tables.read(RECOMMENDATIONS).schema

    def synced(version: int, lists: dict[str, list[str]]) -> recommendations.Synced:
        at = datetime(2024, 5, version)
        made = "m", str(version), at, f"list of version {version}", "als", 1.0, None, None
        rows = [(user, [(item, 1.0 / version) for item in own], *made) for user, own in lists.items()]
        return recommendations.sync(tables, tables.spark.createDataFrame(rows, schema).coalesce(1))

    first = {f"u{number}": ["a", "b"] for number in range(40)}
    assert synced(1, first) == recommendations.Synced(written=40, removed=0)
    before = tables.version(RECOMMENDATIONS)
    second = {**first, "u3": ["b", "a"], "new": []}
    del second["u7"]
    assert synced(2, second) == recommendations.Synced(written=2, removed=1)
    assert tables.version(RECOMMENDATIONS) == before + 1, "one commit"
    rows = {row.user_id: row for row in tables.read(RECOMMENDATIONS).collect()}
    assert {user: [pair.item_id for pair in row["items"]] for user, row in rows.items()} == second
    assert {user for user, row in rows.items() if row.model_version == "2"} == {"u3", "new"}
    assert {(row.scored_at.day, pair.score) for row in rows.values() for pair in row["items"]} == {(1, 1.0), (2, 0.5)}

    (metrics,) = tables.handle(RECOMMENDATIONS).history(1).select("operationMetrics").collect()
    assert int(metrics[0]["numTargetRowsCopied"]) == 0, "files of rows that stay are not written again"
    feed = tables.spark.read.option("readChangeFeed", True).option("startingVersion", before + 1).format("delta")
    kinds = {(row.user_id, row._change_type) for row in feed.load(tables.location(RECOMMENDATIONS)).collect()}
    changed = {("u3", "update_preimage"), ("u3", "update_postimage"), ("u7", "delete"), ("new", "insert")}
    assert kinds == changed

    # The server reads the lists of a version without Spark, deletion vectors included.
    for number, users in (("1", second.keys() - {"u3", "new"}), ("2", {"u3", "new"})):
        version = Version("m", number, "", {})
        found = StoredTable(tables._storage).newer([version])
        assert found is not None
        lists = found[version.uri]
        assert len(lists) == len(users)
        assert {user: lists.of(user, None) for user in users} == {
            user: (second[user], [1.0 / int(number)] * len(second[user])) for user in users
        }
    assert synced(3, second) == recommendations.Synced(written=0, removed=0)


def test_a_checkpoint_keeps_the_id_of_its_query(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    folder = tmp_path / "recsys/checkpoint"
    assert checkpoint.query_id(folder) is None
    write_lines(tmp_path / "events/1.json", event())
    drain(spark, settings(tmp_path))
    first = checkpoint.query_id(folder)
    assert first is not None
    drain(spark, settings(tmp_path))
    assert checkpoint.query_id(folder) == first

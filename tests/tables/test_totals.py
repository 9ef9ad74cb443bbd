import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.contracts import INTERACTION_LOG, INTERACTIONS, WEIGHT_PARTS, StepId
from recsys.tables import log, totals
from recsys.tables.delta import Fence, Tables
from recsys.tables.spark_table import LAST_COMMIT
from recsys.tables.totals import refresh, refreshed_through
from tests.tables.helpers import append_batches, log_rows

# As fine as weights of events can be.
ROWS = [
    [(f"u{number}", f"i{number % 3}", weight) for number, weight in zip(order, weights, strict=True)]
    for order, weights in zip(
        (np.random.default_rng(seed).permutation(4) for seed in range(6)),
        np.random.default_rng(9).integers(-30, 100, (6, 4)) / WEIGHT_PARTS,
        strict=True,
    )
]


def written(tables: Tables) -> pa.Table:
    return tables.read(INTERACTIONS).toArrow().sort_by([("user_id", "ascending"), ("item_id", "ascending")])


@pytest.mark.parametrize("schedule", [[6], [1, 2, 3, 4, 5, 6], [2, 5, 6], [0, 6]])
def test_any_schedule_gives_the_sums_of_the_log(tables: Tables, schedule: list[int]) -> None:
    done = 0
    for end in schedule:
        append_batches(tables, ROWS[done:end], first=done)
        done = end
        assert refresh(tables) == (StepId(0, end - 1) if end else None)
    sums: dict[tuple[str, str], float] = {}
    for rows in ROWS:
        for user, item, weight in rows:
            sums[user, item] = sums[user, item] + weight if (user, item) in sums else weight
    found = written(tables).to_pylist()
    assert {(row["user_id"], row["item_id"]): row["weight"] for row in found} == sums
    assert sum(row["events"] for row in found) == tables.read(INTERACTION_LOG).count()


class Crashed(Exception):
    """The process dies right before the commit of a refresh."""


@hypothesis_settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["batch", "again", "refresh", "crash", "compact", "vacuum", "rebuild"]), max_size=12))
def test_any_interleaving_equals_the_aggregated_log(
    spark: SparkSession,
    settings: Callable[..., Settings],
    empty_tables: Callable[[str], None],
    tmp_path_factory: pytest.TempPathFactory,
    acts: list[str],
) -> None:
    """Batches and their replays, refreshes and crashes in them, compaction, vacuum, and new generations."""
    storage = settings(tmp_path_factory.mktemp("law")).storage
    empty_tables(storage.root)
    tables, sums = Tables(spark, storage), dict[tuple[str, str], float]()
    step = last = StepId(0, -1)

    def batch(step: StepId) -> None:
        rows = ROWS[step.batch_id % len(ROWS)]
        log.append(tables, log_rows(*rows), step, f"stream {step.generation}")

    def crashing(*_: object) -> None:
        raise Crashed

    for act in acts:
        if act == "batch":
            step = last = replace(step, batch_id=step.batch_id + 1)
            batch(last)
            for user, item, weight in ROWS[step.batch_id % len(ROWS)]:
                sums[user, item] = sums.get((user, item), 0.0) + weight
        elif act == "again" and last.batch_id >= 0:
            batch(last)
        elif act == "refresh":
            refresh(tables)
        elif act == "crash" and step.batch_id >= 0 and refreshed_through(tables) != log.last_step(tables):
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(tables, "overwrite", crashing)
                with pytest.raises(Crashed):
                    refresh(tables)
        elif act in ("compact", "vacuum"):
            for name in (INTERACTION_LOG, INTERACTIONS):
                table = DeltaTable(tables.location(name))
                if act == "compact":
                    table.optimize.compact()
                else:
                    table.vacuum(0, dry_run=False, enforce_retention_duration=False)
        elif act == "rebuild":
            step = replace(step, generation=step.generation + 1)
    refresh(tables)
    columns = ["user_id", "item_id", "weight"]
    found = {(row["user_id"], row["item_id"]): row["weight"] for row in tables.rows(INTERACTIONS, columns).to_pylist()}
    assert found == sums


@pytest.mark.parametrize("through_driver", [totals.THROUGH_DRIVER, 0])
def test_totals_are_refreshed_beside_a_writer(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, through_driver: int
) -> None:
    """In a thread of its own, on the driver or by Spark, while batches enter the log."""
    monkeypatch.setattr(totals, "THROUGH_DRIVER", through_driver)
    monkeypatch.setattr(totals, "SHARE", 0)
    beside, ended = tables.beside(), threading.Event()

    def refresh_until_ended() -> int:
        refreshes = 0
        while not ended.is_set():
            refresh(beside)
            refreshes += 1
        return refreshes

    with ThreadPoolExecutor(1) as executor:
        refreshing = executor.submit(refresh_until_ended)
        append_batches(tables, ROWS * 5)
        ended.set()
        assert refreshing.result() > 0
    assert refresh(tables) == StepId(0, 5 * len(ROWS) - 1)
    sums: dict[tuple[str, str], float] = {}
    for user, item, weight in (row for rows in ROWS * 5 for row in rows):
        sums[user, item] = sums.get((user, item), 0.0) + weight
    assert {(row["user_id"], row["item_id"]): row["weight"] for row in written(tables).to_pylist()} == sums


def test_tables_beside_share_neither_session_nor_state(tables: Tables) -> None:
    tables.fence = Fence(7, lambda: None)
    beside = tables.beside()
    assert beside.fence == tables.fence
    assert beside.spark.sparkContext is tables.spark.sparkContext
    beside.spark.conf.set(LAST_COMMIT, "1")
    assert tables.spark.conf.get(LAST_COMMIT, None) != "1"
    assert beside.spark.conf.get("spark.sql.session.timeZone") == "UTC"
    assert beside._on_path[INTERACTIONS] is not tables._on_path[INTERACTIONS]


def test_large_totals_wait_until_the_log_has_grown_by_a_share(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then Spark adds up what the driver does for small ones."""
    many = [[(f"u{user}", "i", 1.0) for user in range(16)]]
    append_batches(tables, many)
    refresh(tables)
    monkeypatch.setattr(totals, "THROUGH_DRIVER", 0)
    append_batches(tables, [[("u1", "i", 0.5)]], first=1)
    assert refresh(tables) == StepId(0, 0), "one row is less than an eighth of sixteen"
    append_batches(tables, [[("new", "i", 0.25)]], first=2)
    assert refresh(tables) == StepId(0, 2)
    weights = {row["user_id"]: row["weight"] for row in written(tables).to_pylist()}
    assert weights == {f"u{user}": 1.0 for user in range(16)} | {"u1": 1.5, "new": 0.25}


def test_a_refresh_with_nothing_new_makes_no_commit(tables: Tables) -> None:
    append_batches(tables, ROWS[:1])
    refresh(tables)
    before = tables.version(INTERACTIONS)
    assert refresh(tables) == StepId(0, 0)
    assert tables.version(INTERACTIONS) == before


def test_upkeep_of_the_totals_does_not_hide_how_far_they_go(tables: Tables) -> None:
    append_batches(tables, ROWS[:2])
    refresh(tables)
    tables.handle(INTERACTIONS).optimize().executeCompaction()
    tables.spark.sql(f"ALTER TABLE delta.`{tables.location(INTERACTIONS)}` SET TBLPROPERTIES (note = 'mine')")
    assert refreshed_through(tables) == StepId(0, 1)


def test_totals_that_somebody_else_changed_are_recomputed(tables: Tables) -> None:
    append_batches(tables, ROWS[:3])
    refresh(tables)
    right = written(tables)
    tables.handle(INTERACTIONS).delete("item_id = 'i0'")
    assert refreshed_through(tables) is None
    refresh(tables)
    assert written(tables).equals(right)

"""Commits without Spark: once each, in any mixture with Spark's, whatever else happens to the table."""

import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys.contracts import BATCH, GENERATION, INTERACTION_LOG, StepId
from recsys.errors import LeaseError
from recsys.tables import conditions, log, path_table
from recsys.tables.conditions import between, of_step, to_expression
from recsys.tables.delta import Tables
from recsys.tables.path_table import PathTable
from tests.tables.helpers import log_rows

SCHEMA = (
    '{"type":"struct","fields":[{"name":"generation","type":"long","nullable":false,"metadata":{}},'
    '{"name":"batch_id","type":"long","nullable":false,"metadata":{}}]}'
)
STREAMED = {"delta.checkpointInterval": "10", "delta.dataSkippingNumIndexedCols": "2"}


def numbers(*steps: tuple[int, int]) -> pa.Table:
    """Rows of a table that has nothing but steps."""
    return pa.table({GENERATION: [generation for generation, _ in steps], BATCH: [batch for _, batch in steps]})


@pytest.fixture
def table(tmp_path: Path) -> PathTable:
    made = PathTable(str(tmp_path / "table"))
    made.create(SCHEMA, STREAMED)
    return made


def held(table: PathTable) -> Counter[tuple[int, int]]:
    rows = PathTable(table.path).rows([GENERATION, BATCH], [[]])
    return Counter(zip(*(column.to_pylist() for column in rows.columns), strict=True))


def test_a_repeated_append_is_a_no_op(table: PathTable) -> None:
    for batch in (0, 1, 1, 0, 2):
        table.append(numbers((0, batch)), "app", batch)
    PathTable(table.path).append(numbers((0, 2)), "app", 2)
    assert held(table) == {(0, 0): 1, (0, 1): 1, (0, 2): 1}


def test_what_was_committed_is_known_after_the_table_was_reopened(
    table: PathTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(path_table, "_REOPEN_AFTER", 2)
    monkeypatch.setattr(path_table, "DeltaTable", lambda path: opened.append(path) or DeltaTable(path))
    table.set_token(1)
    for batch in range(6):
        for _ in range(2):
            table.append(numbers((0, batch)), "app", batch, token=1)
    assert held(table) == {(0, batch): 1 for batch in range(6)}
    assert len(opened) >= 3
    with pytest.raises(LeaseError):
        table.append(numbers((0, 6)), "app", 6, token=2)


Meanwhile = Callable[[Callable[[], object]], None]


@pytest.fixture(params=["after the look", "before the commit"])
def meanwhile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Lets something happen once, right after a writer has looked at the table or right before it commits."""
    owner, name = (PathTable, "_write") if request.param == "after the look" else (path_table, "write_deltalake")

    def let(act: Callable[[], object]) -> None:
        go_on = getattr(owner, name)

        def late(*arguments: Any, **named: Any) -> Any:
            monkeypatch.setattr(owner, name, go_on)
            act()
            return go_on(*arguments, **named)

        monkeypatch.setattr(owner, name, late)

    return let


def test_of_two_writers_with_one_id_one_fails(table: PathTable, meanwhile: Meanwhile) -> None:
    other = PathTable(table.path)
    meanwhile(lambda: other.append(numbers((0, 0)), "app", 0))
    with pytest.raises(CommitFailedError):
        table.append(numbers((0, 0)), "app", 0)
    table.append(numbers((0, 0)), "app", 0)
    assert held(table) == {(0, 0): 1}


def test_a_writer_whose_token_was_replaced_cannot_commit(table: PathTable) -> None:
    table.set_token(1)
    table.append(numbers((0, 0)), "app", 0, token=1)
    other = PathTable(table.path)
    other.set_token(2)
    for write in (
        lambda: table.append(numbers((0, 1)), "app", 1, token=1),
        lambda: table.set_token(1),
    ):
        with pytest.raises(LeaseError, match="another writer has taken over"):
            write()
    other.append(numbers((0, 1)), "app", 1, token=2)
    assert held(table) == {(0, 0): 1, (0, 1): 1}


def test_a_token_taken_while_a_commit_is_on_its_way_stops_it(table: PathTable, meanwhile: Meanwhile) -> None:
    """The check before the commit is not what counts: the commit itself fails."""
    table.set_token(1)
    meanwhile(lambda: PathTable(table.path).set_token(2))
    with pytest.raises(LeaseError):
        table.append(numbers((0, 0)), "app", 0, token=1)
    assert held(table) == {}


WRITER_PROGRAM = """
import sys
import pyarrow as pa
from recsys.tables.path_table import PathTable
table, batches = PathTable(sys.argv[1]), int(sys.argv[2])
for batch in range(batches):
    table.append(pa.table({"generation": [0] * 500, "batch_id": [batch] * 500}), "app", batch)
    print(batch, flush=True)
"""


@pytest.mark.process
def test_a_writer_that_is_killed_within_a_commit_leaves_nothing_half_written(table: PathTable) -> None:
    """Killed at random instants of a loop that does nothing but commit, and started again from its first batch."""
    draw, batches, killed = random.Random(3), 150, 0
    while True:
        command = [sys.executable, "-c", WRITER_PROGRAM, table.path, str(batches)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = iter(process.stdout)
            # The instant within a commit is as random as the scheduler.
            for _ in range(draw.randrange(5, 40)):
                next(lines, None)
            process.kill() if killed < 8 else None
            for _ in lines:
                pass
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        killed += 1
    assert killed >= 4
    assert held(table) == {(0, batch): 500 for batch in range(batches)}


def test_spark_and_delta_rs_take_turns(tables: Tables, spark: SparkSession) -> None:
    """Appends of both, replays of both, compaction and vacuum between them."""
    rows = log_rows(("u", "i", 1.0))

    def by_driver(batch: int) -> None:
        log.append(tables, rows, StepId(0, batch), "app", f"input {batch}")

    def by_spark(batch: int) -> None:
        frame = spark.createDataFrame(rows).select(
            F.lit(0).cast("bigint").alias(GENERATION), F.lit(batch).cast("bigint").alias(BATCH), "*"
        )
        tables.append(INTERACTION_LOG, frame, "app", batch, user_metadata=f"input {batch}")

    by_spark(0)
    by_driver(0)
    by_driver(1)
    by_spark(1)
    tables.handle(INTERACTION_LOG).optimize().executeCompaction()
    by_driver(2)
    by_driver(1)
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    tables.handle(INTERACTION_LOG).vacuum(0)
    by_spark(3)
    by_driver(3)
    noted = [commit["userMetadata"] for commit in tables.commits(INTERACTION_LOG) if commit.get("userMetadata")]
    assert noted == ["input 3", "input 2", "input 1", "input 0"]
    assert tables.rows_by_step(INTERACTION_LOG, [[]]) == {StepId(0, batch): 1 for batch in range(4)}
    assert tables.read(INTERACTION_LOG).count() == tables.count(INTERACTION_LOG) == 4
    assert tables.span(INTERACTION_LOG) == (StepId(0, 0), StepId(0, 3))


@hypothesis_settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 4)), max_size=12), st.data())
def test_conditions_select_the_steps_between(steps: list[tuple[int, int]], data: st.DataObject) -> None:
    bound = st.none() | st.builds(StepId, st.integers(0, 3), st.integers(-2, 5))
    after, through = data.draw(bound), data.draw(bound)
    selected = numbers(*steps).cast(pa.schema({GENERATION: pa.int64(), BATCH: pa.int64()}))
    found = selected.filter(to_expression(between(after, through)))
    wanted = [
        step
        for step in steps
        if (after is None or StepId(*step) > after) and (through is None or StepId(*step) <= through)
    ]
    assert list(zip(*(column.to_pylist() for column in found.columns), strict=True)) == wanted


def test_conditions_mean_the_same_to_spark(tables: Tables) -> None:
    for batch in range(4):
        log.append(tables, log_rows(("u", "i", 1.0)), StepId(batch % 2, batch), f"app {batch % 2}")
    for where in (between(StepId(0, 0), StepId(1, 1)), between(None, None), of_step(StepId(1, 3))):
        rows = tables.read(INTERACTION_LOG).filter(conditions.to_column(where)).select(GENERATION, BATCH).collect()
        assert sorted((row.generation, row.batch_id) for row in rows) == sorted(
            (step.generation, step.batch_id) for step in tables.rows_by_step(INTERACTION_LOG, where)
        )


@pytest.mark.parametrize("compacted", [False, True])
def test_the_first_and_last_step_of_a_generation(table: PathTable, compacted: bool) -> None:
    assert table.span() is None
    steps = [(0, 0), (0, 1), (1, 1), (1, 2), (1, 3), (3, 7)]
    for number, step in enumerate(steps):
        table.append(numbers(step), "app", number)
    if compacted:  # One file with all generations: its statistics do not tell them apart.
        table.overwrite(numbers(*steps))
        table.append(numbers((1, 4)), "app", len(steps))
    assert table.span() == (StepId(3, 7), StepId(3, 7))
    assert table.span(1) == (StepId(1, 1), StepId(1, 4 if compacted else 3))
    assert table.span(2) is None
    assert table.count() == len(steps) + compacted


def test_the_log_is_read_in_ranges(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ranges give the batches that one large one gives, whatever the order of the files."""
    draw = np.random.default_rng(5)
    for batch in draw.permutation(9).tolist():
        rows = log_rows(*[(f"u{user}", "i", 1.0) for user in range(1 + batch % 4)])
        log.append(tables, rows, StepId(0, batch), f"app {batch}")
    whole = list(log.batches(tables))
    assert [step.batch_id for step, _ in whole] == list(range(9))
    monkeypatch.setattr(log, "ROWS_AT_ONCE", 5)
    parts = list(log.batches(tables))
    assert [(step, batch.user_ids) for step, batch in parts] == [(step, batch.user_ids) for step, batch in whole]


def test_ids_have_64_bit_offsets(tables: Tables) -> None:
    """With 32 bits, a column of ids ends at 2 GiB of text."""
    log.append(tables, log_rows(("u", "i", 1.0)), StepId(0, 0), "app")
    rows = tables.rows(INTERACTION_LOG, ["user_id", "item_id"])
    assert set(rows.schema.types) == {pa.large_string()}
    assert log.read_batch(tables, StepId(0, 0)).schema.field("user_id").type == pa.large_string()

"""Upkeep of the tables changes no row that anybody reads, and neither hinders nor is hindered by appends."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pyarrow as pa
import pytest
from delta.exceptions import ConcurrentAppendException

from recsys.contracts import INTERACTION_LOG, QUARANTINE, StepId
from recsys.tables import log, maintenance, quarantine
from recsys.tables.delta import Tables
from tests.tables.helpers import NOON, append_batches, log_rows

BATCHES = [[(f"u{user}", f"i{user % 3}", 1.0 + number) for user in range(5)] for number in range(8)]


def reject(tables: Tables, step: StepId, days_ago: int) -> None:
    """Two rejected records of a batch."""
    time = NOON - timedelta(days=days_ago)
    constants = {"generation": step.generation, "batch_id": step.batch_id, "reasons": ["not JSON"], "ingested_at": time}
    rows = pa.Table.from_pylist([{**constants, "raw": raw, "source": 0} for raw in "ab"])
    tables.append(QUARANTINE, rows, "test", step.batch_id)


def logged(tables: Tables) -> list[tuple[StepId, list[str], list[float]]]:
    return [(step, list(batch.user_ids), batch.weights.tolist()) for step, batch in log.batches(tables)]


def test_rows_are_the_same_after_compaction_and_vacuum(tables: Tables) -> None:
    append_batches(tables, BATCHES[:6])
    log.append(tables, log_rows(*BATCHES[6]), StepId(0, 6), "test", "its input")
    before, rows = logged(tables), log.read_batch(tables, StepId(0, 3))
    assert maintenance.compact(tables, INTERACTION_LOG) == (7, 1)
    assert maintenance.count_files(tables, INTERACTION_LOG) == 1
    assert maintenance.compact(tables, INTERACTION_LOG) == (0, 0), "and makes no commit"
    assert maintenance.count_unused_files(tables, INTERACTION_LOG) == 0, "they are too young"
    name = tables.sql_name(INTERACTION_LOG)
    tables.spark.sql(
        f"ALTER TABLE {name} SET TBLPROPERTIES ('delta.deletedFileRetentionDuration' = 'interval 0 hours')"
    )
    version = tables.version(INTERACTION_LOG)
    assert maintenance.count_unused_files(tables, INTERACTION_LOG) == 7
    assert tables.version(INTERACTION_LOG) == version
    maintenance.vacuum(tables, INTERACTION_LOG)
    assert maintenance.count_unused_files(tables, INTERACTION_LOG) == 0

    assert logged(tables) == before
    assert log.read_batch(tables, StepId(0, 3)).equals(rows)
    assert log.last_input(tables) == "its input", "recovery compares it with the plan"
    append_batches(tables, [BATCHES[6]], first=6)
    assert logged(tables) == before, "a batch that comes again is still a no-op"


def test_old_rejects_go_once_their_batch_is_in_the_ledger(tables: Tables) -> None:
    for batch, age in enumerate([40, 20, 40]):
        reject(tables, StepId(0, batch), age)
    before = NOON - timedelta(days=30)
    assert maintenance.count_old_rows(tables, QUARANTINE, before, StepId(0, 1)) == 2
    maintenance.delete_old_rows(tables, QUARANTINE, before, StepId(0, 1))
    assert [quarantine.of_batch(tables, StepId(0, batch)).count() for batch in range(3)] == [0, 2, 2]


def test_appends_and_upkeep_at_the_same_time(tables: Tables) -> None:
    """No append fails, and no row is lost or doubled, whatever comes between reading and commit of the other."""

    def stream() -> None:
        for number, rows in enumerate(BATCHES):
            append_batches(tables, [rows], first=number)
            reject(tables, StepId(0, number), days_ago=40 * (number % 2))

    rounds = 0
    with ThreadPoolExecutor(1) as beside:
        writer = beside.submit(stream)
        while not writer.done() or not rounds:
            rounds += 1
            before = NOON - timedelta(days=30)
            maintenance.delete_old_rows(tables, QUARANTINE, before, StepId(0, len(BATCHES)))
            for name in (INTERACTION_LOG, QUARANTINE):
                maintenance.compact(tables, name)
        writer.result()
    assert rounds
    assert [(step.batch_id, users) for step, users, _ in logged(tables)] == [
        (number, [user for user, _, _ in rows]) for number, rows in enumerate(BATCHES)
    ]
    assert maintenance.delete_old_rows(tables, QUARANTINE, before, StepId(0, len(BATCHES)))
    kept = [quarantine.of_batch(tables, StepId(0, number)).count() for number in range(len(BATCHES))]
    assert kept == [2, 0] * (len(BATCHES) // 2)


@pytest.mark.parametrize(("conflicts", "done"), [(0, True), (2, True), (10, False)])
def test_a_change_that_cannot_follow_a_commit_starts_again(conflicts: int, done: bool) -> None:
    left = iter([True] * conflicts)

    def change() -> None:
        if next(left, False):
            raise ConcurrentAppendException("files were added")

    assert maintenance.succeeds(change) is done
    assert next(left, None) is None


def test_another_failure_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        maintenance.succeeds(lambda: 1 / 0)

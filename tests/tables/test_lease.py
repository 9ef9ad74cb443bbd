"""One writer at a time, on whatever host."""

import os
import socket
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.contracts import INTERACTION_LOG, WRITERS, StepId
from recsys.errors import LeaseError
from recsys.tables import lease, log
from recsys.tables.delta import Tables
from recsys.tables.lease import Holder
from tests.tables.helpers import log_rows

ROWS = log_rows(("u", "i", 1.0))


def same(tables: Tables) -> Tables:
    """The same tables, as another process sees them."""
    return Tables(tables.spark, tables._storage)


def on_another_host(monkeypatch: pytest.MonkeyPatch, name: str = "elsewhere") -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)


def let_expire(tables: Tables) -> None:
    """The last sign of life of the holder is as old as its lease."""
    holder = lease.current(tables)
    assert holder is not None
    silent = replace(
        holder, revision=holder.revision + 1, renewed_at=holder.renewed_at - timedelta(seconds=holder.lease_seconds)
    )
    assert tables.replace(WRITERS, pa.Table.from_pylist([asdict(silent)], lease._ROW), silent.revision)


def test_a_second_writer_is_refused_by_a_line_that_names_the_first(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, process = socket.gethostname(), os.getpid()
    with lease.held(tables, "stream_update", 300):
        on_another_host(monkeypatch)
        with pytest.raises(LeaseError, match=rf"^stream_update on host {here} \(process {process}, since .* UTC\)"):
            lease.take(same(tables), "rebuild", 300)
    # The first has ended, so it is the second one's turn.
    with lease.held(same(tables), "rebuild", 300):
        assert [row["job"] for row in tables.rows(WRITERS, ["job", "token"]).to_pylist()] == ["rebuild"]


def test_a_writer_that_was_taken_over_cannot_append(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, other = tables, same(tables)
    with lease.held(slow, "stream_update", 300):
        log.append(slow, ROWS, StepId(0, 0), "slow")
        let_expire(other)
        on_another_host(monkeypatch)
        with lease.held(other, "stream_update", 300):
            log.append(other, ROWS, StepId(0, 1), "other")
            with pytest.raises(LeaseError, match="another writer has taken over"):
                log.append(slow, ROWS, StepId(0, 1), "slow")
        assert slow.rows_by_step(INTERACTION_LOG, [[]]) == {StepId(0, 0): 1, StepId(0, 1): 1}
    holder = lease.current(tables)
    assert holder is not None
    assert (holder.host, holder.token, holder.released) == ("elsewhere", 2, True), "the slow one released nothing"


def test_of_two_that_take_it_at_the_same_time_one_gets_it(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    other, current = same(tables), lease.current

    def seen_before_the_other_takes_it(tables: Tables, name: str) -> Holder | None:
        present = current(tables, name)
        monkeypatch.setattr(lease, "current", current)
        lease.take(other, "rebuild", 300)
        return present

    monkeypatch.setattr(lease, "current", seen_before_the_other_takes_it)
    with pytest.raises(LeaseError, match="at the same time"):
        lease.take(tables, "stream_update", 300)
    holder = current(tables)
    assert holder is not None
    assert holder.job == "rebuild"


def test_who_is_gone() -> None:
    now = datetime(2024, 5, 1, tzinfo=UTC)
    here, nobody = socket.gethostname(), 2**22 + 1  # Linux gives no process such a number.
    alive = Holder(1, 1, "rebuild", "elsewhere", os.getpid(), now, now, 60)
    assert not alive.is_gone(now + timedelta(seconds=59))
    assert alive.is_gone(now + timedelta(seconds=60))
    assert replace(alive, released=True).is_gone(now)
    assert replace(alive, host=here, process=nobody).is_gone(now), "a process that has died on this host"
    assert not replace(alive, host=here, process=os.getppid()).is_gone(now)


def test_the_lease_is_renewed(tables: Tables) -> None:
    held = lease.Lease(tables, lease.take(tables, "stream_update", 300))
    before = lease.current(tables)

    class AfterOneTurn:
        turns = 0

        def wait(self, seconds: float) -> bool:
            assert seconds == 100
            self.turns += 1
            return self.turns > 1

    held.renew_until(AfterOneTurn())  # type: ignore[arg-type]
    after = lease.current(tables)
    assert before is not None
    assert after is not None
    assert (after.token, after.revision, after.since) == (before.token, before.revision + 1, before.since)
    assert after.renewed_at > before.renewed_at


def test_a_lease_in_a_catalog(
    spark: SparkSession, settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a token in its commits, a writer that lost its lease is stopped by asking."""
    spark.sql("CREATE DATABASE IF NOT EXISTS leased")
    storage = settings(tmp_path, storage={"catalog": "spark_catalog.leased"}).storage
    slow, other = Tables(spark, storage), Tables(spark, storage)
    try:
        slow.create_missing()
        with lease.held(slow, "stream_update", 300):
            log.append(slow, ROWS, StepId(0, 0), "slow")
            let_expire(other)
            on_another_host(monkeypatch)
            with lease.held(other, "rebuild", 300):
                # It has slept through the time of its lease.
                monkeypatch.setattr(lease.time, "monotonic", lambda: float("inf"))
                with pytest.raises(LeaseError, match="taken over"):
                    log.append(slow, ROWS, StepId(0, 1), "slow")
    finally:
        spark.sql("DROP DATABASE leased CASCADE")

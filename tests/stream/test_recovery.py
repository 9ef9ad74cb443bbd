"""Restarts: the same model whatever was lost, and refusals where events would be lost or counted twice."""

import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chispa import assert_df_equality
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys.config import Settings
from recsys.config.sections import EventWeight
from recsys.contracts import INTERACTION_LOG, INTERACTIONS, StepId
from recsys.errors import InputError, LeaseError, SolveError
from recsys.model.als.incremental_als import IncrementalAls
from recsys.model.interactions.history import History
from recsys.model.learner import CodedBatch
from recsys.model.recommender import OnlineModel
from recsys.storage import checkpoint_folder, snapshot_folder
from recsys.stream.job import run_stream
from recsys.stream.rebuild import rebuild
from recsys.stream.requeue import requeue_batches
from recsys.tables import lease, ledger, log
from recsys.tables.delta import Tables
from recsys.tables.lease import Holder
from tests.stream.checks import MakeSettings, arrays, steps, totals_of_log
from tests.stream.disturbed import InterruptedStage
from tests.streams import records, write_stream


def test_a_failure_after_a_stop_is_a_failure_and_saves_nothing(stream: Settings) -> None:
    """SIGTERM comes during a batch that the model has learned when the batch fails."""
    write_stream(Path(stream.source.path), files=3)

    def fail(stage: str, step: StepId) -> None:
        if (stage, step.batch_id) == ("learn", 1):
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        run_stream(stream, observe=fail)
    assert not list(snapshot_folder(stream.storage.root).rglob("*.safetensors"))
    assert run_stream(stream).batches == 2


def test_unusable_snapshots_are_passed_over(stream: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """The newest is torn, the one before holds a later batch than its name says; the third, or the log, is right."""
    write_stream(Path(stream.source.path), files=9)
    run_stream(stream)
    expected = arrays(stream, StepId(0, 8))
    folder = snapshot_folder(stream.storage.root) / "generation-0"
    (folder / "batch-5.safetensors").write_bytes((folder / "batch-8.safetensors").read_bytes())
    content = (folder / "batch-8.safetensors").read_bytes()
    (folder / "batch-8.safetensors").write_bytes(content[:-8])
    run_stream(stream)
    assert re.search(r"cannot read the snapshot .*batch-8.*: the model is recovered", caplog.text)
    assert re.search(r"batch-5\.safetensors holds step 0-8: the model is recovered", caplog.text)
    recovered = arrays(stream, StepId(0, 8))
    assert recovered.keys() == expected.keys()
    assert all((recovered[name] == array).all() for name, array in expected.items())


def test_a_batch_that_cannot_be_learned_is_set_aside_and_comes_back(
    spark: SparkSession, stream: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The solver fails on the second batch, until it is mended; the batch comes back with the first one after that."""
    folder, tables = Path(stream.source.path), Tables(spark, stream.storage)
    write_stream(folder, files=6)
    later = [folder / name for name in sorted(file.name for file in folder.iterdir())[3:]]
    for file in later:
        file.rename(tmp_path / file.name)
    solve = IncrementalAls.update

    def update(self: IncrementalAls, batch: CodedBatch, history: History, step: StepId, *rest: Any) -> dict[str, float]:
        if step.batch_id == 1 or batch.events.sum() > 120:
            raise SolveError("a row of factors is not finite")
        return solve(self, batch, history, step, *rest)

    monkeypatch.setattr(IncrementalAls, "update", update)
    assert run_stream(stream).batches == 3
    rows = ledger.read(tables, generation=0, after=-1)
    assert [row.metrics.get("set_aside") for row in rows] == [None, 1, None]
    assert rows[1].decisions == ("set aside: a row of factors is not finite",)
    assert tables.read(INTERACTION_LOG).agg(F.sum("events")).collect()[0][0] == 3 * 120

    assert requeue_batches(stream, dry_run=True) == [StepId(0, 1)]
    for file in later[:2]:
        assert requeue_batches(stream) == [StepId(0, 1)]
        assert requeue_batches(stream) == [], "asked for already"
        (tmp_path / file.name).rename(file)
        if file == later[1]:
            monkeypatch.undo()
        run_stream(stream)
    assert requeue_batches(stream) == []
    (tmp_path / later[2].name).rename(later[2])
    run_stream(stream)
    rows = ledger.read(tables, generation=0, after=2)
    assert [row.metrics.get("returned/1") for row in rows] == [0, 1, None]
    assert not any(ledger.is_set_aside(row) for row in rows), "the batch that it came back with was learned alone"

    logged = dict(log.batches(tables))
    expected = OnlineModel(stream)
    for batch_id in (0, 2, 3, 4, 5):
        step = StepId(0, batch_id)
        batches = [logged[step], *([logged[StepId(0, 1)]] if batch_id == 4 else [])]
        expected.update(log.joined(batches), step)
    for recovered in (False, True):
        if recovered:
            shutil.rmtree(snapshot_folder(stream.storage.root))
            run_stream(stream)
        found = arrays(stream, StepId(0, 5))
        assert found.keys() == expected.state().keys()
        assert all((found[name] == array).all() for name, array in expected.state().items())


def test_the_model_is_a_function_of_the_log(stream: Settings) -> None:
    """Without any snapshot the same state comes back, batch by batch, from the log."""
    write_stream(Path(stream.source.path), files=5)
    run_stream(stream)
    before = arrays(stream, StepId(0, 4))
    shutil.rmtree(snapshot_folder(stream.storage.root))
    assert run_stream(stream).batches == 0
    after = arrays(stream, StepId(0, 4))
    for name in before:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def test_a_lost_checkpoint_is_refused_until_a_rebuild(spark: SparkSession, stream: Settings) -> None:
    folder = Path(stream.source.path)
    write_stream(folder, files=3)
    run_stream(stream)
    shutil.rmtree(checkpoint_folder(stream.storage.root))
    with pytest.raises(InputError, match=r"checkpoint .* \(it is gone\).*jobs/rebuild\.py"):
        run_stream(stream)
    tables = Tables(spark, stream.storage)
    assert tables.read(INTERACTION_LOG).agg(F.sum("events")).collect()[0][0] == 3 * 120

    shutil.rmtree(folder)  # the source now holds only what is new
    write_stream(folder, files=5, first=3)
    rebuilt = rebuild(stream)
    assert rebuilt.generation == 1
    assert run_stream(stream).batches == 2
    assert steps(tables) == [(0, 0), (0, 1), (0, 2), (1, -1), (1, 0), (1, 1)]
    assert tables.read(INTERACTION_LOG).agg(F.sum("events")).collect()[0][0] == 5 * 120
    assert_df_equality(tables.read(INTERACTIONS), totals_of_log(tables), ignore_row_order=True, ignore_nullable=True)


def test_new_weights_need_the_events_again(stream: Settings) -> None:
    write_stream(Path(stream.source.path), files=1)
    run_stream(stream)
    shutil.rmtree(snapshot_folder(stream.storage.root))  # the ledger knows the settings, too
    heavier = {**stream.weights, "purchase": EventWeight(weight=5)}
    with pytest.raises(InputError, match=r"weights\.purchase\.weight \(was 3\.0, is 5\.0\): .* read the source again"):
        run_stream(stream.model_copy(update={"weights": heavier}))
    with pytest.raises(InputError, match=r"weights\.purchase\.value \(was ignore, is not set\)"):
        run_stream(stream.model_copy(update={"weights": {"view": stream.weights["view"]}}))


def test_a_checkpoint_of_another_time_is_refused(stream: Settings, tmp_path: Path) -> None:
    """Older and newer than the tables, and one whose last batch was planned anew."""
    events, root = Path(stream.source.path), Path(stream.storage.root)
    checkpoint, older = checkpoint_folder(stream.storage.root), tmp_path / "older"
    write_stream(events, files=3)
    run_stream(stream)
    shutil.copytree(root, older)
    write_stream(events, files=6, first=3)
    run_stream(stream)
    newer = shutil.copytree(checkpoint, tmp_path / "newer")

    def replace(folder: Path, by: Path) -> None:
        shutil.rmtree(folder)
        shutil.copytree(by, folder)

    replace(checkpoint, older / "checkpoint")
    write_stream(events, files=7, first=6)
    with pytest.raises(InputError, match=r"not the one of the tables .*\(it ends with batch 2\)"):
        run_stream(stream)
    replace(root, older)
    replace(checkpoint, newer)
    with pytest.raises(InputError, match=r"not the one of the tables .*\(it has finished batch 5\)"):
        run_stream(stream)
    replace(root, older)
    for file in ("commits/2", "offsets/2", "sources/0/2"):
        (checkpoint / file).unlink()
    with pytest.raises(InputError, match=r"not the one of the tables .*\(it ends with batch 1\)"):
        run_stream(stream)


def test_a_batch_that_was_planned_anew_is_refused(stream: Settings, tmp_path: Path) -> None:
    """A crash leaves it in the log or in the ledger, and the checkpoint is put back to before it was planned."""
    events, checkpoint = Path(stream.source.path), checkpoint_folder(stream.storage.root)
    for stage, batch in (("log", 1), ("ledger", 1)):
        write_stream(events, files=2)

        def stop(reached: str, step: StepId, at: tuple[str, int] = (stage, batch)) -> None:
            if (reached, step.batch_id) == at:
                raise InterruptedStage

        with pytest.raises(InterruptedStage):
            run_stream(stream, observe=stop)
        whole = shutil.copytree(checkpoint, tmp_path / f"{stage}-checkpoint")
        for file in ("offsets/1", "offsets/.1.crc", "sources/0/1", "sources/0/.1.crc"):
            (checkpoint / file).unlink()
        names = sorted(events.iterdir())
        names[1].rename(hidden := events.with_name("hidden.json"))
        write_stream(events, files=3, first=2)
        with pytest.raises(InputError, match=r"not the one of the tables"):
            run_stream(stream)
        hidden.rename(names[1])
        (events / names[1].name.replace("1", "2")).unlink()
        shutil.rmtree(checkpoint)
        whole.rename(checkpoint)
    assert run_stream(stream).batches == 0


@pytest.mark.parametrize("damage", ["removed", "overwritten"])
def test_a_logged_batch_needs_its_source_no_more(
    spark: SparkSession, ready: MakeSettings, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A crash after the append to the log, the file is lost, the stream goes on; with de-duplication, too."""
    source = {"format": "parquet", "options": {"maxFilesPerTrigger": "1"}}
    stream = ready(tmp_path, source=source, weights={"view": 1, "purchase": 3})
    events = Path(stream.source.path)
    events.mkdir()
    for number, batch in enumerate(records(3)):
        file = events / f"{number}.parquet"
        pq.write_table(pa.Table.from_pylist(batch), file)
        os.utime(file, (1_700_000_000 + number,) * 2)

    def stop(reached: str, step: StepId) -> None:
        if (reached, step.batch_id) == ("log", 1):
            raise InterruptedStage

    with pytest.raises(InterruptedStage):
        run_stream(stream, observe=stop)
    if damage == "removed":  # Spark reads a file that is not there as one without rows.
        (events / "1.parquet").unlink()
    else:
        (events / "1.parquet").write_bytes(b"x" * 1_000)
    assert run_stream(stream).batches == 2
    assert ("is in the log cannot be read again" in caplog.text) == (damage == "overwritten")
    tables = Tables(spark, stream.storage)
    rows = ledger.read(tables, generation=0, after=-1)
    assert [row.events for row in rows if row.events] == [120, 120, 120]
    assert all(row.input for row in rows)
    assert tables.read(INTERACTION_LOG).agg(F.sum("events")).collect()[0][0] == 3 * 120


def test_every_batch_has_a_row_even_without_records(spark: SparkSession, stream: Settings) -> None:
    events = Path(stream.source.path)
    write_stream(events, files=2)
    for number, file in enumerate(sorted(events.iterdir())):
        if number == 1:
            modified = file.stat().st_mtime
            file.write_text("")
            os.utime(file, (modified, modified))
    write_stream(events, files=3, first=2)
    assert run_stream(stream).batches == 2
    tables = Tables(spark, stream.storage)
    assert steps(tables) == [(0, 0), (0, 1), (0, 2)]
    empty = ledger.read(tables, generation=0, after=0)[0]
    assert (empty.events, empty.metrics["records"]) == (0, 0)
    expected = arrays(stream, StepId(0, 2))
    shutil.rmtree(snapshot_folder(stream.storage.root))
    run_stream(stream)
    assert all((array == expected[name]).all() for name, array in arrays(stream, StepId(0, 2)).items())


def test_recovery_and_rebuild_forget_what_the_stream_has_forgotten(spark: SparkSession, stream: Settings) -> None:
    """Files are an hour apart, so what one of them lacks is forgotten."""
    stream = stream.model_copy(update={"model": stream.model.model_copy(update={"forget_after_days": 0.02})})
    write_stream(Path(stream.source.path), files=5)
    run_stream(stream)
    rows = ledger.read(Tables(spark, stream.storage), generation=0, after=-1)
    assert min(sum(row.metrics[f"forgotten_{what}"] for row in rows) for what in ("users", "items", "pairs")) > 0
    expected = arrays(stream, StepId(0, 4))
    shutil.rmtree(snapshot_folder(stream.storage.root))
    run_stream(stream)
    assert all((array == expected[name]).all() for name, array in arrays(stream, StepId(0, 4)).items())
    rebuild(stream)
    rebuilt = arrays(stream, StepId(1, 4))
    for name in ("users.bytes", "items.bytes", "history.keys", "last_seen.users", "last_seen.items"):
        assert (rebuilt[name] == expected[name]).all(), name


def test_a_stream_whose_tables_were_taken_over_stops_and_can_go_on_later(
    spark: SparkSession, stream: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host finds the first one silent, takes the tables over between log and ledger, and ends."""
    write_stream(Path(stream.source.path), files=3)
    tables = Tables(spark, stream.storage)

    def take_over(stage: str, step: StepId) -> None:
        if (stage, step.batch_id) == ("log", 1):
            with monkeypatch.context() as elsewhere:
                elsewhere.setattr(Holder, "is_gone", lambda holder, now: True)
                lease.take(tables, "rebuild", 300)

    with pytest.raises(LeaseError, match="another writer has taken over"):
        run_stream(stream, observe=take_over)
    assert steps(tables) == [(0, 0)]
    assert run_stream(stream).batches == 2
    assert steps(tables) == [(0, 0), (0, 1), (0, 2)]
    assert tables.read(INTERACTION_LOG).agg(F.sum("events")).collect()[0][0] == 3 * 120

"""The stream as a whole: from files to tables, model and versions, and over restarts of every kind."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from chispa import assert_df_equality
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys.batch_scoring import chosen_version, score
from recsys.config import Settings
from recsys.contracts import INTERACTION_LOG, INTERACTIONS, QUARANTINE, RECOMMENDATIONS, StepId
from recsys.errors import InputError, RegistryDownError
from recsys.model import snapshot
from recsys.registry import versions
from recsys.registry.client import connect
from recsys.storage import snapshot_folder, writer_lock
from recsys.stream.job import run_stream
from recsys.stream.rebuild import rebuild
from recsys.tables import ledger
from recsys.tables.delta import Tables
from tests.stream.checks import MakeSettings, arrays, steps, totals_of_log
from tests.stream.disturbed import InterruptedStage
from tests.streams import records, write_lines, write_stream

ROOT = Path(__file__).parents[2]


def test_events_become_tables_versions_and_recommendations(spark: SparkSession, stream: Settings) -> None:
    shutil.rmtree(stream.storage.root)  # from nothing, as a first start
    write_stream(Path(stream.source.path), files=7)
    summary = run_stream(stream)
    tables = Tables(spark, stream.storage)

    assert (summary.batches, summary.events) == (7, 7 * 120)
    assert steps(tables) == [(0, batch) for batch in range(7)]
    assert tables.read(QUARANTINE).count() == 0
    assert_df_equality(tables.read(INTERACTIONS), totals_of_log(tables), ignore_row_order=True, ignore_nullable=True)
    rows = ledger.read(tables, generation=0, after=-1)
    assert "model/ndcg_at_5" not in rows[0].metrics, "nothing was known before the first batch"
    for row in rows[1:]:
        assert 0 <= row.metrics["model/ndcg_at_5"] <= 1
        assert 0 <= row.metrics["popularity_warm/auc"] <= 1
    assert "first/ndcg_at_5" in rows[3].metrics, "the version of batch 2 is measured from batch 3 on"
    assert [("shadow/ndcg_at_5" in row.metrics, "shadow_gap" in row.metrics) for row in rows[1:]] == [
        (batch % 2 == 1,) * 2 for batch in range(1, 7)
    ]
    for row in rows:
        assert row.metrics["user_staleness"] >= 0
        assert row.metrics["full_sweep"] in (0, 1)
    assert rows[5].state_uri == snapshot.path_for(snapshot_folder(stream.storage.root), StepId(0, 5)).as_posix()
    assert summary.plot is not None
    assert summary.plot.stat().st_size > 10_000

    client = connect(stream)
    scored = score(tables, chosen_version(stream), stream)
    assert scored.version == versions.champion(client, stream.mlflow.model_name)
    recommended = tables.read(RECOMMENDATIONS).collect()
    assert len(recommended) == 30
    assert all(len(row["items"]) == 5 for row in recommended)


def version_steps(settings: Settings) -> list[StepId | None]:
    client, name = connect(settings), settings.mlflow.model_name
    numbers = sorted(int(found.version) for found in client.search_model_versions(f"name='{name}'"))
    return [versions.resolve(client, f"models:/{name}/{number}").step for number in numbers]


def test_a_clean_end_registers_a_first_version(spark: SparkSession, stream: Settings) -> None:
    """A history in one file is one batch, and the cadence asks for many."""
    folder = Path(stream.source.path)
    write_stream(folder, files=2)
    summary = run_stream(stream)
    assert summary.champion_version == "1"
    assert version_steps(stream) == [StepId(0, 1)]
    scored = score(Tables(spark, stream.storage), chosen_version(stream), stream)
    assert (scored.version.step, scored.run.users) == (StepId(0, 1), 30)

    assert run_stream(stream).batches == 0
    write_stream(folder, files=6, first=2)
    assert run_stream(stream).champion_version is not None
    assert version_steps(stream) == [StepId(0, 1), StepId(0, 4)], "three batches after the first one, the next is due"


def test_a_stream_that_learned_of_no_item_registers_nothing(ready: MakeSettings, tmp_path: Path) -> None:
    write_lines(tmp_path / "events", 0, ["no json"])
    made = ready(tmp_path, weights={"view": 1})
    assert run_stream(made).champion_version is None
    assert version_steps(made) == []


def test_a_stream_that_fails_registers_nothing(stream: Settings) -> None:
    write_stream(Path(stream.source.path), files=2)

    def fail(stage: str, step: StepId) -> None:
        if (stage, step.batch_id) == ("ledger", 1):
            raise InputError("the observer failed")

    with pytest.raises(InputError, match="the observer failed"):
        run_stream(stream, observe=fail)
    assert version_steps(stream) == []
    assert run_stream(stream).champion_version == "1"
    assert version_steps(stream) == [StepId(0, 1)]


@pytest.mark.parametrize("stage", ["version", "alias"])
def test_an_interruption_at_the_clean_end_leaves_one_version(stream: Settings, stage: str) -> None:
    """Between registering and promoting, and before the version counts as published; tests.fire kills there."""
    write_stream(Path(stream.source.path), files=1)

    def stop(reached: str, step: StepId) -> None:
        if reached == stage:
            raise InterruptedStage

    with pytest.raises(InterruptedStage):
        run_stream(stream, observe=stop)
    assert version_steps(stream) == [StepId(0, 0)]
    assert run_stream(stream).champion_version == "1"
    assert version_steps(stream) == [StepId(0, 0)]


def test_a_champion_of_another_release_does_not_stop_the_stream(
    stream: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It has no tag `generation`, and nothing of it is read: there is nothing at its source."""
    client, name = connect(stream), stream.mlflow.model_name
    client.create_registered_model(name)
    tags = {"epoch": "0", "batch_id": "40"}
    old = client.create_model_version(name, (tmp_path / "nothing").as_uri(), tags=tags)
    client.set_registered_model_alias(name, "champion", old.version)
    write_stream(Path(stream.source.path), files=4)
    assert run_stream(stream).champion_version == "2"
    assert version_steps(stream) == [None, StepId(0, 2)]
    assert f"models:/{name}/1 is champion, but this release did not register it" in caplog.text


def test_a_stopped_stream_goes_on_where_it_was(spark: SparkSession, stream: Settings, tmp_path: Path) -> None:
    folder = Path(stream.source.path)
    write_stream(folder, files=3)
    run_stream(stream)
    assert run_stream(stream).batches == 0, "nothing new has come"
    write_stream(folder, files=5, first=3)
    assert run_stream(stream).batches == 2

    whole = stream.model_copy(update={"storage": stream.storage.model_copy(update={"root": str(tmp_path / "whole")})})
    run_stream(whole)
    stopped_tables, whole_tables = Tables(spark, stream.storage), Tables(spark, whole.storage)
    assert_df_equality(stopped_tables.read(INTERACTION_LOG), whole_tables.read(INTERACTION_LOG), ignore_row_order=True)
    stopped, undisturbed = arrays(stream, StepId(0, 4)), arrays(whole, StepId(0, 4))
    for name in undisturbed:
        np.testing.assert_array_equal(stopped[name], undisturbed[name], err_msg=name)


def unanswered(*_: object) -> None:
    raise RegistryDownError("MLflow does not answer")


def test_a_rebuild_begins_a_generation_that_the_stream_continues(
    spark: SparkSession, stream: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(stream.source.path)
    write_stream(folder, files=4)
    run_stream(stream)
    other = stream.model_copy(update={"model": stream.model.model_copy(update={"alpha": 5.0})})
    with pytest.raises(InputError, match=r"other settings: model\.alpha \(was 4\.0, is 5\.0\): .*jobs/rebuild\.py"):
        run_stream(other)
    with monkeypatch.context() as outage:
        outage.setattr(versions, "register", unanswered)
        with pytest.raises(RegistryDownError):
            rebuild(other)
    rebuilt = rebuild(other)  # finishes what is in the ledger, and does not train again
    assert (rebuilt.generation, rebuilt.promoted) == (1, False)
    assert rebuilt.version.step == StepId(1, 3)
    write_stream(folder, files=6, first=4)
    assert run_stream(other).batches == 2
    tables = Tables(spark, other.storage)
    assert steps(tables) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 3), (1, 4), (1, 5)]
    assert tables.read(INTERACTION_LOG).agg(F.sum("events")).collect()[0][0] == 6 * 120


def test_a_rebuild_needs_a_log(stream: Settings) -> None:
    with pytest.raises(InputError, match="is empty"):
        rebuild(stream)


def test_every_source_gives_the_same_log(spark: SparkSession, ready: MakeSettings, tmp_path: Path) -> None:
    write_stream(tmp_path / "events", files=1)
    json_settings = ready(tmp_path, weights={"view": 1, "purchase": 3})
    run_stream(json_settings)
    expected = Tables(spark, json_settings.storage).read(INTERACTION_LOG)
    frame = spark.createDataFrame(next(iter(records(1)))).coalesce(1)
    for source_format in ("csv", "parquet", "delta"):
        target = str(tmp_path / source_format)
        frame.write.format(source_format).option("header", True).save(target)
        source = {"format": source_format, "path": target}
        other = ready(tmp_path / f"{source_format}-storage", source=source, weights={"view": 1, "purchase": 3})
        run_stream(other)
        found = Tables(spark, other.storage).read(INTERACTION_LOG)
        assert_df_equality(found, expected, ignore_row_order=True)


def test_bad_records_and_duplicates_are_all_accounted_for(
    spark: SparkSession, ready: MakeSettings, tmp_path: Path
) -> None:
    good = '{{"user_id": "u{0}", "item_id": "i", "event_type": "view", "event_time": 1700000000, "event_id": "{0}"}}'
    lines = [good.format(number) for number in range(20)]
    write_lines(tmp_path / "events", 0, [*lines, *lines[:7], "no json", '{"item_id": "i", "event_type": "what"}'])
    made = ready(tmp_path, weights={"view": 1})
    summary = run_stream(made)
    tables = Tables(spark, made.storage)
    learned = tables.read(INTERACTION_LOG).agg(F.sum("events")).collect()[0][0]
    quarantined = {tuple(sorted(row.reasons)): row.raw for row in tables.read(QUARANTINE).collect()}
    assert (learned, summary.duplicates, len(quarantined)) == (20, 7, 2)
    assert quarantined[("not JSON",)] == "no json"
    assert ("missing event_time", "missing user_id", "unknown event_type") in quarantined


def test_one_job_at_a_time_writes(stream: Settings) -> None:
    write_stream(Path(stream.source.path), files=1)
    with writer_lock(stream.storage.root), pytest.raises(InputError, match="another job is writing"):
        run_stream(stream)


@pytest.mark.process
def test_sigterm_finishes_the_batch_and_stops(spark: SparkSession, stream: Settings, tmp_path: Path) -> None:
    """A real process that would run for ever; the files that are left are worked off by the next start."""
    write_stream(Path(stream.source.path), files=7)
    config = tmp_path / "stream.yaml"
    endless = stream.model_dump(mode="json", by_alias=True)
    endless["trigger"] = {"mode": "processing_time", "interval": "0 seconds"}
    config.write_text(yaml.safe_dump(endless))
    command = [sys.executable, "jobs/stream_update.py", "--config", str(config)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    output = []
    for line in process.stdout:
        output.append(line)
        if "batch    1:" in line:
            os.kill(process.pid, signal.SIGTERM)
            break
    output += process.stdout.readlines()
    assert process.wait(timeout=120) == 0, "".join(output)
    tables = Tables(spark, stream.storage)
    done = steps(tables)
    assert done == [(0, batch) for batch in range(len(done))]
    assert 2 <= len(done) < 7, "".join(output)
    assert run_stream(stream).batches == 7 - len(done)
    assert tables.read(INTERACTION_LOG).agg(F.sum("events")).collect()[0][0] == 7 * 120

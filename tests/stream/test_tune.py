"""`tune` on a real stream: it only reads, MLflow has every trial, and the file that it writes is obeyed."""

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
import yaml
from pyspark.sql import SparkSession

from jobs import tune as job
from recsys.cli import BAD_INPUT, DONE, run_job
from recsys.config import Settings, load_settings
from recsys.contracts import INTERACTION_LOG, TABLE_SCHEMAS, StepId
from recsys.errors import InputError
from recsys.registry.client import connect
from recsys.storage import writer_lock
from recsys.stream.job import run_stream
from recsys.stream.rebuild import rebuild
from recsys.stream.tune import log_of, tune_stream
from recsys.tables import lease, ledger, log
from recsys.tables.delta import Tables
from tests.streams import write_stream

BATCHES = 12
# So large that factors are all but 0: any other value ranks better.
CONFIGURED = {"kind": "als", "regularization": 100.0}


@pytest.fixture
def learned(spark: SparkSession, stream: Settings) -> Settings:
    """A stream that has learned its batches with a bad setting."""
    search = {"trials": 3, "keys": ["model.regularization"]}
    changed = {"model": CONFIGURED, "tune": search, "gate": {"min_users": 10}, "staleness": {}}
    values = stream.model_dump(by_alias=True)
    for section, given in changed.items():
        values[section] |= given
    settings = Settings.model_validate(values)
    write_stream(Path(settings.source.path), files=BATCHES)
    assert run_stream(settings).batches == BATCHES
    return settings


def configuration(settings: Settings, folder: Path) -> Path:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(settings.model_dump(mode="json", by_alias=True)), "utf-8")
    return file


def test_better_settings_are_found_recorded_and_obeyed(
    learned: Settings, spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, output = configuration(learned, tmp_path), tmp_path / "tuned.yaml"
    tables = Tables(spark, learned.storage)
    # A stream that runs holds the lock and the lease, and keeps them.
    with writer_lock(learned.storage.root), lease.held(tables, "stream_update", 300):
        before = {name: tables.version(name) for name in TABLE_SCHEMAS}
        assert run_job(job.tune, ["--config", str(mine), "--output", str(output)], options=job.OPTIONS) == DONE
        assert {name: tables.version(name) for name in TABLE_SCHEMAS} == before
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].split() for line in printed[:3]] == [["trial", "0"], ["trial", "1"], ["trial", "2"]]
    assert printed[3].startswith("search: 3 trials on the first 6 batches; NDCG@5 0.")
    assert printed[4].startswith("unseen: the other 6 batches; NDCG@5 0.")
    assert printed[-1].startswith("next: stop the stream; run jobs/rebuild.py")

    # Only what differs is in the file, which goes on top of the settings.
    written = yaml.safe_load(output.read_text("utf-8"))
    assert list(written) == ["model"]
    assert list(written["model"]) == ["regularization"]
    both = load_settings([mine, output])
    assert both.model.regularization == written["model"]["regularization"] < CONFIGURED["regularization"]
    assert both.storage == learned.storage
    runs_are_complete(learned)
    with pytest.raises(InputError, match=r"model\.regularization \(was 100\.0, is 0\.\d+\).* jobs/rebuild\.py"):
        run_stream(both)
    assert rebuild(both).generation == 1
    write_stream(Path(learned.source.path), files=BATCHES + 1, first=BATCHES)
    assert run_stream(both).batches == 1


def runs_are_complete(settings: Settings) -> None:
    """One run of the search, and under it one for each trial, with its values and the figures of each batch."""
    client = connect(settings)
    experiment = client.get_experiment_by_name(settings.mlflow.experiment)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], "tags.job = 'tune'")
    parents = [run for run in found if mlflow.utils.mlflow_tags.MLFLOW_PARENT_RUN_ID not in run.data.tags]
    (parent,) = parents
    trials = sorted((run for run in found if run is not parent), key=lambda run: run.info.run_name)
    assert [run.info.run_name for run in trials] == ["trial-0", "trial-1", "trial-2"]
    assert {run.info.status for run in found} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id}
    assert float(trials[0].data.params["model.regularization"]) == CONFIGURED["regularization"]
    by_batch = client.get_metric_history(trials[0].info.run_id, "batch/ndcg_at_5")
    # Of six batches the first one warms up.
    assert [metric.step for metric in by_batch] == list(range(5))
    mean = sum(metric.value for metric in by_batch) / 5
    assert trials[0].data.metrics["ndcg_at_5"] == pytest.approx(mean)
    assert parent.data.metrics["unseen/gain/lower"] > 0
    assert "tuned.model.regularization" in parent.data.params


def test_what_the_stream_set_aside_or_a_rebuild_leaves_out_is_not_replayed(
    spark: SparkSession, stream: Settings
) -> None:
    tables = Tables(spark, stream.storage)
    write_stream(Path(stream.source.path), files=4)
    run_stream(stream)
    (row,) = ledger.read(tables, 0, after=2)
    logged = dict(log.batches(tables))
    found = dict(log_of(stream, tables).read(3))
    assert {step: batch.user_ids for step, batch in found.items()} == {
        step: batch.user_ids for step, batch in logged.items() if step.batch_id < 3
    }
    step = StepId(0, 4)
    log.append(tables, log.read_batch(tables, StepId(0, 3)), step, "test")
    aside = row.metrics | {ledger.SET_ASIDE: 1.0}
    ledger.append(tables, [type(row)(**{**vars(row), "step": step, "metrics": aside})], "test", 4)
    assert ledger.set_aside(tables) == {step}
    assert log_of(stream, tables).count == 4
    without = stream.model_copy(update={"rebuild": stream.rebuild.model_copy(update={"without_batches": [1]})})
    batches = log_of(without, tables)
    assert [step.batch_id for step, _ in batches.read(batches.count)] == [0, 2, 3]


def test_an_empty_log_or_a_file_without_a_folder_is_refused(
    ready: Callable[..., Settings], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ready(tmp_path)
    with pytest.raises(InputError, match=f"{INTERACTION_LOG} has nothing to tune on: run jobs/stream_update"):
        tune_stream(settings, tmp_path / "tuned.yaml", print)
    with pytest.raises(InputError, match="cannot write .*: name a file in a folder that exists with --output"):
        tune_stream(settings, tmp_path / "nowhere" / "tuned.yaml", print)
    words = [f"storage.root={tmp_path}/new", "tune.keys=[model.sweeps]", f"--output={tmp_path}/tuned.yaml"]
    assert run_job(job.tune, words, options=job.OPTIONS) == BAD_INPUT
    assert "tune.keys: 'model.sweeps' is not searched" in capsys.readouterr().err
    assert run_job(job.tune, [words[0], words[2]], options=job.OPTIONS) == BAD_INPUT
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "new").exists()

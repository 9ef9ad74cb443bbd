"""A stream whose storage is a bucket: a real server of S3's interface, its failures, and what a kill leaves."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from numpy.testing import assert_equal
from pyspark.sql import SparkSession

from jobs.batch_score import batch_score
from recsys import remote
from recsys.cli import BAD_INPUT, DONE, TRY_AGAIN, run_job
from recsys.config import Settings
from recsys.config.operation import Requeue
from recsys.contracts import RECOMMENDATIONS, UPKEEP, WRITERS, StepId
from recsys.remote import RemotePath
from recsys.report.make import write_report
from recsys.storage import at_hand, snapshot_folder, written, written_folder
from recsys.stream import recovery
from recsys.stream.backfill import backfill
from recsys.stream.job import run_stream
from recsys.stream.maintenance import maintain
from recsys.stream.rebuild import rebuild
from recsys.stream.requeue import requeue
from recsys.tables import lease
from recsys.tables.delta import Tables
from scripts.s3_server import PASSWORD, S3Server
from tests.stream.checks import arrays, steps, totals_of_log
from tests.streams import START, write_lines, write_stream

pytestmark = [pytest.mark.mlflow, pytest.mark.process]

FILES = 5
KILLED = """
import os, signal, sys
from recsys.config import load_settings
from recsys.stream.job import run_stream

def die(stage, step):
    if (stage, step.batch_id) == ("log", 1):
        os.kill(os.getpid(), signal.SIGKILL)

run_stream(load_settings(sys.argv[1]), die)
"""


def in_bucket(made: Settings, folder: Path, server: S3Server, root: str = "s3a://bucket/root") -> Settings:
    """The same stream with its storage in a bucket, and its experiment in a database of its own."""
    uri = f"sqlite:///{folder}/remote.db"
    storage = made.storage.model_copy(update={"root": root})
    mlflow = made.mlflow.model_copy(update={"tracking_uri": uri})
    spark = {**made.spark, **server.spark_settings()}
    return made.model_copy(update={"storage": storage, "mlflow": mlflow, "spark": spark})


def config_of(made: Settings, folder: Path) -> list[str]:
    file = folder / "stream.yaml"
    file.write_text(yaml.safe_dump(made.model_dump(mode="json", by_alias=True)))
    return ["--config", str(file)]


@contextmanager
def taken(tables: Tables, name: str) -> Iterator[None]:
    """As if a job of another host held a lease."""
    present = lease.current(tables, name)
    assert present is not None
    now = datetime.now(UTC)
    other = replace(present, revision=present.revision + 1, host="elsewhere", renewed_at=now, released=False)
    assert tables.replace(name, pa.Table.from_pylist([asdict(other)], lease._ROW), other.revision)
    yield
    freed = replace(other, revision=other.revision + 1, released=True)
    assert tables.replace(name, pa.Table.from_pylist([asdict(freed)], lease._ROW), freed.revision)


def test_a_bucket_gives_what_a_folder_gives_whatever_is_killed(
    spark: SparkSession, s3: S3Server, stream: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The job is killed in a batch, the server in the next one; then rebuild, batch_score and maintain."""
    write_stream(Path(stream.source.path), FILES)
    made = in_bucket(stream, tmp_path, s3)
    words = config_of(made, tmp_path)

    killed = subprocess.run([sys.executable, "-c", KILLED, words[1]], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    tables = Tables(spark, made.storage)
    assert steps(tables) == [(0, 0)]

    def lose_the_server(stage: str, step: StepId) -> None:
        if (stage, step.batch_id) == ("log", 2):
            s3.kill()

    def run(observe: Callable[[str, StepId], None] = lambda stage, step: None) -> int:
        return run_job(lambda settings: run_stream(settings, observe), words)

    with taken(tables, WRITERS):
        assert run() == TRY_AGAIN
        assert "on host elsewhere" in capsys.readouterr().err
    assert run(lose_the_server) == TRY_AGAIN
    assert "does not answer" in capsys.readouterr().err
    assert run() == TRY_AGAIN
    assert capsys.readouterr().err == (
        "error: s3a://bucket/root: the store does not answer: start again once it does, or correct its address\n"
    )
    s3.start()
    assert run() == DONE

    run_stream(stream)
    local = Tables(spark, stream.storage)
    assert steps(tables) == steps(local) == [(0, number) for number in range(FILES)]
    assert_equal(arrays(made, StepId(0, FILES - 1)), arrays(stream, StepId(0, FILES - 1)))
    assert totals_of_log(tables).exceptAll(totals_of_log(local)).isEmpty()

    rebuild(stream)
    rebuilt = rebuild(made)
    assert_equal(arrays(made, StepId(1, FILES - 1)), arrays(stream, StepId(1, FILES - 1)))
    batch_score(made)
    listed = [one.user_id for one in tables.read(RECOMMENDATIONS).select("user_id").collect()]
    assert len(set(listed)) == len(listed) == rebuilt.users

    with taken(tables, UPKEEP):
        assert run_job(maintain, words) == TRY_AGAIN
    with taken(tables, WRITERS):
        assert run_job(maintain, words) == TRY_AGAIN
    assert any(line == "deleted s3a://bucket/root/state/generation-0" for line in maintain(made))
    assert [path.name for path in snapshot_folder(made.storage.root).iterdir()] == ["generation-1"]
    assert run() == DONE
    restored = recovery._newest_snapshot(made, StepId(1, FILES - 1))
    assert restored is not None
    assert_equal(restored.state(), arrays(stream, StepId(1, FILES - 1)))
    page = write_report(made)
    assert str(page) == "s3a://bucket/root/plots/report.html"
    assert "</html>" in page.read_text("utf-8")
    with Path(words[1]).open() as written:
        assert PASSWORD not in written.read()


def test_a_history_goes_into_a_bucket_in_bulk_and_bad_records_come_back(
    spark: SparkSession, s3: S3Server, stream: Settings, tmp_path: Path
) -> None:
    folder = Path(stream.source.path)
    write_stream(folder, 2)
    bad = {"user_id": "late", "item_id": "i1", "event_type": "veiw", "event_time": START}
    write_lines(folder, 2, [json.dumps(bad)])
    made = in_bucket(stream, tmp_path, s3, "s3a://bucket/bulk")
    assert backfill(made).champion_version is not None
    tables = Tables(spark, made.storage)
    events = totals_of_log(tables).agg({"events": "sum"}).collect()[0][0]
    corrected = made.model_copy(update={"requeue": Requeue(event_types={"veiw": "view"})})
    assert [requeue(corrected).records for _ in range(2)] == [1, 0]
    assert run_stream(made).batches == 1
    assert totals_of_log(tables).agg({"events": "sum"}).collect()[0][0] == events + 1 == 241


def test_a_bucket_that_cannot_be_used_is_refused_in_one_line(
    spark: SparkSession,
    s3: S3Server,
    stream: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_stream(Path(stream.source.path), 1)
    missing = config_of(in_bucket(stream, tmp_path, s3, "s3a://no-such-bucket/root"), tmp_path)
    for job in (run_stream, maintain):
        assert run_job(job, missing) == BAD_INPUT
        (line,) = capsys.readouterr().err.splitlines()
        assert "s3a://no-such-bucket/root: there is no such bucket: create it, or correct " in line
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-a-guess")
    remote._opened.cache_clear()
    try:
        assert run_job(run_stream, config_of(in_bucket(stream, tmp_path, s3, "s3a://bucket/other"), tmp_path)) == 2
    finally:
        remote._opened.cache_clear()
    (line,) = capsys.readouterr().err.splitlines()
    assert "s3a://bucket/other: the store refuses these credentials" in line
    assert "canary" not in line


def write_half(place: RemotePath) -> None:
    with written(place) as file:
        file.write_text("half of it")
        raise ZeroDivisionError


def test_files_in_a_bucket(s3: S3Server, tmp_path: Path) -> None:
    folder = RemotePath("s3a://bucket/files")
    assert not folder.exists()
    assert list(folder.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        (folder / "a.json").read_text("utf-8")
    for name, text in (("a.json", "{}"), ("b/c.json", "[1]"), ("a.json", json.dumps({"again": 1}))):
        (tmp_path / "written").write_text(text)
        (folder / name).upload(tmp_path / "written")
    assert [entry.name for entry in folder.iterdir()] == ["a.json", "b"]
    assert sorted(folder.files()) == ["a.json", "b/c.json"]
    assert (folder / "a.json").read_text("utf-8") == '{"again": 1}'
    assert [entry.name for entry in folder.glob("*.json")] == ["a.json"]
    with written(folder / "b" / "c.json") as file:
        file.write_text("[2]")
    with pytest.raises(ZeroDivisionError):
        write_half(folder / "a.json")
    with written_folder(folder / "whole", last="last") as files:
        for name in ("last", "other"):
            (files / name).write_text(name)
    with at_hand(folder) as near:
        found = {str(file.relative_to(near)): file.read_text() for file in near.rglob("*") if file.is_file()}
    assert found == {"a.json": '{"again": 1}', "b/c.json": "[2]", "whole/last": "last", "whole/other": "other"}
    (folder / "whole").remove()
    (folder / "b").remove()
    (folder / "a.json").remove()
    (folder / "a.json").remove()
    assert folder.files() == []

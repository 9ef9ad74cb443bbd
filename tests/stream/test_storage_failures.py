"""A storage that is full, read-only or damaged: one line, the right exit code, and nothing lost or learned wrongly."""

import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys.cli import BAD_INPUT, DONE, TRY_AGAIN, run_job
from recsys.config import Settings
from recsys.contracts import INTERACTION_LOG, StepId
from recsys.stream.job import run_stream
from recsys.tables.delta import Tables
from tests.stream.checks import steps
from tests.streams import write_stream


def mount(*arguments: str) -> str:
    """Run mount; returns why it could not."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def unmount(folder: Path) -> None:
    """Take off the upper one of what is mounted on a folder."""
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system where the storage root will be."""
    folder = tmp_path / "recsys"
    folder.mkdir()
    why = mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder))
    if why:
        pytest.skip(f"a test that fills a disk mounts one: {why}")
    yield folder
    while folder.is_mount():
        unmount(folder)


def fill(folder: Path) -> None:
    """Leave no byte."""
    with (folder / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        file.writelines(itertools.repeat(bytes(4096)))


@pytest.mark.mlflow
@pytest.mark.process
def test_a_storage_that_fails_is_named_and_loses_nothing(
    disk: Path,
    spark: SparkSession,
    stream: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = tmp_path / "stream.yaml"
    config.write_text(yaml.safe_dump(stream.model_dump(mode="json", by_alias=True)))
    tables = Tables(spark, stream.storage)
    fill_at: list[tuple[str, StepId]] = [("quarantine", StepId(0, 2))]

    def filled(stage: str, step: StepId) -> None:
        if (stage, step) in fill_at:
            fill(disk)

    def streaming(settings: Settings) -> None:
        run_stream(settings, observe=filled)

    def line(status: int) -> str:
        capsys.readouterr()
        assert run_job(streaming, ["--config", str(config)]) == status
        printed = capsys.readouterr().err
        assert "Traceback" not in printed + caplog.text
        found = [one for one in printed.splitlines() if one.startswith("error: ")]
        return found[0] if found else ""

    write_stream(Path(stream.source.path), files=3)
    assert "the storage is full" in line(TRY_AGAIN), "in the middle of a batch"
    fill_at.clear()
    assert "No space left" in line(TRY_AGAIN), "at the start"
    (disk / "ballast").unlink()
    assert not mount("--bind", str(disk), str(disk))  # Files that are still open elsewhere keep a mount writable.
    assert not mount("-o", "remount,bind,ro", str(disk))
    assert f"storage.root {disk} cannot be written: Read-only" in line(BAD_INPUT)
    unmount(disk)
    assert line(DONE) == ""
    assert steps(tables) == [(0, 0), (0, 1), (0, 2)]
    assert tables.read(INTERACTION_LOG).agg(F.sum("events")).first()[0] == 360

    commits = Path(tables.location(INTERACTION_LOG), "_delta_log").glob("*.json")
    last = max(file for file in commits if '"add"' in file.read_text())
    whole = last.read_text()
    last.write_text(whole[: len(whole) // 2])
    refusal = line(BAD_INPUT)
    assert f"{last} is damaged" in refusal
    assert "restore tables and checkpoint" in refusal
    last.write_text("")
    assert "lacks batch 0-2, which has 120 events in the ledger" in line(BAD_INPUT)
    last.write_text(whole)
    assert line(DONE) == ""

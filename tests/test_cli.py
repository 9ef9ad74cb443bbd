"""A job from outside: its help, and exit code 2 or 75 and one line for what its user can put right."""

import errno
import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.errors import StreamingQueryException

from jobs.batch_score import batch_score
from jobs.stream_update import stream_update
from recsys.cli import BAD_INPUT, DONE, TRY_AGAIN, run_job
from recsys.config import Settings, load_settings
from recsys.config.table import described_settings
from recsys.errors import OutsideDownError
from tests.streams import write_stream

ROOT = Path(__file__).parents[1]
JOBS = sorted(file.stem for file in (ROOT / "jobs").glob("*.py"))


def refused(
    capsys: pytest.CaptureFixture[str], job: Callable[[Settings], None], *overrides: str, status: int = BAD_INPUT
) -> str:
    assert run_job(job, list(overrides)) == status
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1
    return printed[0]


def test_a_job_that_ends_well_exits_with_0() -> None:
    seen: list[int] = []
    assert run_job(lambda settings: seen.append(settings.seed), ["seed=4"]) == DONE
    assert seen == [4]


def test_a_switch_is_handed_to_the_job() -> None:
    seen: list[tuple[int, bool]] = []

    def job(settings: Settings, dry_run: bool) -> None:
        seen.append((settings.seed, dry_run))

    for words in ([], ["--dry-run"], ["--dry-run", "seed=4"], ["seed=4", "--dry-run"]):
        assert run_job(job, words, options={"--dry-run": {"action": "store_true"}}) == DONE
    assert seen == [(0, False), (0, True), (4, True), (4, True)]


def test_a_fault_of_the_program_is_not_hidden() -> None:
    def broken(settings: Settings) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_job(broken, [])


OUTAGES = [
    OSError(errno.ESTALE, "Stale file handle", "/mnt/recsys"),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ENOSPC, "No space left on device, not for the storage"),
    StreamingQueryException("[STREAM_FAILED] java.io.IOException: No space left on device\n\tat the storage"),
    ConnectionRefusedError("broker:9092"),
    TimeoutError("storage"),
    OutsideDownError("the source is down"),
    StreamingQueryException(
        "[STREAM_FAILED] java.util.concurrent.ExecutionException: org.apache.kafka.common.errors.TimeoutException: "
        "Timed out waiting for a node assignment. Call: describeTopics\n\tat org.apache.kafka.clients"
    ),
    StreamingQueryException("KafkaException\n" + "Caused by: java.net.UnknownHostException: broker"),
]
FAULTS = [
    OSError(errno.EISDIR, "Is a directory"),
    StreamingQueryException("java.net.SocketTimeoutException: Accept timed out, where a Python worker died"),
    StreamingQueryException("java.util.concurrent.TimeoutException: a future"),
]


@pytest.mark.parametrize("outage", OUTAGES, ids=str)
def test_what_is_down_outside_is_tried_again(capsys: pytest.CaptureFixture[str], outage: Exception) -> None:
    def down(settings: Settings) -> None:
        raise outage

    printed = refused(capsys, down, status=TRY_AGAIN)
    assert re.search("file handle|output error|broker|storage|source|node assignment", printed)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_what_may_not_be_written_is_named(capsys: pytest.CaptureFixture[str], number: int) -> None:
    def forbidden(settings: Settings) -> None:
        raise OSError(number, "not there", "/mnt/recsys")

    printed = refused(capsys, forbidden)
    assert "/mnt/recsys" in printed
    assert "let the user that runs the job" in printed


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_what_is_wrong_here_is_a_fault(fault: Exception) -> None:
    def wrong(settings: Settings) -> None:
        raise fault

    with pytest.raises(type(fault)):
        run_job(wrong, [])


@pytest.mark.process  # the job's imports start some
def test_a_storage_that_does_not_answer(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "mkdir", stale)
    overrides = f"storage.root={tmp_path}/recsys", f"source.path={tmp_path}"
    printed = refused(capsys, stream_update, *overrides, status=TRY_AGAIN)
    assert "Stale file handle" in printed


def test_a_bad_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown setting 'model.factor'" in refused(capsys, stream_update, "model.factor=8")
    assert "setting 'recommend.k'" in refused(capsys, stream_update, "recommend.k=zero")
    for word in ("recommend.k=1000000000", "batch_score.category_cap=0", "batch_score.diversity=1.5"):
        assert f"setting '{word.partition('=')[0]}'" in refused(capsys, batch_score, word)


@pytest.mark.process
@pytest.mark.parametrize("name", JOBS)
def test_a_job_explains_itself(name: str) -> None:
    """What it does, examples whose settings exist, and what the typed settings say of those that matter most."""
    done = subprocess.run(
        [sys.executable, f"jobs/{name}.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    module = importlib.import_module(f"jobs.{name}")
    shown = " ".join(done.stdout.split())
    assert f"usage: python jobs/{name}.py" in shown
    assert "all settings: docs/settings.md" in shown
    assert len(module.EXAMPLES) >= 2
    assert 5 <= len(module.SETTINGS) <= 10
    known = {setting.key: setting for setting in described_settings()}
    for purpose, words in module.EXAMPLES.items():
        assert f"# {purpose} python jobs/{name}.py {words}" in shown
        overrides = [word for word in words.split() if "=" in word]
        assert {word.partition("=")[0] for word in overrides} <= known.keys()
        load_settings(None, overrides)
    for key in module.SETTINGS:
        assert " ".join(known[key].meaning.replace("`", "").split()) in shown
        assert f"{key} ({known[key].kind}".replace("`", "") in shown


def test_a_setting_of_the_help_that_does_not_exist_is_seen() -> None:
    with pytest.raises(KeyError):
        run_job(stream_update, ["--help"], settings=["model.factor"])


@pytest.mark.mlflow
def test_what_a_stream_cannot_start_with(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root, source = f"storage.root={tmp_path}/recsys", f"source.path={tmp_path}/events"
    assert "events" in refused(capsys, stream_update, root, source), "the source is missing"
    write_stream(tmp_path / "events", files=1)
    (tmp_path / "file").touch()
    assert "cannot be written" in refused(capsys, stream_update, f"storage.root={tmp_path}/file/recsys", source)
    unreachable = "mlflow.tracking_uri=http://127.0.0.1:9"
    assert "127.0.0.1:9" in refused(capsys, stream_update, root, source, unreachable, status=TRY_AGAIN)
    assert "nonsense" in refused(capsys, stream_update, root, source, "mlflow.tracking_uri=nonsense://x")


def test_scoring_without_a_champion(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "models:/recsys@champion" in refused(capsys, batch_score, f"storage.root={tmp_path}/recsys")

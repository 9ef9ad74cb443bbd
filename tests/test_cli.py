"""What a failing job looks like from outside: exit code 2 and one line for what its user can put right."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.batch_score import batch_score
from jobs.stream_update import stream_update
from recsys.cli import BAD_INPUT, DONE, run_job
from recsys.config import Settings
from tests.streams import write_stream


def refused(capsys: pytest.CaptureFixture[str], job: Callable[[Settings], None], *overrides: str) -> str:
    assert run_job(job, list(overrides)) == BAD_INPUT
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1
    return printed[0]


def test_a_job_that_ends_well_exits_with_0() -> None:
    seen: list[int] = []
    assert run_job(lambda settings: seen.append(settings.seed), ["seed=4"]) == DONE
    assert seen == [4]


def test_a_fault_of_the_program_is_not_hidden() -> None:
    def broken(settings: Settings) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_job(broken, [])


def test_a_bad_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown setting 'model.factor'" in refused(capsys, stream_update, "model.factor=8")
    assert "setting 'recommend.k'" in refused(capsys, stream_update, "recommend.k=zero")


@pytest.mark.usefixtures("spark")
def test_what_a_stream_cannot_start_with(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root, source = f"storage.root={tmp_path}/recsys", f"source.path={tmp_path}/events"
    assert "events" in refused(capsys, stream_update, root, source), "the source is missing"
    write_stream(tmp_path / "events", files=1)
    (tmp_path / "file").touch()
    assert "cannot be written" in refused(capsys, stream_update, f"storage.root={tmp_path}/file/recsys", source)
    unreachable = "mlflow.tracking_uri=http://127.0.0.1:9"
    assert "127.0.0.1:9" in refused(capsys, stream_update, root, source, unreachable)


@pytest.mark.usefixtures("spark")
def test_scoring_without_a_champion(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "models:/recsys@champion" in refused(capsys, batch_score, f"storage.root={tmp_path}/recsys")

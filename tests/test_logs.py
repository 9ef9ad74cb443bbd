"""Lines of the log: time, level and step, as text and as JSON."""

import json
import logging
import re
import warnings
from collections.abc import Callable

import pytest

from recsys.cli import BAD_INPUT, FAULT, run_job
from recsys.config import Settings
from recsys.contracts import StepId
from recsys.errors import InputError
from recsys.logs import log_step
from recsys.stream.report import StreamReport
from tests.stream.test_report import row

logger = logging.getLogger("recsys.test")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a job as in a process of its own, which has no handler of pytest."""

    def alone(job: Callable[[Settings], None], *overrides: str) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(logging.root, "handlers", [])
            return run_job(job, list(overrides))

    return alone


def job(settings: Settings) -> None:
    logger.info("starts")
    with log_step(StepId(1, 17)):
        try:
            raise KeyError("ö\n2")
        except KeyError:
            logger.warning("is late by %d s", 3, exc_info=True)
        with StreamReport(20, log_format=settings.logging.format) as report:
            report(row())
    raise InputError("the source is gone")


def test_text_has_time_level_and_step(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(job) == BAD_INPUT
    out, err = capsys.readouterr()
    lines = err.splitlines()
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(rf"{time} INFO \[-\] starts", lines[0])
    assert re.fullmatch(rf"{time} WARNING \[1-17\] is late by 3 s", lines[1])
    assert lines[2].startswith("Traceback")
    assert lines[-1] == "error: the source is gone"
    assert out.startswith("batch    7:"), "a person reads these lines, without a bar where there is no terminal"


def test_json_has_one_object_per_line_and_nothing_else(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(job, "logging.format=json") == BAD_INPUT
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in err.splitlines()]
    assert [(line["level"], line["step"], line["logger"]) for line in lines] == [
        ("INFO", None, "recsys.test"),
        ("WARNING", "1-17", "recsys.test"),
        ("INFO", "1-17", "recsys.stream.report"),
        ("ERROR", None, "recsys.cli"),
    ]
    assert lines[1]["message"] == "is late by 3 s"
    assert "KeyError: 'ö\\n2'" in lines[1]["exception"]
    assert lines[3]["message"] == "the source is gone"
    assert all(line["time"].endswith("Z") for line in lines)
    assert out == ""


def test_a_fault_and_a_warning_are_lines_of_json_too(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "_warnings_showwarning", None)

    def broken(settings: Settings) -> None:
        warnings.warn("is old", DeprecationWarning, stacklevel=1)
        raise ZeroDivisionError

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run(broken, "logging.format=json") == FAULT
    warned, failed = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (warned["level"], warned["logger"]) == ("WARNING", "py.warnings")
    assert "is old" in warned["message"]
    assert (failed["level"], failed["message"]) == ("CRITICAL", "a fault of the program")
    assert failed["exception"].endswith("ZeroDivisionError")

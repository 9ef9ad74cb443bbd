"""A test is marked by what it takes, and one that starts something without a mark fails."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[1]
TESTS = """
import os, sqlite3, subprocess, sys
import pytest

@pytest.mark.parametrize("start", [
    lambda: subprocess.run([sys.executable, "-c", ""]),
    lambda: sqlite3.connect(":memory:"),
    lambda: os.posix_spawn("/bin/true", ["true"], {}),
], ids=["program", "database", "spawn"])
def test_starts(start):
    try:
        start()
    except Exception:
        pass

@pytest.mark.process
def test_may_start():
    subprocess.run([sys.executable, "-c", ""])

def test_plain():
    pass

def test_session(spark):
    pass

def test_versions(empty_registry):
    pass

def test_texts(encoder):
    pass
"""


def run(folder: Path, *words: str, names: Sequence[str] = ("",)) -> list[str]:
    file = folder / "test_some.py"
    file.write_text(TESTS)
    common = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "-p", "tests.conftest", "-p", "no:xdist"]
    command = [sys.executable, "-m", "pytest", *common, "-q", *words, *(f"{file}{name}" for name in names)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()


def test_what_starts_something_without_a_mark_fails(tmp_path: Path) -> None:
    lines = run(tmp_path, names=["::test_starts", "::test_may_start", "::test_plain"])
    errors = [line for line in lines if line.startswith("ERROR ")]
    failed = sorted(line.partition("::")[2].partition(" - ")[0] for line in errors)
    assert failed == [f"test_starts[{name}]" for name in ("database", "program", "spawn")]
    said = [line for line in lines if line.startswith("E ")]
    for event, mark in (("subprocess.Popen", "process"), ("os.posix_spawn", "process"), ("sqlite3.connect", "mlflow")):
        assert any(f"{event}: mark it pytest.mark.{mark}" in line for line in said), event
    assert lines[-1].startswith("5 passed, 3 errors in ")


@pytest.mark.parametrize(("mark", "chosen"), [("spark", ["session"]), ("mlflow", ["versions"]), ("encoder", ["texts"])])
def test_marks_follow_from_fixtures(tmp_path: Path, mark: str, chosen: list[str]) -> None:
    lines = run(tmp_path, "-m", mark, "--collect-only")
    assert [line.partition("::test_")[2] for line in lines if "::" in line] == chosen

"""What a machine without the right Java or Python is told. The programs here are stand-ins that only say a version."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[1]
TOOLS = ("sh", "sed", "head", "make")


@pytest.fixture
def machine(tmp_path):
    """A folder that is the whole PATH: the tools that any machine has, and what a test adds."""
    for tool in TOOLS:
        found = shutil.which(tool)
        if found is None:
            pytest.skip(f"no {tool} on this machine")
        (tmp_path / tool).symlink_to(found)
    return tmp_path


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run(machine: Path, *command: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, cwd=ROOT, env={"PATH": str(machine)} | environment, capture_output=True, text=True, check=False
    )


def check(machine: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    return run(machine, "sh", "scripts/check_machine.sh", *words, **environment)


@pytest.mark.parametrize("version", ["17.0.15", "21.0.2", "25-ea"])
def test_a_java_that_spark_runs_on_is_accepted_in_silence(machine, version):
    program(
        machine / "java", f"echo Picked up JAVA_TOOL_OPTIONS: -Dversion >&2\necho 'openjdk version \"{version}\"' >&2"
    )
    done = check(machine, "java")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (None, "No Java found: install Java 17"),
        ("echo 'java version \"1.8.0_392\"' >&2", "java is Java 1.8.0_392: install Java 17"),
        ("echo 'openjdk version \"11.0.21\" 2023' >&2", "java is Java 11.0.21: install Java 17"),
        ("echo 'openjdk version \"26\"' >&2", "java is Java 26: install Java 17"),
        ("echo Unable to locate a Java Runtime. >&2; exit 1", "java does not say its version: install Java 17"),
    ],
    ids=["none", "8", "11", "26", "a stub"],
)
def test_a_wrong_java_is_one_line_that_says_what_to_install(machine, script, line):
    if script:
        program(machine / "java", script)
    done = check(machine, "java")
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_java_home_wins_as_it_does_in_spark(machine):
    program(machine / "java", "echo 'openjdk version \"17\"' >&2")
    program(machine / "old" / "bin" / "java", "echo 'openjdk version \"11\"' >&2")
    done = check(machine, "java", JAVA_HOME=str(machine / "old"))
    assert done.returncode == 2
    assert "let JAVA_HOME name it" in done.stderr

    done = check(machine, "java", JAVA_HOME="/nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("JAVA_HOME is /nowhere, which has no bin/java: correct or unset it")


def test_the_first_python_of_the_right_version_is_named(machine):
    program(machine / "python3.11", "echo shim: command not found >&2; exit 127")
    program(machine / "python3", "echo 3.11")
    done = check(machine, "python", "python3.11", "python3")
    assert (done.returncode, done.stdout) == (0, "python3\n")


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (None, "Python 3.11 is needed: install it"),
        ("echo 3.9", "Python 3.11 is needed (found python3, which is Python 3.9): install it"),
        ('case "$2" in *venv*) exit 1 ;; esac; echo 3.11', "python3 cannot make virtual environments: install"),
    ],
    ids=["none", "3.9", "without venv"],
)
def test_a_wrong_python_is_one_line_that_says_what_to_install(machine, script, line):
    if script:
        program(machine / "python3", script)
    done = check(machine, "python", "python3.11", "python3")
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_stops_with_that_line(machine, target):
    done = run(machine, "make", target)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "No Java found: install Java 17" in done.stderr


def test_make_help_lists_the_targets_a_user_needs():
    done = subprocess.run(
        ["make", "help"], cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    groups = {
        first: [line.split()[1] for line in lines]
        for first, *lines in (group.splitlines() for group in done.stdout.strip().split("\n\n"))
    }
    assert groups["Start here"] == ["help", "setup", "demo", "demo-kafka"]
    assert {"test-fast", "test", "test-all", "lint"} <= set(groups["Checks"])
    assert {"docs", "settings"} <= set(groups["Docs"])
    assert groups["Benches"] == ["bench"]
    assert groups["Clean"] == ["clean"]

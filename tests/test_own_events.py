"""README's section on your own events, word for word: its file, its commands, and a list for every user at the end."""

import json
import os
import random
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import yaml
from pyspark.sql import SparkSession

from recsys.config import load_settings
from tests.conftest import SPARK_SETTINGS

ROOT = Path(__file__).parents[1]
SECTION = (ROOT / "README.md").read_text("utf-8").partition("\n## Your own events\n")[2].partition("\n## ")[0]
USERS = 20


def blocks(language: str) -> list[str]:
    """The code blocks of the section that are in a language."""
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    return found


def ratings(first: int, count: int) -> list[dict[str, Any]]:
    """Ratings in the columns that the section names, in no order of time."""
    draw = random.Random(first)
    rated = [
        {
            "userId": f"u{number % USERS}",
            "movieId": f"m{draw.randrange(5 + number // 50) * 3 + number % 3}",
            "rating": draw.choice([0.5, 3.0, 4.5]),
            "timestamp": 1_700_000_000 + 60 * number,
        }
        for number in range(first, first + count)
    ]
    draw.shuffle(rated)
    return rated


def write(file: Path, records: list[dict[str, Any]]) -> None:
    file.parent.mkdir(exist_ok=True)
    table = pa.Table.from_pylist(records)
    if file.suffix == ".csv":
        pyarrow.csv.write_csv(table, file)
    elif file.suffix == ".parquet":
        pyarrow.parquet.write_table(table, file)
    else:
        file.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def run_here(command: str, capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The same in this process and its Spark session, which is much faster."""
    words = shlex.split(command)
    assert words[0] == "python"
    monkeypatch.setattr(sys, "argv", words[1:])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(words[1], run_name="__main__")
    printed = capture.readouterr()
    assert end.value.code == 0, f"{command}\n{printed.out[-2000:]}\n{printed.err[-4000:]}"
    return printed.out


def run(command: str, folder: Path) -> str:
    """Run a command of the section and return what it printed."""
    words = shlex.split(command)
    assert words[0] == "python"
    done = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.mlflow
@pytest.mark.process
@pytest.mark.parametrize(
    "kind", [pytest.param("csv", marks=pytest.mark.heavy), "json", pytest.param("parquet", marks=pytest.mark.heavy)]
)
def test_the_commands_end_in_recommendations(
    tmp_path: Path,
    kind: str,
    spark: SparkSession,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run as they stand, in a folder that has the jobs; only the format differs, and Spark is made small.

    Of one format each command is a process of its own, as for a user.
    """
    monkeypatch.chdir(tmp_path)
    if kind != "csv":  # The JVM of the session runs in another folder.
        monkeypatch.setenv("RECSYS__SOURCE__PATH", str(tmp_path / "events"))
        monkeypatch.setenv("RECSYS__STORAGE__ROOT", str(tmp_path / "var/recsys"))

    def run_one(command: str) -> str:
        return run(command, tmp_path) if kind == "csv" else run_here(command, capsys, monkeypatch)

    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    (file,) = blocks("yaml")
    assert "format: csv" in file
    small = yaml.safe_dump({"spark": SPARK_SETTINGS, "device": "cpu"})
    (tmp_path / "my.yaml").write_text(file.replace("format: csv", f"format: {kind}") + small)
    setup, on_the_command_line = blocks("bash")
    first, activate, *commands = setup.splitlines()
    assert (first, activate) == ("make setup", ". .venv/bin/activate")
    write(tmp_path / "events" / f"a.{kind}", ratings(0, 2_500))

    printed = [run_one(command) for command in commands]
    assert "3 batches, 2,500 events learned" in printed[0]
    assert "champion: version 1" in printed[0]
    assert f"{USERS} users" in printed[1]
    assert re.search(r"^  user u0: m\d+, m\d+", printed[1], re.MULTILINE)
    assert "0 batches, 0 events learned" in printed[2], "nothing is read twice"

    write(tmp_path / "events" / f"b.{kind}", ratings(2_500, 300))
    # Without the file, as the section says; the storage is the default one both times.
    again = on_the_command_line if kind == "csv" else commands[-1]
    assert "1 batches, 300 events learned" in run_one(again)


def test_the_command_line_says_what_the_file_says(tmp_path: Path) -> None:
    (file,) = blocks("yaml")
    words = shlex.split(blocks("bash")[1])
    assert words[:2] == ["python", "jobs/stream_update.py"]
    (tmp_path / "my.yaml").write_text(file)
    assert load_settings(overrides=words[2:]) == load_settings(tmp_path / "my.yaml") != load_settings()


def test_the_value_of_a_rating_counts() -> None:
    """A value whose weight ignores it would be read for nothing."""
    (file,) = blocks("yaml")
    assert yaml.safe_load(file)["source"]["columns"]["value"] == "rating"
    assert yaml.safe_load(file)["weights"]["rating"]["value"] == "multiply"

"""README's section on your own events, word for word: its file, its commands, and a list for every user at the end."""

import random
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
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
    pyarrow.csv.write_csv(pa.Table.from_pylist(records), file)


def run(command: str, capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a command of the section, in this process and its Spark session, and return what it printed."""
    words = shlex.split(command)
    assert words[0] == "python"
    monkeypatch.setattr(sys, "argv", words[1:])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(words[1], run_name="__main__")
    printed = capture.readouterr()
    assert end.value.code == 0, f"{command}\n{printed.out[-2000:]}\n{printed.err[-4000:]}"
    return printed.out


@pytest.mark.mlflow
def test_the_commands_end_in_recommendations(
    tmp_path: Path,
    spark: SparkSession,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run as they stand, in a folder that has the jobs; only Spark is made small."""
    monkeypatch.chdir(tmp_path)
    # The JVM of the session runs in another folder.
    monkeypatch.setenv("RECSYS__SOURCE__PATH", str(tmp_path / "events"))
    monkeypatch.setenv("RECSYS__STORAGE__ROOT", str(tmp_path / "var/recsys"))
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    (file,) = blocks("yaml")
    assert "format: csv" in file
    small = yaml.safe_dump({"spark": SPARK_SETTINGS, "device": "cpu"})
    (tmp_path / "my.yaml").write_text(file + small)
    first, activate, *commands = blocks("bash")[0].splitlines()
    assert (first, activate) == ("make setup", ". .venv/bin/activate")
    write(tmp_path / "events" / "a.csv", ratings(0, 2_500))

    printed = [run(command, capsys, monkeypatch) for command in commands]
    assert "3 batches, 2,500 events learned" in printed[0]
    assert "champion: version 1" in printed[0]
    assert f"{USERS} users" in printed[1]
    assert re.search(r"^  user u0: m\d+, m\d+", printed[1], re.MULTILINE)
    assert "0 batches, 0 events learned" in printed[2], "nothing is read twice"

    write(tmp_path / "events" / "b.csv", ratings(2_500, 300))
    assert "1 batch, 300 events learned" in run(commands[-1], capsys, monkeypatch)


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

"""The wheel, installed beside what it requires, runs the jobs from its own files."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

from tests.conftest import SPARK_SETTINGS

pytestmark = [pytest.mark.process, pytest.mark.heavy]

ROOT = Path(__file__).parents[1]


def run(*command: object, **environment: str) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    # Not in the checkout, which Python would find first.
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, env=env, cwd=os.sep, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_wheel_runs_the_jobs(tmp_path: Path) -> None:
    source, wheels, environment = (tmp_path / name for name in ("source", "wheels", "environment"))
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("recsys", "jobs", "conf"):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source)
    (wheel,) = wheels.iterdir()
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python, recsys = environment / "bin" / "python", environment / "bin" / "recsys"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    # What it requires is there already. An editable install of this checkout is not found in such a path.
    required = {"PYTHONPATH": sysconfig.get_path("purelib")}
    found = run(python, "-c", "import recsys; print(recsys.__file__)", **required)
    assert found.startswith(str(environment))
    assert (Path(found.strip()).parent / "py.typed").exists()

    assert run(recsys, "template", "local", **required) == (ROOT / "conf" / "local.yaml").read_text("utf-8")
    assert "usage: recsys stream-update" in run(recsys, "stream-update", "--help", **required)
    events = tmp_path / "events"
    events.mkdir()
    rows = [{"user_id": f"u{n % 7}", "item_id": f"i{n % 5}", "event_time": 1.7e9 + n} for n in range(200)]
    (events / "a.json").write_text("\n".join(json.dumps(row | {"event_type": "view"}) for row in rows))
    settings = {
        "source": {"path": str(events), "columns": {"event_id": None}},
        "storage": {"root": str(tmp_path / "storage")},
        "weights": {"view": 1},
        "model": {"factors": 4},
        "spark": SPARK_SETTINGS,
    }
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(settings))
    learned = run(recsys, "stream-update", "--config", tmp_path / "my.yaml", **required)
    assert "1 batches, 200 events learned" in learned
    assert "champion: version 1" in learned

"""The wheel, installed beside what it requires, runs the jobs from its own files."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import SPARK_SETTINGS
from tests.wheel import REQUIRED, ROOT, build, environment, run

pytestmark = [pytest.mark.process, pytest.mark.heavy]


def test_the_wheel_runs_the_jobs(tmp_path: Path) -> None:
    python = environment(tmp_path / "environment")
    recsys = python.with_name("recsys")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", build(tmp_path))
    found = run(python, "-c", "import recsys; print(recsys.__file__)", **REQUIRED).stdout
    assert found.startswith(str(tmp_path / "environment"))
    assert (Path(found.strip()).parent / "py.typed").exists()

    assert run(recsys, "template", "local", **REQUIRED).stdout == (ROOT / "conf" / "local.yaml").read_text("utf-8")
    assert "usage: recsys stream-update" in run(recsys, "stream-update", "--help", **REQUIRED).stdout
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
    learned = run(recsys, "stream-update", "--config", tmp_path / "my.yaml", **REQUIRED).stdout
    assert "1 batch, 200 events learned" in learned
    assert "champion: version 1" in learned

"""The bench of a long run: its slopes, on samples whose growth is known, and its generator."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.image
import pytest

from bench.reliability import soak
from recsys.contracts import LedgerRow, StepId

# Ten batches a minute for an hour; memory grows by 60 MB an hour after a start that does not count.
SAMPLES = [
    soak.Sample(
        hours=number / 600,
        batch=number,
        memory=500 + number / 10 if number >= 120 else 0,
        files=number % 2,
        stored=4 * number,
        checkpoint=1,
        database=number / 100,
    )
    for number in range(601)
]


def test_slopes_are_those_after_the_start() -> None:
    assert soak.slope(SAMPLES, "memory", "hours") == pytest.approx(60)
    assert soak.slope(SAMPLES, "stored", "batch") == pytest.approx(4)
    assert soak.slope(SAMPLES, "checkpoint", "hours") == pytest.approx(0, abs=1e-9)
    assert abs(soak.slope(SAMPLES, "files", "batch")) < 1e-4
    assert math.isnan(soak.slope(SAMPLES[:1], "memory", "hours"))


def test_the_growth_of_a_batch_leaves_out_the_first_quarter() -> None:
    assert soak.growth([900] * 25 + [10] * 25 + [12] * 25 + [20] * 25) == 2
    assert soak.growth([5, 5, 5, 5]) == 1


def test_ids_that_are_forgotten_are_no_longer_in_the_model() -> None:
    learned = datetime(2025, 1, 1, tzinfo=UTC)
    metrics = (
        {"new_users": 3.0, "new_items": 2.0, "forgotten_users": 0.0, "forgotten_items": 0.0},
        {},
        {"new_users": 1.0, "new_items": 4.0, "forgotten_users": 2.0, "forgotten_items": 1.0},
    )
    rows = [LedgerRow(StepId(0, batch), 0, 0, 0, 0, 1, learned, metrics=own) for batch, own in enumerate(metrics)]
    assert soak.ids(rows) == ([5, 5, 7], 10)


@pytest.mark.parametrize(("minutes", "seconds"), [(10, 30), (480, 300)])
def test_ids_are_forgotten_before_the_slopes_begin(tmp_path: Path, minutes: float, seconds: float) -> None:
    days = soak.soak_settings(tmp_path, minutes).model.forget_after_days
    assert days is not None
    assert days * 86_400 == pytest.approx(seconds)
    assert days * 86_400 < soak.WARM_UP * 60 * minutes / 2


def test_users_and_items_leave_and_come_and_no_file_is_seen_unfinished(tmp_path: Path) -> None:
    turned = 1 + soak.USERS // soak.TURNOVER_USERS
    for number in (0, 1, turned):
        soak.write_file(tmp_path, number)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["00000000.json", "00000001.json", f"{turned:08d}.json"]
    users, events = [], set()
    for name in files:
        records = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        users.append({record["user_id"] for record in records})
        events |= {record["event_id"] for record in records}
    assert users[0] & users[1]
    assert users[1] - users[0]
    assert not users[0] & users[2]
    assert len(events) == 3 * soak.EVENTS


def test_sizes_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name, size in (("mlflow.db", 3), ("mlflow.db-wal", 4), ("a/mlflow.db", 5), ("a/b", 6)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert sorted(soak.sizes(tmp_path)) == [3, 4, 5, 6]
    assert sorted(soak.sizes(tmp_path, "mlflow.db*", deep=False)) == [3, 4]
    assert soak.sizes(tmp_path / "none") == []


def test_the_picture_has_a_panel_for_each_figure(tmp_path: Path) -> None:
    learned = datetime(2025, 1, 1, tzinfo=UTC)
    rows = [LedgerRow(StepId(0, batch), 0, 0, 0, 0, 1_000 + batch, learned) for batch in range(601)]
    picture = soak.draw_samples([replace(one, files=0) for one in SAMPLES], rows, tmp_path / "plots" / "soak.png")
    height, width, _ = matplotlib.image.imread(picture).shape
    assert width > height
    assert picture.stat().st_size > 20_000

"""The real job, killed by SIGKILL at every stage boundary and started again, ends where an undisturbed one ends."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from chispa import assert_df_equality
from mlflow import MlflowClient
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from safetensors.numpy import load_file

from recsys.config import Settings, load_settings
from recsys.contracts import INTERACTION_LOG, INTERACTIONS, MODEL_UPDATES, QUARANTINE, StepId
from recsys.model import snapshot
from recsys.registry import versions
from recsys.registry.client import connect, experiment_id
from recsys.storage import snapshot_folder
from recsys.tables.delta import Tables
from tests.conftest import SPARK_SETTINGS

ROOT = Path(__file__).parents[2]
BATCHES = 17
# Each stage boundary with a batch in which the stage has something to do, in the order of the batches.
KILLS = [
    ("quarantine", 1),
    ("log", 2),
    ("evaluate", 3),
    ("learn", 4),
    ("snapshot", 5),
    ("ledger", 6),
    ("metrics", 7),
    ("version", 8),
    ("alias", 11),
    ("totals", 14),
    ("batch", 15),
]
HOSTILE_IDS = ["quote'\"`;--", "path/../../etc", "new\nline", "🛒" * 3, "x" * 10_000]


def write_event_files(folder: Path) -> None:
    """Files with repeated events, records that belong into quarantine, and ids that are no fun."""
    folder.mkdir()
    draw = random.Random(7)
    written: list[str] = []
    for number in range(BATCHES):
        lines = []
        for event in range(150):
            record = {
                "user_id": draw.choice([f"u{draw.randrange(40)}", *HOSTILE_IDS]),
                "item_id": f"i{draw.randrange(10 + 3 * number)}",
                "event_type": draw.choice(["view", "purchase", "return"]),
                "event_time": 1_700_000_000 + 3_600 * number + event,
                "event_id": f"{number}-{event}",
            }
            lines.append(json.dumps(record, ensure_ascii=False))
        lines += draw.sample(written, min(5, len(written))) + lines[:3]
        lines += ['{"user_id": "u1"', '{"user_id": "u1", "item_id": "i1", "event_type": "stare"}', "[1, 2]"]
        written += lines[:20]
        file = folder / f"{number:03d}.json"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.utime(file, (1_700_000_000 + number, 1_700_000_000 + number))


def write_config(folder: Path, events: Path, name: str) -> Path:
    config = {
        "source": {"path": str(events), "options": {"maxFilesPerTrigger": 1}},
        "storage": {"root": str(folder / name), "snapshot_every_batches": 2, "refresh_totals_every_batches": 5},
        "register": {"every_batches": 3},
        "weights": {"view": 1, "purchase": 3, "return": -3},
        "model": {"factors": 8},
        "decay": {"half_life_days": 1},
        "gate": {"tolerance": 0.5},
        "recommend": {"k": 5},
        "evaluation": {"users_per_batch": 20},
        "device": "cpu",
        "spark": SPARK_SETTINGS,
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def run_job(config: Path, stage: str = "none", batch: int = -1) -> int:
    """Run the job as a process and return its exit status; negative: the signal that ended it."""
    command = [sys.executable, str(ROOT / "tests/stream/killed_stream.py"), stage, str(batch), "--config", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-4000:]
    return done.returncode


@pytest.fixture(scope="module")
def killed_and_undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Settings]:
    """Settings of a storage whose stream was killed again and again, and of one whose stream ran through."""
    folder = tmp_path_factory.mktemp("exactly-once")
    write_event_files(folder / "events")
    killed = write_config(folder, folder / "events", "killed")
    undisturbed = write_config(folder, folder / "events", "undisturbed")
    for stage, batch in KILLS:
        assert run_job(killed, stage, batch) == -signal.SIGKILL, f"{stage} of batch {batch} was never reached"
    assert run_job(killed) == 0
    assert run_job(undisturbed) == 0
    return load_settings(killed), load_settings(undisturbed)


def table(spark: SparkSession, settings: Settings, name: str) -> DataFrame:
    """A table without what differs from run to run: clock times, durations and the folder's name."""
    rows = Tables(spark, settings.storage).read(name).drop("ingested_at", "duration_ms")
    if name == MODEL_UPDATES:
        timeless = F.map_filter("metrics", lambda key, _: ~key.endswith("seconds"))
        rows = rows.withColumns(
            {
                "metrics": F.to_json(F.array_sort(F.map_entries(timeless))),
                "state_uri": F.regexp_replace("state_uri", "^.*/state/", ""),
            }
        )
    return rows


@pytest.mark.parametrize("name", [INTERACTION_LOG, INTERACTIONS, QUARANTINE, MODEL_UPDATES])
def test_tables_are_equal(spark: SparkSession, killed_and_undisturbed: tuple[Settings, Settings], name: str) -> None:
    killed, undisturbed = (table(spark, settings, name) for settings in killed_and_undisturbed)
    assert undisturbed.count() > 0
    order = [column for column in undisturbed.columns if column != "weight"]
    assert_df_equality(killed, undisturbed, ignore_nullable=True, transforms=[lambda frame: frame.orderBy(*order)])


def test_model_arrays_are_equal(killed_and_undisturbed: tuple[Settings, Settings]) -> None:
    killed, undisturbed = (
        load_file(snapshot.path_for(snapshot_folder(settings.storage.root), StepId(0, BATCHES - 1)))
        for settings in killed_and_undisturbed
    )
    assert killed.keys() == undisturbed.keys()
    for name in killed:
        np.testing.assert_array_equal(killed[name], undisturbed[name], err_msg=name)


def test_no_record_is_lost_or_counted_twice(
    spark: SparkSession, killed_and_undisturbed: tuple[Settings, Settings]
) -> None:
    for settings in killed_and_undisturbed:
        tables = Tables(spark, settings.storage)
        assert tables.read(QUARANTINE).count() == 3 * BATCHES
        assert tables.read(INTERACTION_LOG).agg(F.sum("events")).collect()[0][0] == 150 * BATCHES
        steps = tables.read(MODEL_UPDATES).select("generation", "batch_id")
        assert steps.count() == steps.distinct().count() == BATCHES


def test_mlflow_holds_every_step_and_version_once(killed_and_undisturbed: tuple[Settings, Settings]) -> None:
    held = [registry_content(settings) for settings in killed_and_undisturbed]
    assert held[0] == held[1]
    assert held[1]["steps"] == list(range(BATCHES))
    assert [step for step, _ in held[1]["versions"]] == [(0, 2), (0, 5), (0, 8), (0, 11), (0, 14)]


def registry_content(settings: Settings) -> dict[str, Any]:
    client: MlflowClient = connect(settings)
    runs = client.search_runs([experiment_id(client, settings)])
    assert len(runs) == 1
    run = runs[0].info.run_id
    found = client.search_model_versions(f"name='{settings.mlflow.model_name}'")
    champion = versions.champion(client, settings.mlflow.model_name)
    assert champion is not None
    return {
        "steps": sorted(metric.step for metric in client.get_metric_history(run, "events")),
        "ndcg": [metric.value for metric in client.get_metric_history(run, "model/ndcg_at_5")],
        "versions": sorted(
            ((int(version.tags["generation"]), int(version.tags["batch_id"])), version.tags["gate.passed"])
            for version in found
        ),
        "champion": champion.step,
    }

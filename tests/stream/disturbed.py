"""A stream that has something to do for every stage, and all that it leaves behind, to be compared."""

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from chispa import assert_df_equality
from mlflow import MlflowClient
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys.config import Settings
from recsys.contracts import INTERACTION_LOG, MODEL_UPDATES, StepId
from recsys.registry import decisions, versions
from recsys.registry.client import connect, experiment_id
from recsys.registry.runs import GENERATION_TAG
from recsys.tables import ledger
from recsys.tables.delta import Tables
from tests.conftest import SPARK_SETTINGS
from tests.stream.checks import arrays

HOSTILE_IDS = ["quote'\"`;--", "path/../../etc", "new\nline", "🛒" * 3, "x" * 1_024]


class InterruptedStage(Exception):
    """Comes out of the job where a kill would end it."""


def write_event_files(folder: Path, files: int) -> None:
    """Files with repeated events, impressions, records that belong into quarantine, and ids that are no fun."""
    folder.mkdir()
    draw = random.Random(7)
    written: list[str] = []
    for number in range(files):
        lines = []
        for event in range(150):
            record = {
                "user_id": draw.choice([f"u{draw.randrange(40)}", *HOSTILE_IDS]),
                "item_id": f"i{draw.randrange(10 + 3 * number)}",
                "event_type": draw.choice(["view", "purchase", "return"]),
                "event_time": 1_700_000_000 + 3_600 * number + event,
                "event_id": f"{number}-{event}",
            }
            if event % 10 == 0:  # It answers a list, of which three more items were shown.
                record["list_id"] = f"recsys/1:als:5.000000e-01:{event:016x}"
                shown = {**record, "event_type": "impression"}
                for place in range(3):
                    item = {"item_id": f"i{(event + 7 * place) % (10 + 3 * number)}"}
                    own = {"event_id": f"{number}-{event}-{place}"}
                    lines.append(json.dumps({**shown, **item, **own}, ensure_ascii=False))
            lines.append(json.dumps(record, ensure_ascii=False))
        lines += draw.sample(written, min(5, len(written))) + lines[:3]
        lines.append(json.dumps({"user_id": "x" * 1_025, "item_id": "i1", "event_type": "view", "event_time": 1.7e9}))
        lines += ['{"user_id": "u1"', '{"user_id": "u1", "item_id": "i1", "event_type": "stare"}', "[1, 2]"]
        written += lines[:20]
        file = folder / f"{number:03d}.json"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.utime(file, (1_700_000_000 + number, 1_700_000_000 + number))


def write_vectors(file: Path) -> None:
    """A catalog of vectors, of all items but every seventh."""
    draw, described = random.Random(3), [f"i{number}" for number in range(60) if number % 7]
    vectors = [[draw.gauss(0, 1) for _ in range(5)] for _ in described]
    pd.DataFrame({"item_id": described, "vector": vectors}).to_parquet(file)


def write_config(folder: Path, name: str) -> Path:
    """Settings that have something to do for every stage, for the files in `folder/events`."""
    write_vectors(folder / "items.parquet")
    config = {
        "source": {"path": str(folder / "events"), "options": {"maxFilesPerTrigger": 1}},
        "storage": {"root": str(folder / name), "snapshot_every_batches": 2, "refresh_totals_every_batches": 5},
        "register": {"every_batches": 3},
        "weights": {
            "view": 1,
            "purchase": 3,
            "return": -3,
            "impression": {"weight": 0, "impression": True},
        },
        # Files are an hour apart: who is in none of two or three of them is forgotten.
        "model": {
            "factors": 8,
            "forget_after_days": 0.1,
            "mixture": {"members": ["als", "trend", "cooccurrence", "sessions", "content", "sequence"]},
        },
        "items": {"path": str(folder / "items.parquet"), "columns": {"title": None, "text": None, "vector": "vector"}},
        "decay": {"half_life_days": 1},
        "gate": {"tolerance": 0.5, "confidence": 0.6, "max_batches": 2, "min_users": 8},
        "recommend": {"k": 5},
        "evaluation": {"users_per_batch": 20},
        "device": "cpu",
        "spark": SPARK_SETTINGS,
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def table(spark: SparkSession, settings: Settings, name: str) -> DataFrame:
    """A table without what differs from run to run: clock times, durations, commits, and the folder's name."""
    rows = Tables(spark, settings.storage).read(name).drop("ingested_at", "duration_ms", "log_version")
    if name == MODEL_UPDATES:
        timeless = F.map_filter("metrics", lambda key, _: ~key.endswith("seconds"))
        rows = rows.withColumns(
            {
                "metrics": F.to_json(F.array_sort(F.map_entries(timeless))),
                "settings": F.to_json(F.array_sort(F.map_entries("settings"))),
                # Digests differ, because an artifact has the id of its logged model.
                "artifacts": F.array_sort(F.map_keys("artifacts")),
                "state_uri": F.regexp_replace("state_uri", "^.*/state/", ""),
            }
        )
    return rows


def assert_tables_are_equal(spark: SparkSession, name: str, disturbed: Settings, undisturbed: Settings) -> None:
    """Row by row, and not both empty."""
    found, wanted = (table(spark, settings, name) for settings in (disturbed, undisturbed))
    assert wanted.count() > 0
    order = [column for column in wanted.columns if column != "weight"]
    assert_df_equality(found, wanted, ignore_nullable=True, transforms=[lambda frame: frame.orderBy(*order)])


def assert_each_batch_is_in_the_version_that_the_ledger_names(spark: SparkSession, settings: Settings) -> None:
    tables = Tables(spark, settings.storage)
    held: dict[int, dict[StepId, int]] = {}
    for row in ledger.read(tables, generation=0, after=-1):
        if row.log_version not in held:
            held[row.log_version] = tables.rows_by_step(INTERACTION_LOG, [[]], row.log_version)
        assert row.step in held[row.log_version] or not row.events


def assert_arrays_are_equal(disturbed: Settings, undisturbed: Settings, batches: int) -> None:
    """The arrays of the model after the last batch, bit by bit."""
    found, wanted = (arrays(settings, StepId(0, batches - 1)) for settings in (disturbed, undisturbed))
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


def registry_content(settings: Settings) -> dict[str, Any]:
    """What MLflow holds, without its own ids and clock times."""
    client: MlflowClient = connect(settings)
    runs = {
        run.data.tags[GENERATION_TAG]: run.info.run_id for run in client.search_runs([experiment_id(client, settings)])
    }
    found = client.search_model_versions(f"name='{settings.mlflow.model_name}'")
    aliases = decisions.standing(client, settings.mlflow.model_name).aliases
    assert "champion" in aliases, "nothing was promoted"

    def logged(key: str) -> dict[str, list[tuple[int, float]]]:
        histories = {generation: client.get_metric_history(run, key) for generation, run in runs.items()}
        return {
            generation: sorted((metric.step, metric.value) for metric in history)
            for generation, history in histories.items()
        }

    return {
        "events": logged("events"),
        "ndcg": logged("model/ndcg_at_5"),
        "versions": sorted(
            ((int(version.tags["generation"]), int(version.tags["batch_id"])), _decided(version.tags))
            for version in found
        ),
        "aliases": {
            alias: versions.resolve(client, f"models:/{settings.mlflow.model_name}/{number}").step
            for alias, number in aliases.items()
        },
    }


def _decided(tags: dict[str, str]) -> dict[str, str]:
    """What the tags of a version say of its trial and of decisions about it, without clock times."""
    kinds = ("gate", "promoted", "replaced", "rolled_back")
    return {key: value for key, value in tags.items() if key.split(".")[0] in kinds and not key.endswith("seconds")}

"""Maintenance beside a live stream: the stream does not notice, and what it needs at its next start is there."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys.config import Settings
from recsys.contracts import INTERACTION_LOG, StepId
from recsys.errors import InputError
from recsys.registry import versions
from recsys.registry.client import connect
from recsys.registry.versions import Version
from recsys.storage import adapter_folder, snapshot_folder
from recsys.stream.job import run_stream
from recsys.stream.maintenance import maintain
from recsys.stream.rebuild import rebuild
from recsys.tables import maintenance
from recsys.tables.delta import Tables
from tests.stream.checks import steps
from tests.streams import write_stream

FILES = 5


def registered(settings: Settings) -> list[Version]:
    client, name = connect(settings), settings.mlflow.model_name
    found = sorted(int(found.version) for found in client.search_model_versions(f"name='{name}'"))
    return [versions.resolve(client, f"models:/{name}/{number}") for number in found]


def files(root: str) -> dict[str, int]:
    """Size of every file, except MLflow's database, whose pages may move."""
    found = (path for path in Path(root).rglob("*") if path.is_file() and not path.name.startswith("mlflow.db"))
    return {str(path): path.stat().st_size for path in found}


@pytest.mark.heavy
def test_a_stream_with_maintenance_between_its_stages(spark: SparkSession, stream: Settings) -> None:
    """It is called in the middle of running batches, after a rebuild that left a generation behind."""
    kept = {
        "storage": {"snapshot_every_batches": 1},
        "register": {"every_batches": 1},
        "gate": {"tolerance": 0.9, "confidence": 0.5, "max_batches": 1, "min_users": 10},
        "maintain": {"versions_kept": 1},
    }
    settings = Settings.model_validate(
        {**stream.model_dump(by_alias=True), **kept, "storage": {**stream.storage.model_dump(), **kept["storage"]}}
    )
    root, tables = settings.storage.root, Tables(spark, settings.storage)
    write_stream(Path(settings.source.path), files=2)
    run_stream(settings)
    rebuilt = rebuild(settings)
    adapter_folder(root, 0).mkdir(parents=True)

    before, had = files(root), registered(settings)
    would = maintain(settings, dry_run=True)
    assert (files(root), registered(settings)) == (before, had)
    assert [line for line in would if INTERACTION_LOG in line] == [
        "would compact 2 files of interaction_log, as far as they are small"
    ]
    assert f"would delete {adapter_folder(root, 0)}" in would
    assert f"would delete {snapshot_folder(root) / 'generation-0'}" in would
    # Version 1 is champion, and version 3, of the rebuild, has taken the place of version 2 as the challenger.
    assert [line for line in would if "version" in line] == ["would delete version 2 of recsys, of batch 0-1"]
    assert len(had) == 3

    lines: list[str] = []

    def beside(stage: str, step: StepId) -> None:
        if (stage, step.batch_id) in {("quarantine", 3), ("log", 4)}:
            lines.extend(maintain(settings))

    write_stream(Path(settings.source.path), files=FILES, first=2)
    summary = run_stream(settings, observe=beside)
    assert summary.batches == FILES - 2
    assert any(line.startswith("compacted") and INTERACTION_LOG in line for line in lines)
    assert tables.read(INTERACTION_LOG).agg(F.sum("events")).collect()[0][0] == 120 * FILES
    assert steps(tables) == [(0, 0), (0, 1), *((1, batch) for batch in range(1, FILES))]
    assert not adapter_folder(root, 0).exists()
    assert [path.name for path in snapshot_folder(root).iterdir()] == ["generation-1"]

    maintain(settings)
    assert maintenance.count_files(tables, INTERACTION_LOG) == 1
    left = registered(settings)
    client, name = connect(settings), settings.mlflow.model_name
    kept_numbers = {version.version for version in left}
    assert rebuilt.version.version in kept_numbers, "the first of the generation, with which the stream compares"
    assert versions.champion(client, name) in left
    assert versions.resolve(client, f"models:/{name}@challenger") in left
    assert len(left) <= 4 < len(had) + FILES - 2
    assert maintain(settings) == [], "and nothing is left to do"
    assert run_stream(settings).batches == 0


def test_without_tables_there_is_nothing_to_maintain(spark: SparkSession, stream: Settings) -> None:
    empty = stream.model_copy(
        update={"storage": stream.storage.model_copy(update={"root": f"{stream.storage.root}/x"})}
    )
    with pytest.raises(InputError, match="there is no table .*model_updates"):
        maintain(empty)
    assert not Path(empty.storage.root).exists()

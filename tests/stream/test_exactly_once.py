"""The real job, killed by SIGKILL at every stage boundary and started again, ends where an undisturbed one ends."""

import signal

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys.config import Settings, load_settings
from recsys.contracts import INTERACTION_LOG, INTERACTIONS, MODEL_UPDATES, QUARANTINE
from recsys.tables.delta import Tables
from tests.stream import killed_job
from tests.stream.disturbed import (
    assert_arrays_are_equal,
    assert_tables_are_equal,
    registry_content,
    write_config,
    write_event_files,
)

pytestmark = [pytest.mark.process, pytest.mark.heavy]

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


@pytest.fixture(scope="module")
def killed_and_undisturbed(
    tmp_path_factory: pytest.TempPathFactory, spark_settings: dict[str, str]
) -> tuple[Settings, Settings]:
    """Settings of a storage whose stream was killed again and again, and of one whose stream ran through."""
    folder = tmp_path_factory.mktemp("exactly-once")
    write_event_files(folder / "events", BATCHES)
    killed, undisturbed = (write_config(folder, name, spark_settings) for name in ("killed", "undisturbed"))
    beside = killed_job.start(undisturbed)
    for stage, batch in KILLS:
        status = killed_job.end(killed_job.start(killed, stage, batch), killed)
        assert status == -signal.SIGKILL, f"{stage} of batch {batch} was never reached"
    assert killed_job.end(killed_job.start(killed), killed) == 0
    assert killed_job.end(beside, undisturbed) == 0
    return load_settings(killed), load_settings(undisturbed)


@pytest.mark.parametrize("name", [INTERACTION_LOG, INTERACTIONS, QUARANTINE, MODEL_UPDATES])
def test_tables_are_equal(spark: SparkSession, killed_and_undisturbed: tuple[Settings, Settings], name: str) -> None:
    assert_tables_are_equal(spark, name, *killed_and_undisturbed)


def test_model_arrays_are_equal(killed_and_undisturbed: tuple[Settings, Settings]) -> None:
    assert_arrays_are_equal(*killed_and_undisturbed, BATCHES)


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

"""The real backfill, killed by SIGKILL at stage boundaries and started again, ends where an undisturbed one ends."""

import signal

import pytest
from pyspark.sql import SparkSession

from recsys.config import Settings, load_settings
from recsys.contracts import INTERACTION_LOG, INTERACTIONS, MODEL_UPDATES, QUARANTINE
from recsys.stream.backfill import backfill
from recsys.stream.job import run_stream
from tests.stream import killed_job
from tests.stream.disturbed import (
    assert_arrays_are_equal,
    assert_tables_are_equal,
    registry_content,
    write_config,
    write_event_files,
)

pytestmark = [pytest.mark.process, pytest.mark.heavy]

BATCHES = 6
# Before the log, right after it, with rows that are learned but not yet in the ledger, and between its commits.
KILLS = [
    ("quarantine", 0),
    ("log", BATCHES - 1),
    ("learn", 0),
    ("snapshot", 1),
    ("ledger", 1),
    ("version", 2),
    ("end", 5),
]


@pytest.fixture(scope="module")
def killed_and_undisturbed(
    tmp_path_factory: pytest.TempPathFactory, spark_settings: dict[str, str]
) -> tuple[Settings, Settings]:
    """Settings of a storage whose backfill was killed again and again, and of one whose backfill ran through."""
    folder = tmp_path_factory.mktemp("backfill")
    write_event_files(folder / "events", BATCHES)
    killed, undisturbed = (write_config(folder, name, spark_settings) for name in ("killed", "undisturbed"))
    for config in (killed, undisturbed):
        config.write_text(config.read_text().replace("source:", "source:\n  max_records_per_batch: 150", 1))
    beside = killed_job.start(undisturbed, job=backfill)
    for stage, batch in KILLS:
        status = killed_job.end(killed_job.start(killed, stage, batch, backfill), killed)
        assert status == -signal.SIGKILL, f"{stage} of batch {batch} was never reached"
    assert killed_job.end(killed_job.start(killed, job=backfill), killed) == 0
    assert killed_job.end(beside, undisturbed) == 0
    return load_settings(killed), load_settings(undisturbed)


@pytest.mark.parametrize("name", [INTERACTION_LOG, INTERACTIONS, QUARANTINE, MODEL_UPDATES])
def test_tables_are_equal(spark: SparkSession, killed_and_undisturbed: tuple[Settings, Settings], name: str) -> None:
    assert_tables_are_equal(spark, name, *killed_and_undisturbed)


def test_model_and_registry_are_equal(killed_and_undisturbed: tuple[Settings, Settings]) -> None:
    assert_arrays_are_equal(*killed_and_undisturbed, BATCHES)
    held = [registry_content(settings) for settings in killed_and_undisturbed]
    assert held[0] == held[1]
    assert held[1]["steps"] == list(range(BATCHES))
    assert [step for step, _ in held[1]["versions"]] == [(0, 2), (0, 5)]


def test_the_stream_goes_on_from_both(spark: SparkSession, killed_and_undisturbed: tuple[Settings, Settings]) -> None:
    assert [run_stream(settings).batches for settings in killed_and_undisturbed] == [0, 0]

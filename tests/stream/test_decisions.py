"""What people decide about versions while the stream runs."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.config.sections import Gate
from recsys.contracts import StepId
from recsys.registry import decisions, versions
from recsys.registry.client import connect
from recsys.registry.decisions import RegistryDecision
from recsys.registry.versions import VERDICT
from recsys.stream.job import run_stream
from recsys.tables import ledger
from recsys.tables.delta import Tables
from tests.streams import write_stream

ANN = RegistryDecision("ann", "lists look wrong")
# Every version passes on the first batch after its registration.
LENIENT = Gate(tolerance=0.99, confidence=0.5, max_batches=1, min_users=5, min_coverage=0)


def test_a_running_stream_follows_a_rollback_and_keeps_a_hold(
    spark: SparkSession, stream: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """A version is due after every third batch, and is judged on the next one."""
    settings = stream.model_copy(update={"gate": LENIENT})
    write_stream(Path(settings.source.path), files=15)
    name, client = settings.mlflow.model_name, connect(settings)

    def observe(stage: str, step: StepId) -> None:
        if (stage, step.batch_id) == ("batch", 7):
            assert decisions.rollback(client, name, None, ANN).step == StepId(0, 2)
        elif (stage, step.batch_id) == ("batch", 8):
            decisions.hold(client, name, ANN)
        elif (stage, step.batch_id) == ("batch", 12):
            decisions.release(client, name)

    run_stream(settings, observe=observe)
    made = {version.step.batch_id: version for version in versions.all_versions(client, name) if version.step}
    first, second, held, last = (made[batch] for batch in (2, 5, 8, 11))
    rows = ledger.read(Tables(spark, settings.storage), generation=0, after=-1)
    # The stream looks at the alias after each batch. It does not promote again what a person has replaced.
    one, two, four = (version.version for version in (first, second, last))
    assert [row.model_version for row in rows] == [None] * 4 + [one] * 3 + [two] * 2 + [one] * 5 + [four]
    assert f"models:/{name}/{one} has been made champion elsewhere" in caplog.text
    assert decisions.replaced_by(second) == ANN
    assert held.tags[VERDICT] == "passed"
    assert "promoted.by" not in held.tags
    waits = f"{held.uri} has passed the gate, and waits for jobs/registry.py: promotions are on hold, by ann"
    assert waits in caplog.text
    assert decisions.standing(client, name).aliases == {
        "champion": last.version,
        "previous": first.version,
        "challenger": made[14].version,
    }
    assert last.tags["promoted.by"] == "stream"
    assert last.tags["promoted.reason"] == last.tags["gate.reasons"]
    assert VERDICT not in made[14].tags, "it is still on trial"

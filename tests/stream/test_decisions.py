"""What people decide about versions while the stream runs."""

from pathlib import Path

from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.config.sections import Gate
from recsys.contracts import StepId
from recsys.registry import decisions, versions
from recsys.registry.client import connect
from recsys.registry.decisions import RegistryDecision
from recsys.stream.job import run_stream
from recsys.tables import ledger
from recsys.tables.delta import Tables
from tests.streams import write_stream

ANN = RegistryDecision("ann", "lists look wrong")


def test_a_running_stream_follows_a_rollback_and_keeps_a_hold(spark: SparkSession, stream: Settings) -> None:
    """A version is due after every third batch, and every one of them passes the gate."""
    settings = stream.model_copy(update={"gate": Gate(tolerance=1.0)})
    write_stream(Path(settings.source.path), files=15)
    name, client = settings.mlflow.model_name, connect(settings)

    def observe(stage: str, step: StepId) -> None:
        if (stage, step.batch_id) == ("batch", 6):
            assert decisions.rollback(client, name, None, ANN).step == StepId(0, 2)
        elif (stage, step.batch_id) == ("batch", 9):
            decisions.hold(client, name, ANN)
        elif (stage, step.batch_id) == ("batch", 12):
            decisions.release(client, name)

    run_stream(settings, observe=observe)
    made = {version.step.batch_id: version for version in versions.all_versions(client, name) if version.step}
    first, second = made[2].version, made[5].version
    rows = ledger.read(Tables(spark, settings.storage), generation=0, after=-1)
    # The stream looks at the alias when it registers: the next time is batch 8.
    compared_with = [row.model_version for row in rows]
    assert compared_with == [None] * 3 + [first] * 3 + [second] * 3 + [first] * 6
    assert made[8].tags["gate.reasons"] == "model and champion were never measured on the same batch"
    assert made[11].tags["gate.reasons"].endswith("promotions are on hold, by ann: lists look wrong")
    assert [made[batch].tags["gate.passed"] for batch in (2, 5, 8, 11, 14)] == [
        "true",
        "true",
        "false",
        "false",
        "true",
    ]
    champion, before = versions.champion(client, name), decisions.previous(client, name)
    assert champion is not None
    assert before is not None
    assert (champion.step, before.step) == (StepId(0, 14), StepId(0, 2))
    assert champion.tags["promoted.by"] == "stream"

"""The gate in the stream: what is promoted is the artifact that was measured, or what a person approves."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.contracts import TRIALS, LedgerRow, StepId
from recsys.model.evaluation.gate import PASSED
from recsys.registry import decisions, versions
from recsys.registry.client import connect, experiment_id
from recsys.registry.decisions import RegistryDecision
from recsys.registry.retention import model_id_of
from recsys.registry.versions import VERDICT, WATCHED, Version
from recsys.serving import Served
from recsys.stream.job import run_stream
from recsys.tables import ledger
from recsys.tables.delta import Tables
from tests.streams import write_stream

# Thirty users decide within three batches, as hundreds do with the defaults.
GATE_SETTINGS = {"tolerance": 0.3, "confidence": 0.6, "max_batches": 3, "min_users": 20, "watch_batches": 3}
NAME = "recsys"
BAD = "2"  # The version that recommends every item in the place of another one.


@pytest.fixture
def judged(stream: Settings) -> Settings:
    return stream.model_copy(update={"gate": stream.gate.model_copy(update=GATE_SETTINGS)})


def spoil(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    """Let one version be of no use: the live model, whose figures are as good as ever, is not what is registered."""
    register = versions.register

    def spoilt(client: MlflowClient, settings: Settings, run: str, served: Served, *more: object) -> Version:
        if len(versions.all_versions(client, NAME)) == int(number) - 1:
            served = replace(served, item_ids=[*served.item_ids[1:], served.item_ids[0]])
        return register(client, settings, run, served, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(versions, "register", spoilt)


def verdicts(client: MlflowClient) -> dict[str, str | None]:
    return {version.version: version.tags.get(VERDICT) for version in versions.all_versions(client, NAME)}


def by_batch(tables: Tables) -> dict[int, LedgerRow]:
    return {row.step.batch_id: row for row in ledger.read(tables, generation=0, after=-1)}


def test_only_what_was_measured_to_be_no_worse_is_promoted(
    spark: SparkSession, judged: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, BAD)
    folder, client, tables = Path(judged.source.path), connect(judged), Tables(spark, judged.storage)
    write_stream(folder, files=12)
    run_stream(judged)
    rows, found = by_batch(tables), verdicts(client)
    assert "gate: challenger 1 without a champion: passed" in rows[3].decisions[-1], "beside popularity"
    assert (found["1"], found[BAD], found["3"]) == ("passed", "rejected", "passed")
    assert {row.model_version for row in rows.values()} == {None, "1", "3"}, "the bad version never serves"
    digests = {version.version: version.digest for version in versions.all_versions(client, NAME)}
    assert len(set(digests.values())) == len(digests)
    assert None not in digests.values()
    for row in rows.values():
        assert row.artifacts.get("champion") == (row.model_version and digests[row.model_version])
        if "challenger/ndcg_at_5" in row.metrics:
            assert row.artifacts["challenger"] in digests.values()

    # Tags, ledger, run and table say the same.
    bad = versions.resolve(client, f"models:/{NAME}/{BAD}")
    (line,) = [line for row in rows.values() for line in row.decisions if f"challenger {BAD} beside version 1:" in line]
    assert line.endswith(bad.tags["gate.reasons"])
    assert float(bad.tags["gate.upper"]) < 0
    seen = defaultdict(list)
    for row in tables.read(TRIALS).filter(f"model_version = '{BAD}'").collect():
        assert (row.against, row.known) == ("1", True)
        seen[row.batch_id].append((row.user_id, row.ndcg))
    assert len({user for users in seen.values() for user, _ in users}) == int(bad.tags["gate.users"]) >= 20
    assert len(seen) == int(bad.tags["gate.batches"])
    for batch, users in seen.items():
        mean = sum(ndcg for _, ndcg in users) / len(users)
        assert rows[batch].metrics["challenger/ndcg_at_5"] == pytest.approx(mean)
    (run,) = client.search_runs([experiment_id(client, judged)])
    logged = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "gate/upper")}
    assert logged[max(seen)] == rows[max(seen)].metrics["gate/upper"] == pytest.approx(float(bad.tags["gate.upper"]))


def test_a_person_approves_and_what_cannot_be_loaded_is_rejected(
    spark: SparkSession, judged: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    manual = judged.model_copy(update={"gate": judged.gate.model_copy(update={"approval": "manual"})})
    folder, client, tables = Path(manual.source.path), connect(manual), Tables(spark, manual.storage)
    write_stream(folder, files=5)
    assert run_stream(manual).champion_version is None
    assert verdicts(client) == {"1": "passed"}
    assert "/1 has passed the gate, and waits for jobs/registry.py: gate.approval is manual" in caplog.text

    def approve(stage: str, step: StepId) -> None:
        if (stage, step.batch_id) == ("ledger", 5):
            passed = versions.resolve(client, f"models:/{NAME}/1")
            decisions.promote(client, passed, RegistryDecision("ann", "looks right"))

    write_stream(folder, files=6, first=5)
    assert run_stream(manual, observe=approve).champion_version == "1", "the stream looks after every batch"
    assert verdicts(client) == {"2": None, "1": "passed"}
    damage(client, "2")
    write_stream(folder, files=7, first=6)
    assert run_stream(manual).champion_version == "1"
    assert [by_batch(tables)[batch].model_version for batch in (5, 6)] == [None, "1"]
    rejected = versions.resolve(client, f"models:/{NAME}/2").tags
    assert rejected[VERDICT] == "rejected"
    assert rejected["gate.reasons"].startswith("models:/recsys/2 is not what was registered: ")


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_champion_that_falls_behind_what_it_replaced_is_sent_back_unless_a_person_wants_it(
    confirmed: bool,
    spark: SparkSession,
    judged: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spoil(monkeypatch, BAD)
    folder, client, tables = Path(judged.source.path), connect(judged), Tables(spark, judged.storage)
    write_stream(folder, files=6)
    run_stream(judged)
    assert verdicts(client) == {BAD: None, "1": "passed"}
    # What an attack achieves that goes on for as long as the trial.
    bad = versions.resolve(client, f"models:/{NAME}/{BAD}")
    versions.tag(client, bad, versions.gate_tags(PASSED, "1", ["it did well"], {}))

    def ann(stage: str, step: StepId) -> None:
        if (stage, step.batch_id) == ("ledger", 7):
            decisions.hold(client, NAME, RegistryDecision("ann", "a look"))
        if (stage, step.batch_id) == ("ledger", 9):
            if confirmed:
                decisions.promote(client, bad, RegistryDecision("ann", "it is meant to be like that"))
            decisions.release(client, NAME)
        if (stage, step.batch_id) == ("ledger", 11) and not confirmed:
            # In MLflow's pages, where nobody gives a reason.
            client.set_registered_model_alias(NAME, "champion", BAD)

    write_stream(folder, files=14, first=6)
    keener = judged.gate.model_copy(update={"tolerance": 0.05, "confidence": 0.5})
    rare = judged.register_.model_copy(update={"every_batches": 50})
    run_stream(judged.model_copy(update={"gate": keener, "register_": rare}), observe=ann)
    rows = by_batch(tables)
    assert [rows[batch].model_version for batch in range(5, 10)] == ["1", "1", BAD, BAD, BAD]
    after = [BAD] * 4 if confirmed else ["1", "1", BAD, BAD]
    assert [rows[batch].model_version for batch in range(10, 14)] == after, "a person's choice stays"
    said = "/2 falls behind version 1, and is not rolled back: promotions are on hold, by ann: a look"
    assert caplog.text.count(said) == 1
    first, bad = (versions.resolve(client, f"models:/{NAME}/{number}") for number in ("1", BAD))
    told = [line for row in rows.values() for line in row.decisions if "champion 2" in line]
    assert told[0] == "gate: champion 2 is watched beside version 1, which it replaced"
    assert told[1].startswith("gate: champion 2 falls behind version 1: NDCG 0.1")
    assert len(told) == 2
    by = None if confirmed else "stream"
    assert first.tags.get("rolled_back.by") == by
    assert first.tags.get("rolled_back.reason") == (None if confirmed else told[1])
    assert bad.tags.get(WATCHED) == (None if confirmed else "rejected")
    watched = tables.read(TRIALS).filter(f"model_version = '1' AND against = '{BAD}'").collect()
    assert len({row.batch_id for row in watched}) == len([row for row in rows.values() if "watch/upper" in row.metrics])
    assert all("previous/ndcg_at_5" in rows[row.batch_id].metrics for row in watched)


def damage(client: MlflowClient, number: str) -> None:
    """Cut off the end of the arrays of a version."""
    model_id = model_id_of(client.get_model_version(NAME, number))
    assert model_id is not None
    location = client.get_logged_model(model_id).artifact_location
    file = Path(location.removeprefix("file://")) / "artifacts" / "arrays.safetensors"
    file.write_bytes(file.read_bytes()[:-100])

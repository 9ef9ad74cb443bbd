"""The quick form of `tests.fire`: an exception in place of a kill, in the session of all tests."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys.config import Settings, load_settings
from recsys.contracts import (
    EXPOSURES,
    INTERACTION_LOG,
    INTERACTIONS,
    ITEM_CONTENTS,
    MODEL_UPDATES,
    QUARANTINE,
    TRIALS,
    StepId,
)
from recsys.registry import versions
from recsys.registry.client import connect
from recsys.stream.job import run_stream
from recsys.tables import ledger
from recsys.tables.delta import Tables
from tests.stream.disturbed import (
    InterruptedStage,
    assert_arrays_are_equal,
    assert_each_batch_is_in_the_version_that_the_ledger_names,
    assert_tables_are_equal,
    registry_content,
    write_config,
    write_event_files,
)
from tests.streams import write_stream

BATCHES = 10
STAGES = {
    *("quarantine", "exposures", "contents", "log", "evaluate", "learn", "snapshot", "trials", "ledger"),
    *("metrics", "version", "challenger", "alias", "totals", "batch"),
}


def interrupt(*_: object, **__: object) -> None:
    raise InterruptedStage


def test_a_stream_interrupted_after_every_stage_ends_where_an_undisturbed_one_ends(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_event_files(tmp_path / "events", BATCHES)
    interrupted, undisturbed = (load_settings(write_config(tmp_path, name)) for name in ("interrupted", "undisturbed"))
    first: dict[str, int] = {}

    def note(stage: str, step: StepId) -> None:
        if step.batch_id:
            first.setdefault(stage, step.batch_id)

    run_stream(undisturbed, observe=note)
    assert first.keys() == STAGES
    for stage, batch in first.items():

        def stop(reached: str, step: StepId, at: tuple[str, int] = (stage, batch)) -> None:
            if (reached, step.batch_id) == at:
                raise InterruptedStage

        with pytest.raises(InterruptedStage):
            run_stream(interrupted, observe=stop)
    for _ in range(2):  # Before a version is registered that is due: Spark takes its batch for done, both times.
        with monkeypatch.context() as patch:
            patch.setattr(versions, "register", interrupt)
            with pytest.raises(InterruptedStage):
                run_stream(interrupted)
    run_stream(interrupted)

    rows = ledger.read(Tables(spark, undisturbed.storage), generation=0, after=-1)
    assert sum(row.metrics["forgotten_users"] for row in rows) > 10
    assert len({row.model_version for row in rows}) > 2, "the alias has moved"
    assert sum(row.metrics["exposure/impressions"] for row in rows) == BATCHES * 15 * 3
    assert 0 < sum(row.metrics["exposure/clicks"] for row in rows) < BATCHES * 15
    for name in (INTERACTION_LOG, INTERACTIONS, QUARANTINE, EXPOSURES, ITEM_CONTENTS, TRIALS, MODEL_UPDATES):
        assert_tables_are_equal(spark, name, interrupted, undisturbed)
    assert_each_batch_is_in_the_version_that_the_ledger_names(spark, interrupted)
    assert_arrays_are_equal(interrupted, undisturbed, BATCHES)
    assert registry_content(interrupted) == registry_content(undisturbed)


def test_a_start_after_a_clean_end_registers_nothing_that_was_not_due(spark: SparkSession, stream: Settings) -> None:
    """The end of a stream ends the trial of its first version, for which the next one has waited."""
    often = stream.register_.model_copy(update={"every_batches": 1})
    undecided = stream.gate.model_copy(update={"min_users": 1_000})
    settings = stream.model_copy(update={"register_": often, "gate": undecided})
    write_stream(Path(settings.source.path), files=3)
    for _ in range(2):
        assert run_stream(settings).champion_version == "1"
    (version,) = versions.all_versions(connect(settings), settings.mlflow.model_name)
    assert version.step == StepId(0, 0)

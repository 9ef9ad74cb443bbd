"""A history in bulk ends where a stream of it ends, and a stream goes on behind it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.backfill import backfill_history
from recsys.cli import BAD_INPUT, DONE, run_job
from recsys.config import Settings, load_settings
from recsys.contracts import EXPOSURES, INTERACTION_LOG, INTERACTIONS, MODEL_UPDATES, QUARANTINE, TRIALS, StepId
from recsys.errors import ConfigError, InputError, SolveError
from recsys.model import snapshot
from recsys.model.als.incremental_als import IncrementalAls
from recsys.model.interactions.history import History
from recsys.model.learner import CodedBatch
from recsys.model.recommender import OnlineModel
from recsys.storage import snapshot_folder
from recsys.stream.backfill import backfill
from recsys.stream.job import run_stream
from recsys.stream.rebuild import rebuild
from recsys.tables import ledger, log
from recsys.tables.delta import Tables
from tests.stream.checks import arrays
from tests.stream.disturbed import (
    InterruptedStage,
    assert_arrays_are_equal,
    assert_tables_are_equal,
    registry_content,
    table,
    write_config,
    write_event_files,
)
from tests.streams import records, write_lines, write_stream

pytestmark = pytest.mark.spark
MakeSettings = Callable[..., Settings]
PER_FILE = 120


@pytest.fixture
def chosen(tmp_path: Path, settings: MakeSettings) -> Callable[..., Settings]:
    """Settings of a storage, for a source that is JSON lines in `events` unless told otherwise."""

    def make(**source: Any) -> Settings:
        given = {"max_records_per_batch": PER_FILE, "path": str(tmp_path / "events"), **source}
        return settings(tmp_path, source=given, weights={"view": 1, "purchase": 3}, model={"kind": "als", "factors": 8})

    return make


def test_a_batch_that_cannot_be_learned_is_set_aside(
    chosen: Callable[..., Settings], spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batches before it are in no ledger yet; what is learned is what a model learns that never sees it."""
    made = chosen()
    write_stream(Path(made.source.path), files=5)
    solve = IncrementalAls.update

    def update(self: IncrementalAls, batch: CodedBatch, history: History, step: StepId, *rest: Any) -> dict[str, float]:
        figures = solve(self, batch, history, step, *rest)
        if step.batch_id == 2:
            raise SolveError("a row of factors is not finite")
        return figures

    monkeypatch.setattr(IncrementalAls, "update", update)
    assert backfill(made).batches == 5
    rows = ledger.read(Tables(spark, made.storage), generation=0, after=-1)
    assert [row.metrics.get("set_aside") for row in rows] == [None, None, 1, None, None]
    expected = OnlineModel(made)
    for step, batch in log.batches(Tables(spark, made.storage)):
        if step.batch_id != 2:
            expected.update(batch, step)
    found = arrays(made, StepId(0, 4))
    assert all((found[name] == array).all() for name, array in expected.state().items())


def logged(spark: SparkSession, settings: Settings) -> int:
    return int(Tables(spark, settings.storage).read(INTERACTION_LOG).agg(F.sum("events")).collect()[0][0])


def steps(spark: SparkSession, settings: Settings) -> list[tuple[int, int]]:
    rows = Tables(spark, settings.storage).read(MODEL_UPDATES).collect()
    return sorted((row.generation, row.batch_id) for row in rows)


def test_a_history_ends_where_a_stream_of_it_ends(spark: SparkSession, tmp_path: Path) -> None:
    """The files of the stream are its batches; the history is cut into the same by time."""
    batches = 8
    write_event_files(tmp_path / "events", batches)
    streamed, filled = (load_settings(write_config(tmp_path, name)) for name in ("streamed", "filled"))
    cut = filled.source.model_copy(update={"max_records_per_batch": 195})
    run_stream(streamed)
    summary = backfill(filled.model_copy(update={"source": cut}))

    assert (summary.batches, summary.learned, summary.events) == (batches, batches, 195 * batches)
    assert summary.duplicates == 3 * batches + 5 * (batches - 1)
    assert summary.quarantined == {
        "not JSON": 2 * batches,
        "missing event_time": batches,
        "unknown event_type": batches,
        "user_id is too long": batches,
    }
    for name in (INTERACTION_LOG, INTERACTIONS, TRIALS):
        assert_tables_are_equal(spark, name, filled, streamed)
    assert_arrays_are_equal(filled, streamed, batches)
    assert registry_content(filled) == registry_content(streamed)
    ledgers = [learned(spark, made) for made in (filled, streamed)]
    assert ledgers[0] == ledgers[1]
    kept = [table(spark, made, QUARANTINE).select("raw", "reasons").collect() for made in (filled, streamed)]
    assert sorted(kept[0]) == sorted(kept[1])


def learned(spark: SparkSession, settings: Settings) -> list[dict[str, Any]]:
    """The ledger, without where a record came in: a history counts its bad ones in batch 0, and has one log version."""
    rows = table(spark, settings, MODEL_UPDATES).drop("log_version", "input").orderBy("batch_id").collect()
    assert sum(figures(row)["records"] for row in rows) == 199 * len(rows)
    return [
        {
            **row.asDict(),
            "metrics": {name: figure for name, figure in figures(row).items() if name.split("/")[0] not in ARRIVAL},
        }
        for row in rows
    ]


ARRIVAL = ("exposure", "records", "quarantined")


def figures(row: Any) -> dict[str, float]:
    return {pair["key"]: pair["value"] for pair in json.loads(row.metrics)}


def test_a_stream_of_the_same_folder_reads_what_is_new(spark: SparkSession, chosen: Callable[..., Settings]) -> None:
    made = chosen()
    folder = Path(made.source.path)
    write_stream(folder, files=4)
    assert backfill(made).batches == 4
    assert run_stream(made).batches == 0, "nothing new has come"
    write_stream(folder, files=6, first=4)
    again = [json.dumps(record) for record in list(records(5))[4][:7]]
    write_lines(folder, 6, again)  # delivered twice
    summary = run_stream(made)
    assert (summary.events, summary.duplicates) == (2 * PER_FILE, 7)
    assert logged(spark, made) == 6 * PER_FILE
    done = steps(spark, made)
    assert done == [(0, batch) for batch in range(len(done))]
    assert len(done) > 4

    tables = Tables(spark, made.storage)
    assert tables.read(INTERACTIONS).agg(F.sum("events")).collect()[0][0] == 6 * PER_FILE
    before = snapshot.load(snapshot.path_for(snapshot_folder(made.storage.root), StepId(0, done[-1][1])), made).state()
    for path in snapshot_folder(made.storage.root).rglob("*.safetensors"):
        path.unlink()
    run_stream(made)
    after = snapshot.load(snapshot.path_for(snapshot_folder(made.storage.root), StepId(0, done[-1][1])), made).state()
    assert all((after[name] == before[name]).all() for name in before), "the model is a function of the log"


def test_a_stream_of_another_kind_of_source_begins_behind_the_history(
    spark: SparkSession, chosen: Callable[..., Settings], tmp_path: Path
) -> None:
    """An export without event ids first, then live events with them: another checkpoint, the same ledger."""
    history = tmp_path / "history.csv"
    lines = [",".join(map(str, list(record.values())[:4])) for batch in records(3) for record in batch]
    history.write_text("\n".join(["user_id,item_id,event_type,event_time", *lines]) + "\n")
    filled = chosen(format="csv", path=str(history))
    assert backfill(filled).batches == 3
    live = chosen(options={"maxFilesPerTrigger": "1"})
    write_stream(Path(live.source.path), files=5, first=3)
    rebuild(live)  # before the stream has begun: the generation begins at the history's last batch
    assert run_stream(live).batches == 2
    assert run_stream(live).batches == 0
    assert steps(spark, live) == [(0, 0), (0, 1), (0, 2), (1, 2), (1, 3), (1, 4)]
    assert logged(spark, live) == 5 * PER_FILE


def test_a_delta_table_is_read_whole_and_then_followed(
    spark: SparkSession, chosen: Callable[..., Settings], tmp_path: Path
) -> None:
    made = chosen(format="delta", path=str(tmp_path / "table"))
    for batch in list(records(4))[:3]:
        spark.createDataFrame(batch).write.format("delta").mode("append").save(made.source.path)
    assert backfill(made).batches == 3
    spark.createDataFrame(list(records(4))[3]).write.format("delta").mode("append").save(made.source.path)
    assert run_stream(made).events == PER_FILE
    assert logged(spark, made) == 4 * PER_FILE


def test_what_a_backfill_refuses_and_what_it_does_twice(
    spark: SparkSession, chosen: Callable[..., Settings], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = chosen()
    folder = Path(made.source.path)
    write_lines(folder, 0, ['{"user_id": "u1"}', "no json"])
    with pytest.raises(InputError, match=r"no record of the source can be learned from: 1 missing event_time, 1 "):
        backfill(made)
    assert Tables(spark, made.storage).read(QUARANTINE).count() == 0, "it has not begun"

    (folder / "000.json").unlink()  # Put right under another name.
    write_stream(folder, files=3, first=1)
    first = backfill(made)
    assert first.champion_version == "1", "a first version is there, whatever the cadence"
    assert backfill(made) == type(first)(batches=2), "it is finished"
    words = ["--config", str(config_file(made, tmp_path)), f"source.path={folder}/"]
    assert run_job(backfill_history, words) == DONE
    assert "nothing to do: all 2 batches of the history are learned already" in capsys.readouterr().out
    words[-1] = f"source.path={tmp_path}"
    assert run_job(backfill_history, words) == BAD_INPUT
    assert "holds another history" in capsys.readouterr().err

    other = made.model_copy(update={"storage": made.storage.model_copy(update={"root": str(tmp_path / "other")})})
    run_stream(other)
    with pytest.raises(InputError, match=r"have batches already, and a backfill comes first: set storage\.root"):
        backfill(other)


def test_a_backfill_does_not_read_with_auto_loader(settings: MakeSettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a stream with it would read them again: set source\.format to json"):
        backfill(settings(tmp_path, source={"format": "cloudFiles"}))


def config_file(settings: Settings, folder: Path) -> Path:
    file = folder / "backfill.yaml"
    file.write_text(json.dumps(settings.model_dump(mode="json", by_alias=True)))
    return file


def test_a_missing_source_and_an_empty_one(chosen: Callable[..., Settings]) -> None:
    made = chosen()
    with pytest.raises(InputError, match=r"source\.path .*/events does not exist"):
        backfill(made)
    Path(made.source.path).mkdir()
    with pytest.raises(InputError, match=r"source\.path .*/events has no records"):
        backfill(made)


def interrupted_after(settings: Settings, stops: Sequence[tuple[str, int]]) -> None:
    """Run a backfill, and again, each time up to one of the stages."""
    for at in stops:

        def stop(reached: str, step: StepId, at: tuple[str, int] = at) -> None:
            if (reached, step.batch_id) == at:
                raise InterruptedStage

        with pytest.raises(InterruptedStage):
            backfill(settings, observe=stop)


def test_a_backfill_interrupted_after_every_stage_ends_where_an_undisturbed_one_ends(
    spark: SparkSession, tmp_path: Path
) -> None:
    """The quick form of `tests.fire`."""
    write_event_files(tmp_path / "events", 6)
    disturbed, undisturbed = (load_settings(write_config(tmp_path, name)) for name in ("disturbed", "undisturbed"))
    cut = undisturbed.source.model_copy(update={"max_records_per_batch": 195})
    disturbed, undisturbed = (made.model_copy(update={"source": cut}) for made in (disturbed, undisturbed))
    seen: dict[str, int] = {}
    backfill(undisturbed, observe=lambda stage, step: seen.setdefault(stage, step.batch_id))
    assert seen.keys() == {
        "quarantine", "exposures", "log", "evaluate", "learn", "snapshot", "trials", "ledger", "metrics", "batch",
        "version", "challenger", "alias", "end",
    }  # fmt: skip
    interrupted_after(disturbed, sorted(seen.items(), key=lambda item: list(seen).index(item[0])))
    assert backfill(disturbed).finished
    for name in (INTERACTION_LOG, INTERACTIONS, QUARANTINE, EXPOSURES, TRIALS, MODEL_UPDATES):
        assert_tables_are_equal(spark, name, disturbed, undisturbed)
    assert_arrays_are_equal(disturbed, undisturbed, 6)
    assert registry_content(disturbed) == registry_content(undisturbed)

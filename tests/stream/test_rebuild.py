"""What a rebuild learns: everything, all but some batches and users, or nothing, to be an earlier model again."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.config.operation import Rebuild
from recsys.contracts import InteractionBatch, StepId
from recsys.errors import InputError
from recsys.model.recommender import OnlineModel
from recsys.storage import snapshot_folder
from recsys.stream.job import run_stream
from recsys.stream.rebuild import rebuild
from recsys.stream.scope import Scope, without
from recsys.tables import ledger, log
from recsys.tables.delta import Tables
from tests.stream.checks import arrays, steps
from tests.streams import write_stream

HOSTILE = "quote'\"`;-- \\ 🛒\n0-1"


def asking(settings: Settings, **scope: object) -> Settings:
    return settings.model_copy(update={"rebuild": Rebuild.model_validate(scope)})


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name, array in expected.items() if not np.array_equal(found[name], array)] == []


@pytest.mark.parametrize(
    "scope", [Scope(), Scope(as_of=StepId(3, 17)), Scope(batches=(0, 5)), Scope(batches=(5,), users=("", HOSTILE))]
)
def test_the_ledger_says_what_was_learned(scope: Scope) -> None:
    written = scope.decisions()
    assert Scope.of_decisions(["something else", *written]) == scope
    assert not any("\n" in line for line in written)


def test_users_that_are_left_out_have_no_rows() -> None:
    numbers = np.arange(3)
    batch = InteractionBatch(["a", "b", "b"], ["x", "x", "y"], numbers * 1.0, numbers, numbers * 1.0)
    assert without(batch, {"c"}) is batch
    left = without(batch, {"b"})
    assert (left.user_ids, left.item_ids, left.weights.tolist()) == (["a"], ["x"], [0.0])
    assert len(without(batch, {"a", "b"})) == 0


def test_going_back_leaves_nothing_out() -> None:
    with pytest.raises(ValidationError, match="leave nothing out with it"):
        Rebuild(as_of_batch=3, without_users=["bot"])


def test_a_generation_keeps_to_what_its_rebuild_learned(spark: SparkSession, stream: Settings) -> None:
    """Some batches and users are left out; then the model before them comes back, to the bit, and goes on."""
    folder, tables = Path(stream.source.path), Tables(spark, stream.storage)
    write_stream(folder, files=5)
    run_stream(stream)
    logged = dict(log.batches(tables))
    bot = logged[StepId(0, 1)].user_ids[0]
    with pytest.raises(InputError, match=r"rebuild\.as_of_batch: generation 0 has no batch 5; it has 0 to 4"):
        rebuild(asking(stream, as_of_batch=5))
    rebuild(asking(stream, without_users=[bot], without_batches=[3]))
    expected = OnlineModel(stream)
    kept = [(step, without(batch, {bot})) for step, batch in sorted(logged.items()) if step.batch_id != 3]
    expected.rebuild(kept, StepId(1, 4))
    assert bot not in expected.users.ids
    assert_equal(arrays(stream, StepId(1, 4)), expected.state())
    (row,) = ledger.read(tables, 1, after=-1)
    assert row.decisions == (f'without {{"batches": [3], "users": ["{bot}"]}}',)

    # From now on the settings leave nothing out, and the model is recovered from the log.
    shutil.rmtree(snapshot_folder(stream.storage.root) / "generation-1")
    learn_another_file(stream, tables, expected, StepId(1, 5))
    rebuild(asking(stream, as_of_batch=5))
    assert_equal(arrays(stream, StepId(2, 5)), expected.state())
    expected.step = StepId(2, 5)
    shutil.rmtree(snapshot_folder(stream.storage.root))
    learn_another_file(stream, tables, expected, StepId(2, 6))
    assert steps(tables)[-3:] == [(1, 5), (2, 5), (2, 6)]


def learn_another_file(stream: Settings, tables: Tables, expected: OnlineModel, step: StepId) -> None:
    """Let the stream and a model learn the same file, and compare them."""
    write_stream(Path(stream.source.path), files=step.batch_id + 1, first=step.batch_id)
    assert run_stream(stream).batches == 1
    ((_, batch),) = log.batches(tables, StepId(step.generation, step.batch_id - 1))
    expected.update(batch, step)
    assert_equal(arrays(stream, step), expected.state())


def test_the_model_of_an_earlier_batch_comes_back(spark: SparkSession, stream: Settings) -> None:
    write_stream(Path(stream.source.path), files=5)
    run_stream(stream)
    before = arrays(stream, StepId(0, 2))
    rebuild(asking(stream, as_of_batch=2))
    assert_equal(arrays(stream, StepId(1, 4)), before)
    (row,) = ledger.read(Tables(spark, stream.storage), 1, after=-1)
    assert row.decisions == ("as of batch 0-2",)

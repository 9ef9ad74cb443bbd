"""A stream whose model compares items by the vectors of a catalog that changes while it runs."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from deltalake import write_deltalake
from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.contracts import ITEM_CONTENTS, StepId
from recsys.errors import InputError
from recsys.model.interactions.described import Described
from recsys.model.interactions.vocab import Vocabulary
from recsys.model.recommender import OnlineModel
from recsys.serving.content import coded
from recsys.storage import checkpoint_folder, snapshot_folder
from recsys.stream.backfill import backfill
from recsys.stream.job import run_stream
from recsys.stream.rebuild import rebuild
from recsys.stream.tune import log_of
from recsys.tables import contents, log
from recsys.tables.delta import Tables
from tests.stream.checks import MakeSettings, arrays
from tests.streams import write_stream

ITEMS = [f"i{number}" for number in range(40)]


def vectors(seed: int, length: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(ITEMS), length)).astype(np.float32)


def write_catalog(path: Path, values: np.ndarray) -> None:
    """A Delta table, whose rows are replaced."""
    rows = pd.DataFrame({"item_id": ITEMS, "embedding": list(values)})
    write_deltalake(path, rows, mode="overwrite", schema_mode="overwrite")


@pytest.fixture
def described(tmp_path: Path, ready: MakeSettings) -> Settings:
    """A stream of one file a batch with a catalog of vectors; its events are still to be written."""
    write_catalog(tmp_path / "items", vectors(0))
    return ready(
        tmp_path,
        source={"options": {"maxFilesPerTrigger": "1"}, "columns": {"event_id": None}},
        weights={"view": 1, "purchase": 3},
        storage={"snapshot_every_batches": 2},
        register={"every_batches": 3},
        recommend={"k": 5, "exclude_seen": False},
        model={"factors": 4, "mixture": {"members": ["als", "trend", "content"], "half_lives": [100]}},
        items={"path": str(tmp_path / "items"), "columns": {"vector": "embedding"}},
    )


def expected_model(settings: Settings, tables: Tables, changes: dict[int, np.ndarray]) -> OnlineModel:
    """What the log gives, each batch learned with the catalog of its time; `changes`: catalogs by their first batch."""
    model = OnlineModel(settings)
    for step, batch in log.batches(tables, through=StepId(0, 99)):
        catalog = Described(Vocabulary(ITEMS), coded(changes[max(at for at in changes if at <= step.batch_id)]))
        known = model.content.vectors_of(model.items.lookup(batch.item_ids))
        own = dict(zip(batch.item_ids, known, strict=True))
        new = catalog.unlike(list(own), np.array(list(own.values())).reshape(len(own), -1))
        model.update(replace(batch, contents=new), step)
    return model


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name, array in expected.items() if not np.array_equal(found[name], array)] == []


def test_every_batch_learns_the_catalog_of_its_time(spark: SparkSession, described: Settings, tmp_path: Path) -> None:
    folder, tables = Path(described.source.path), Tables(spark, described.storage)
    write_stream(folder, files=3)
    run_stream(described)
    before = tables.count(ITEM_CONTENTS)
    changed = vectors(0)
    changed[:8] = vectors(1)[:8]
    write_catalog(tmp_path / "items", changed)
    write_stream(folder, files=6, first=3)
    run_stream(described)
    expected = expected_model(described, tables, {0: vectors(0), 3: changed})
    assert_same(arrays(described, StepId(0, 5)), expected.state())
    assert 0 < before < tables.count(ITEM_CONTENTS)

    # The log and what was written down beside it give the same model, whatever the catalog says by now.
    shutil.rmtree(snapshot_folder(described.storage.root))
    write_catalog(tmp_path / "items", vectors(2))
    write_stream(folder, files=7, first=6)
    run_stream(described)
    expected = expected_model(described, tables, {0: vectors(0), 3: changed, 6: vectors(2)})
    assert_same(arrays(described, StepId(0, 6)), expected.state())

    # A rebuild learns all of it with the present catalog; so does a search for better settings.
    rebuild(described)
    everything = Described(Vocabulary(ITEMS), coded(vectors(2)))
    rebuilt = OnlineModel(described)
    rebuilt.rebuild(everything.handed_out(log.batches(tables)), StepId(1, 6))
    assert_same(arrays(described, StepId(1, 6)), rebuilt.state())
    found = contents.of_batch(tables, StepId(1, 6), described.items.space)
    assert found.item_ids == sorted(ITEMS)
    searched = [len(batch.contents.item_ids) for _, batch in log_of(described, tables).read(7)]
    assert sum(searched) == len(rebuilt.items)
    assert searched[0] > 0


def test_a_backfill_brings_vectors_as_the_stream_does(spark: SparkSession, described: Settings) -> None:
    write_stream(Path(described.source.path), files=5)
    source = described.source.model_copy(update={"max_records_per_batch": 150})
    described = described.model_copy(update={"source": source})
    backfill(described)
    tables = Tables(spark, described.storage)
    last = log.last_step(tables)
    assert last is not None
    assert last.batch_id > 2
    assert_same(arrays(described, last), expected_model(described, tables, {0: vectors(0)}).state())


def test_vectors_of_another_length_are_refused_before_they_are_written(described: Settings, tmp_path: Path) -> None:
    write_stream(Path(described.source.path), files=1)
    run_stream(described)
    write_catalog(tmp_path / "items", vectors(0, length=9))
    write_stream(Path(described.source.path), files=2, first=1)
    with pytest.raises(InputError, match="have 9 numbers, and had 6 before: .* run jobs/rebuild.py"):
        run_stream(described)
    rebuild(described)
    assert checkpoint_folder(described.storage.root).exists()
    assert run_stream(described).batches == 1

"""A rebuild on executors gives the factors of a rebuild on one machine, and the stream goes on from either."""

import re
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys import memory
from recsys.batch_scoring import score
from recsys.config import Settings
from recsys.config.settings import as_settings
from recsys.contracts import ITEM, RECOMMENDATIONS, USER, StepId
from recsys.errors import ConfigError, InputError, RegistryDownError
from recsys.model import snapshot
from recsys.model.recommender import OnlineModel
from recsys.serving import Ranker
from recsys.serving.stored import restored, stored
from recsys.serving.version import declared_axes
from recsys.storage import snapshot_folder
from recsys.stream import distributed
from recsys.stream.job import run_stream
from recsys.stream.publish import Publisher
from recsys.stream.rebuild import rebuild
from recsys.stream.scope import without
from recsys.tables import log
from recsys.tables.delta import Tables
from tests.stream.checks import MakeSettings
from tests.stream.test_rebuild import asking, assert_equal, learn_another_file
from tests.streams import write_stream

FILES = 2


@pytest.fixture
def streamed(tmp_path: Path, ready: MakeSettings) -> Settings:
    """A stream of factors that fade, has users with more pairs than are used at once, and users that are damped."""
    settings = ready(
        tmp_path,
        source={"options": {"maxFilesPerTrigger": "1"}, "columns": {"event_id": None}},
        weights={"view": 1, "purchase": 3},
        decay={"half_life_days": 0.0005},  # So short that stored weights are halved on the way.
        model={"kind": "als", "factors": 4, "rebuild_sweeps": 2, "history_cap": 8},
        robustness={"events_per_pair": 2},
        recommend={"k": 5},
    )
    write_stream(Path(settings.source.path), files=FILES)
    run_stream(settings)
    return settings


def test_executors_solve_what_one_machine_does(
    spark: SparkSession, streamed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, a few blocks at a time; lists leave out what users have; and the stream goes on from it."""
    tables, step, left_out = Tables(spark, streamed.storage), StepId(1, FILES - 1), "u3"
    expected = OnlineModel(streamed)
    expected.rebuild([(at, without(batch, {left_out})) for at, batch in log.batches(tables)], step)
    monkeypatch.setattr(distributed, "_WAVE_BYTES", 256)
    rebuilt = rebuild(asking(streamed, without_users=[left_out], distributed=True))
    assert not snapshot.path_for(snapshot_folder(streamed.storage.root), step).exists(), "it would need the history"
    found = distributed.Factors.load(streamed, step)
    assert found is not None
    assert_equal(found.learner.state(), expected.learner.state())
    light, complete = found.served(), expected.served()
    assert (found.pairs, len(light.arrays["seen_items"])) == (len(expected.history), 0)
    assert (light.user_ids, light.item_ids) == (complete.user_ids, complete.item_ids)
    for name in ("user_factors", "item_factors", "item_popularity"):
        assert np.array_equal(light.arrays[name], complete.arrays[name]), name

    score(tables, rebuilt.version, streamed)
    rows = tables.read(RECOMMENDATIONS).collect()
    lists = {row[USER]: {item[ITEM]: item["score"] for item in row["items"]} for row in rows}
    ranker = Ranker(restored(stored(complete.packed(), declared_axes("als"))))
    every = np.arange(len(complete.user_ids))
    ranked = ranker.rank(every, np.full(len(every), 5), np.ones(len(every), dtype=bool))
    ends = np.cumsum(ranked.lengths)
    for user, end, length in zip(complete.user_ids, ends, ranked.lengths, strict=True):
        own = slice(end - length, end)
        names = [complete.item_ids[code] for code in ranked.items[own]]
        assert lists[user] == dict(zip(names, ranked.scores[own].tolist(), strict=True)), user
    learn_another_file(streamed, tables, expected, StepId(1, FILES))


def test_a_rebuild_that_was_not_registered_is_finished(
    spark: SparkSession, streamed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(Publisher, "publish", lambda *_: (_ for _ in ()).throw(RegistryDownError("down")))
        with pytest.raises(RegistryDownError):
            rebuild(asking(streamed, distributed=True))
    finished = rebuild(asking(streamed, distributed=True))
    assert (finished.generation, finished.users) == (1, 30)

    # A machine that the history does not fit is told so, before it is read.
    monkeypatch.setattr(memory, "most", lambda: 1_000)
    with pytest.raises(InputError, match=r"the \d+ pairs of this one take about 0 GB, of 0 GB here: start it on a"):
        run_stream(streamed)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"model.kind": "mixture"}, "model.kind is 'mixture', and only the factors of 'als' are solved in blocks"),
        ({"model.kind": "als", "model.forget_after_days": 30}, "model.forget_after_days forgets batch by batch"),
        (
            {"model.kind": "als", "items.path": "catalog", "items.adapter.enabled": True},
            "items.adapter.enabled trains on the driver",
        ),
    ],
)
def test_what_cannot_be_distributed_is_refused(values: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError, match=f"^setting 'rebuild.distributed': {re.escape(line)}; set it to false"):
        rebuild(as_settings({**values, "rebuild.distributed": True}))


def test_going_back_trains_nothing() -> None:
    with pytest.raises(ConfigError, match="as_of_batch goes back to a model and trains nothing"):
        as_settings({"rebuild.distributed": True, "rebuild.as_of_batch": 3})

"""Kinds `ncf` and `sequence` from events to lists: the log makes the same network, and what it ranks is what is listed.

Kills and rebuilds of such streams are in `tests.fire` and, as a member of the mixture, in `test_interrupted`.
"""

from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys.batch_scoring import chosen_version, score
from recsys.config import Settings
from recsys.config.settings import with_values
from recsys.contracts import RECOMMENDATIONS, StepId
from recsys.model.recommender import OnlineModel
from recsys.registry.served import ServedVersion
from recsys.stream.job import run_stream
from recsys.tables import log
from recsys.tables.delta import Tables
from tests.stream.checks import arrays
from tests.streams import write_stream

BATCHES = 3
SMALL = {"mlp_factors": 4, "layers": [8], "batch_size": 64, "rebuild_epochs": 2, "candidates": 8}


@pytest.mark.parametrize("kind", ["ncf", "sequence"])
def test_events_become_a_network_its_versions_and_its_lists(kind: str, spark: SparkSession, stream: Settings) -> None:
    settings = with_values(stream, {"model.kind": kind, "model.factors": 4, "staleness.shadow_every_batches": 0})
    settings = with_values(settings, {f"model.neural.{name}": value for name, value in SMALL.items()})
    folder, tables = Path(settings.source.path), Tables(spark, settings.storage)
    # Stopped and started again.
    for files, batches in ((BATCHES - 1, BATCHES - 1), (BATCHES, 1)):
        write_stream(folder, files, first=files - batches)
        assert run_stream(settings).batches == batches

    # To the bit.
    expected = OnlineModel(settings)
    for step, batch in log.batches(tables):
        expected.update(batch, step)
    live = arrays(settings, StepId(0, BATCHES - 1))
    assert live.keys() == expected.state().keys()
    assert [name for name, array in expected.state().items() if not np.array_equal(live[name], array)] == []

    # The lists in the table are those that the champion's network ranks: by its artifact, and by the model of its step.
    version = chosen_version(settings)
    assert version.step is not None
    scored = score(tables, version, settings)
    rows = {
        row["user_id"]: [item["item_id"] for item in row["items"]] for row in tables.read(RECOMMENDATIONS).collect()
    }
    assert len(rows) == scored.run.users == 30
    asked = {"user_id": list(rows), "k": [5] * 30, "exclude_seen": [False] * 30}
    served = ServedVersion(version)
    assert dict(zip(rows, served.answer(asked)["item_ids"], strict=True)) == rows
    plain, told = (served.answer({**asked, **more})["scores"] for more in ({}, {"recent_items": [["i1", "i2"]] * 30}))
    assert np.isfinite(told.tolist()).all()
    assert told.tolist() != plain.tolist()
    then = OnlineModel(settings)
    for step, batch in log.batches(tables, through=version.step):
        then.update(batch, step)
    ranked = dict(zip(rows, then.recommend(list(rows), 5), strict=True))
    same = [len(set(rows[user]) & {item for item, _ in ranked[user]}) for user in rows]
    # A version stores factors in fewer bits, which may swap items that score alike.
    assert sum(same) >= 0.97 * 5 * len(rows)

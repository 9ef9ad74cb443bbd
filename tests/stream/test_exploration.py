"""Exploration from end to end: explored lists, what users click in them, and the next lists."""

import hashlib
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.compute as pc
import pytest
from pyspark.sql import Row, SparkSession

from recsys.batch_scoring import chosen_version, score
from recsys.config import Settings
from recsys.config.scoring import BatchScore
from recsys.config.sections import EventWeight
from recsys.contracts import EXPOSURES, RECOMMENDATIONS, StepId
from recsys.errors import ConfigError
from recsys.exposure import Origin
from recsys.scoring.inputs import Inputs
from recsys.stream.job import run_stream
from recsys.tables import exposures
from recsys.tables.conditions import of_step
from recsys.tables.delta import Tables
from tests.streams import write_stream

NEW = ["fresh", "stale"]
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def rows_of(tables: Tables) -> dict[str, Row]:
    return {row.user_id: row for row in tables.read(RECOMMENDATIONS).collect()}


def marked(row: Row, mark: str) -> bool:
    item = row["items"][0].item_id
    return bool(row.list_id.endswith(mark + hashlib.sha256(item.encode()).hexdigest()[:16]))


def test_what_is_clicked_in_explored_places_gets_more_of_them(spark: SparkSession, stream: Settings) -> None:
    folder = Path(stream.source.path)
    write_stream(folder, files=6)
    run_stream(stream)
    tables, version = Tables(spark, stream.storage), chosen_version(stream)
    inputs = Inputs(explored_items=spark.createDataFrame([(item,) for item in NEW], "item_id STRING"))

    score(tables, version, stream)
    plain = rows_of(tables)
    assert all((row.explored_place, row.explored_chance) == (None, None) for row in plain.values())
    assert not any(marked(row, mark) for row in plain.values() for mark in "+=")
    with pytest.raises(ConfigError, match="set batch_score.exploration"):
        score(tables, version, stream, inputs)

    exploring = stream.model_copy(update={"batch_score": BatchScore(exploration=0.5)})
    with pytest.raises(ConfigError, match="set batch_score.explored_items"):
        score(tables, version, exploring)
    score(tables, version, exploring, inputs)
    first = rows_of(tables)
    assert score(tables, version, exploring, inputs).run.changed == 0, "draws repeat"
    for user, row in first.items():
        items, before = ([pair.item_id for pair in own["items"]] for own in (row, plain[user]))
        origin = Origin.of(row.list_id)
        assert origin == Origin("recsys", version.version, row.ranking, pytest.approx(row.propensity))
        assert items[1:] == before[1:], "the first place of a list of five is the explored one"
        if row.explored_place is None:
            assert (items, row.explored_chance) == (before, None)
            assert marked(row, "="), "with a chance of a half, all others are controls"
        else:
            assert (row.explored_place, row.explored_chance) == (1, 0.5)
            assert items[0] in NEW
            assert marked(row, "+")
    explored = [row for row in first.values() if row.explored_place]
    assert abs(len(explored) - len(first) / 2) < 2 * len(first) ** 0.5

    events = [
        {
            "user_id": row.user_id,
            "item_id": pair.item_id,
            "event_type": kind,
            "event_time": 1.71e9,
            "list_id": row.list_id,
        }
        for row in first.values()
        for pair in row["items"]
        for kind in ("impression", *(["view"] * (pair.item_id == "fresh")))
    ]
    (folder / "shown.json").write_text("\n".join(json.dumps(event) for event in events))
    weights = {**stream.weights, "impression": EventWeight(weight=0, impression=True)}
    run_stream(stream.model_copy(update={"weights": weights}))

    shown = Counter(row["items"][0].item_id for row in explored)
    found = exposures.explored(tables, LONG_AGO)
    assert found.items == {item: (shown[item], shown[item] * (item == "fresh")) for item in NEW}
    assert found.control == (len(first) - len(explored), 0)
    assert exposures.explored(tables, datetime(2100, 1, 1, tzinfo=UTC)) == exposures.ExploredCounts({}, (0, 0))
    counted = tables.rows(EXPOSURES, ["impressions", "clicks"], of_step(StepId(0, 6)))
    listed = sum(len(row["items"]) for row in first.values())
    assert pc.sum(counted["impressions"]).as_py() == listed - len(explored), "the ranking did not choose these items"
    assert pc.sum(counted["clicks"]).as_py() == 0

    score(tables, version, exploring, inputs)
    second = Counter(row["items"][0].item_id for row in rows_of(tables).values() if row.explored_place)
    assert second.total() == len(explored), "the same lists are explored"
    assert second["fresh"] > 0.9 * len(explored) > shown["fresh"]

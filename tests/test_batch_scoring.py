import re
from pathlib import Path

import mlflow
import numpy as np
import pytest
from pyspark.errors import PythonException
from pyspark.sql import functions as F

import recsys
from recsys.batch_scoring import chosen_version, score
from recsys.contracts import RECOMMENDATIONS, StepId
from recsys.errors import RegistryError
from recsys.model.recommender import OnlineModel
from recsys.registry import decisions, versions
from recsys.registry.client import connect
from recsys.registry.runs import GenerationRun
from recsys.serving import Served
from recsys.tables.delta import Tables
from tests.model.als.test_incremental_als import learn
from tests.model.helpers import clustered_batches, make_settings
from tests.registry.served import BY_TEST, served_arrays, slow_ranking

USERS = [*(f"u{number}" for number in range(40)), 'it\'s\n"🦉"/\\', "x" * 10_000, ""]
ITEMS = [*(f"i{number}" for number in range(60)), "日本語\n'\"/"]


@pytest.fixture
def scene(spark, settings, empty_tables, empty_registry, tmp_path):
    """Tables, a client, and settings of the test's own."""
    chosen = settings(tmp_path, recommend={"k": 5})
    empty_tables(chosen.storage.root)
    empty_registry(chosen.storage.root)
    return Tables(spark, chosen.storage), connect(chosen), chosen


def register(client, settings, batch: int, users=USERS, items=ITEMS):
    arrays = served_arrays(users, items, seed=batch)
    run = GenerationRun.open(client, settings, 0, settings.mlflow.model_name)
    return versions.register(client, settings, run.run_id, Served.of_packed(arrays), StepId(0, batch), {}), arrays


def written(tables) -> dict[str, tuple[list[str], list[float], str]]:
    rows = tables.read(RECOMMENDATIONS).collect()
    found = {
        row.user_id: ([pair.item_id for pair in row["items"]], [pair.score for pair in row["items"]], row.model_version)
        for row in rows
    }
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_every_user_gets_the_items_of_the_slow_oracle(spark, scene, exclude_seen):
    tables, client, settings = scene
    settings = settings.model_copy(
        update={"recommend": settings.recommend.model_copy(update={"exclude_seen": exclude_seen})}
    )
    version, arrays = register(client, settings, 1)
    decisions.promote(client, version, BY_TEST)
    scored = score(tables, chosen_version(settings), settings)
    assert (scored.version.uri, scored.run.users) == (version.uri, len(USERS))
    wanted = {}
    for row, user in enumerate(USERS):
        items, scores = slow_ranking(arrays, row, 5, exclude_seen)
        wanted[user] = ([ITEMS[item] for item in items], scores, version.version)
    assert written(tables) == wanted


def test_a_version_of_an_earlier_release_is_scored_by_its_own_code(spark, scene):
    """Its tags distinguish it from those of this release."""
    tables, client, settings = scene
    version, _ = register(client, settings, 1)
    client.delete_model_version_tag(version.name, version.version, "generation")
    client.set_model_version_tag(version.name, version.version, "epoch", "0")
    decisions.promote(client, version, BY_TEST)
    chosen = chosen_version(settings)
    assert chosen.step is None
    assert score(tables, chosen, settings).run.users == len(USERS)


def test_a_model_of_another_project_is_refused_in_one_line(spark, scene, tmp_path):
    tables, client, settings = scene
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "MLmodel").write_text("flavors: {}\n")
    name = settings.mlflow.model_name
    client.create_registered_model(name)
    made = client.create_model_version(name, (tmp_path / "other").as_uri())
    client.set_registered_model_alias(name, "champion", made.version)
    with pytest.raises(RegistryError, match="was not made by this project: set recommend.model") as caught:
        score(tables, chosen_version(settings), settings)
    assert "\n" not in str(caught.value)


def test_the_champion_is_replaced_in_one_commit(spark, scene):
    tables, client, settings = scene
    first, _ = register(client, settings, 1)
    second, _ = register(client, settings, 2, users=["only"])
    decisions.promote(client, first, BY_TEST)
    score(tables, chosen_version(settings), settings)
    before = tables.version(RECOMMENDATIONS)
    decisions.promote(client, second, BY_TEST)
    assert score(tables, chosen_version(settings), settings).run.changed == 1
    assert tables.version(RECOMMENDATIONS) == before + 1
    assert set(written(tables)) == {"only"}
    assert len(tables.read(RECOMMENDATIONS, before).collect()) == len(USERS)
    (signature,) = tables.read(RECOMMENDATIONS).select("model_name", "model_version").collect()
    assert tuple(signature) == (second.name, second.version)


def test_a_version_can_be_asked_for_in_place_of_the_champion(spark, scene):
    tables, client, settings = scene
    first, _ = register(client, settings, 1, users=["ann"])
    second, _ = register(client, settings, 2, users=["bob"])
    decisions.promote(client, second, BY_TEST)
    asked = settings.model_copy(update={"recommend": settings.recommend.model_copy(update={"model": first.uri})})
    assert score(tables, chosen_version(asked), asked).version == first
    assert set(written(tables)) == {"ann"}


@pytest.mark.parametrize(("users", "items"), [([], ["tea"]), (["ann"], [])])
def test_an_empty_vocabulary_is_scored_too(spark, scene, users, items):
    tables, client, settings = scene
    version, _ = register(client, settings, 1, users=users, items=items)
    decisions.promote(client, version, BY_TEST)
    assert score(tables, chosen_version(settings), settings).run.users == len(users)
    assert written(tables) == {user: ([], [], version.version) for user in users}


def test_without_a_champion_one_line_says_what_to_do(scene, settings, tmp_path):
    for asked in (scene[2], settings(tmp_path / "elsewhere")):  # a registry without this model, and none at all
        with pytest.raises(RegistryError, match="the registry holds no models:/.*@champion: run jobs/stream_update.py"):
            chosen_version(asked)
    assert not (tmp_path / "elsewhere").exists(), "looking makes nothing"


def test_the_model_answers_as_a_spark_function(spark, scene):
    _, client, settings = scene
    version, arrays = register(client, settings, 1)
    recommend = mlflow.pyfunc.spark_udf(spark, version.uri, env_manager="local")
    asked = spark.createDataFrame([(user, 3) for user in [*USERS, "stranger"]], "user_id STRING, k BIGINT")
    rows = asked.withColumn("answer", recommend(F.struct("user_id", "k"))).collect()
    answers = {row.user_id: (row.answer.item_ids, row.answer.scores) for row in rows}
    for row, user in zip([*range(len(USERS)), -1], [*USERS, "stranger"], strict=True):
        items, scores = slow_ranking(arrays, row, 3, exclude_seen=True)
        assert answers[user] == ([ITEMS[item] for item in items], scores)


def test_what_users_have_just_done_and_reasons_pass_through_spark(spark, scene):
    _, client, settings = scene
    model = learn(OnlineModel(make_settings(model={"kind": "mixture", "factors": 4})), clustered_batches(3, 120))
    run = GenerationRun.open(client, settings, 0, settings.mlflow.model_name)
    version = versions.register(client, settings, run.run_id, model.served(), StepId(0, 2), {})
    answer = "user_id STRING, item_ids ARRAY<STRING>, scores ARRAY<DOUBLE>, explanations STRING"
    recommend = mlflow.pyfunc.spark_udf(spark, version.uri, answer, env_manager="local")
    recent = model.items.ids[2:4]
    asked = spark.createDataFrame(
        [("u1", 3, None, None), ("u2", None, None, None), ("new", None, recent, True)],
        "user_id STRING, k INT, recent_items ARRAY<STRING>, explain BOOLEAN",
    ).coalesce(1)
    rows = asked.select(recommend(F.struct(*asked.columns)).alias("answer")).collect()
    local = mlflow.pyfunc.load_model(version.uri).predict(asked.toPandas())
    for row, items, scores, told in zip(rows, local["item_ids"], local["scores"], local["explanations"], strict=True):
        assert (row.answer.item_ids, row.answer.scores, row.answer.explanations) == (items, scores, told)
    assert [len(row.answer.item_ids) for row in rows] == [3, 5, 5]
    pairs = spark.createDataFrame([("u1", model.items.ids[0]), ("u1", "?")], "user_id STRING, item_id STRING")
    scored = mlflow.pyfunc.spark_udf(spark, version.uri, "score DOUBLE", env_manager="local", params={"task": "score"})
    found = [row[0].score for row in pairs.coalesce(1).select(scored(F.struct(*pairs.columns))).collect()]
    alone = mlflow.pyfunc.load_model(version.uri).predict(pairs.toPandas(), params={"task": "score"})
    np.testing.assert_array_equal(np.array(found, float), alone["score"])
    with pytest.raises(PythonException, match="the input has no column 'user_id'; it has 'item_id'"):
        pairs.select(recommend(F.struct("item_id"))).collect()


def test_every_example_of_the_page_runs(spark, scene, capsys):
    _, client, settings = scene
    events = {"user_id": ["u1", "u2"], "item_id": ["i1", "i2"], "event_time": [10**9, 10**9 + 1]}
    model = recsys.fit(events, {"model.factors": 4, "model.rebuild_sweeps": 2, "device": "cpu"})._model
    run = GenerationRun.open(client, settings, 0, settings.mlflow.model_name)
    decisions.promote(
        client, versions.register(client, settings, run.run_id, model.served(), StepId(0, 1), {}), BY_TEST
    )
    text = (Path(__file__).parents[1] / "docs" / "how-to" / "serve.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        own = block.replace("sqlite:///var/recsys/mlflow.db", settings.tracking_uri)
        name = settings.mlflow.model_name
        exec(own.replace("models:/recsys@", f"models:/{name}@").replace('("recsys"', f'("{name}"'), {})
    shown = capsys.readouterr().out
    for told in ('"version"', "explanation", "vector", "answer"):
        assert told in shown

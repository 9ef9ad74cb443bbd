import os
import re
from collections import Counter
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pytest
import yaml
from chispa import assert_df_equality
from pyarrow import parquet
from pyspark.errors import PythonException
from pyspark.sql import functions as F

import recsys
from jobs.batch_score import batch_score
from recsys.batch_scoring import chosen_version, score, score_arms
from recsys.cli import BAD_INPUT, DONE, run_job
from recsys.config.experiment import Arm, Experiment
from recsys.config.scoring import BatchScore
from recsys.contracts import ITEM_VECTORS, RECOMMENDATIONS, SCORING_RUNS, USER_VECTORS, StepId
from recsys.errors import ConfigError, RegistryError
from recsys.experiment import arms_of
from recsys.exposure import Origin
from recsys.model.recommender import OnlineModel
from recsys.registry import decisions, versions
from recsys.registry.client import connect
from recsys.registry.runs import GenerationRun
from recsys.scoring import distributed, workers
from recsys.scoring.composition import POOL
from recsys.scoring.figures import percentiles
from recsys.scoring.inputs import Inputs
from recsys.scoring.workers import Request
from recsys.serving import Served
from recsys.tables.delta import Tables
from tests.model.als.test_incremental_als import learn
from tests.model.helpers import clustered_batches, make_settings
from tests.registry.served import BY_TEST, served_arrays, slow_ranking
from tests.scoring.oracle import slow_list

USERS = [*(f"u{number}" for number in range(40)), 'it\'s\n"🦉"/\\', "x" * 10_000, ""]
ITEMS = [*(f"i{number}" for number in range(60)), "日本語\n'\"/"]


@pytest.fixture
def scene(spark, settings, empty_tables, empty_registry, tmp_path):
    """Tables, a client, and settings of the test's own."""
    chosen = settings(tmp_path, recommend={"k": 5})
    empty_tables(chosen.storage.root)
    empty_registry(chosen.storage.root)
    return Tables(spark, chosen.storage), connect(chosen), chosen


def register(client, settings, batch: int, users=USERS, items=ITEMS, **other):
    arrays = served_arrays(users, items, seed=batch) | other
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
    origins = {row.user_id: row for row in tables.read(RECOMMENDATIONS).collect()}
    assert len({row.list_id for row in origins.values()}) == len(USERS)
    for row in origins.values():
        assert Origin.of(row.list_id) == Origin("recsys", version.version, row.ranking, row.propensity)
        assert (row.ranking, row.propensity) == ("als", 1.0)


RULES = {"category_cap": 2, "diversity": 0.25, "vectors": True}


def one_hot_factors(rng) -> np.ndarray:
    """Items that are alike or not at all, so that cosines are exact; nothing is known about the last one."""
    factors = np.zeros((len(ITEMS), 4), dtype=np.float32)
    factors[np.arange(len(ITEMS) - 1), rng.integers(0, 4, len(ITEMS) - 1)] = rng.integers(1, 4, len(ITEMS) - 1)
    return factors


def test_rules_given_users_vectors_and_figures(spark, scene, tmp_path):
    """Lists, vectors and figures are those of slow oracles; rows of users who were not asked for stay."""
    tables, client, settings = scene
    rng = np.random.default_rng(5)
    version, arrays = register(client, settings, 1, item_factors=one_hot_factors(rng))
    decisions.promote(client, version, BY_TEST)
    plain = score(tables, version, settings)
    assert (plain.run.users, plain.run.changed, plain.vectors) == (len(USERS), len(USERS), {})
    before = {user: items for user, (items, _, _) in written(tables).items()}

    nothing = spark.createDataFrame([(None, "i1"), ("stranger", "i2")], "user_id STRING, item_id STRING")
    everything = spark.createDataFrame([(item,) for item in [*ITEMS, "sold", None]], "item_id STRING")
    kept = settings.model_copy(update={"batch_score": BatchScore(category_cap=5)})
    same = spark.createDataFrame([("i3", "one"), ("i4", None)], "item_id STRING, category STRING")
    free = score(tables, version, kept, Inputs(allowed_items=everything, excluded_items=nothing, categories=same))
    assert free.run.changed == 0, "rules that leave nothing out change no list"

    allowed, users = rng.choice(61, 30, replace=False).tolist(), ["u1", "u2", "u5", "u17", 'it\'s\n"🦉"/\\']
    excluded = {user: rng.choice(61, 8, replace=False).tolist() for user in users[:4]}
    categories = rng.integers(-1, 5, 61)
    files = {
        "allowed_items": pa.table({"item_id": [ITEMS[item] for item in allowed]}),
        "excluded_items": pa.table(
            {
                "user_id": [user for user in excluded for _ in range(8)],
                "item_id": [ITEMS[item] for own in excluded.values() for item in own],
            }
        ),
    }
    kinds = [(ITEMS[item], int(kind)) for item, kind in enumerate(categories) if kind >= 0]
    spark.createDataFrame(kinds, "item_id STRING, category INT").createOrReplaceTempView("kinds_of_items")
    for name, table in files.items():
        (tmp_path / name).mkdir()
        parquet.write_table(table, tmp_path / name / "part.parquet")
    ruled = BatchScore(**RULES, categories="kinds_of_items", **{name: f"{tmp_path}/{name}" for name in files})
    chosen = settings.model_copy(update={"batch_score": ruled})
    asked = spark.createDataFrame([(user,) for user in [*users, "u1", None, "stranger", None]], "user_id STRING")
    at = tables.version(RECOMMENDATIONS)
    scored = score(tables, version, chosen, Inputs(users=asked))
    assert tables.version(RECOMMENDATIONS) == at + 1
    alike = arrays["item_factors"] @ arrays["item_factors"].T > 0
    wanted = {}
    for user in [*users, "stranger"]:
        order, scores = slow_ranking(arrays, USERS.index(user) if user in USERS else -1, len(ITEMS), user in USERS)
        open_items = set(allowed) - set(excluded.get(user, ()))
        rows = slow_list(order, scores, 5, open_items, categories.tolist(), 2, 0.25, alike.astype(float), POOL * 5)
        wanted[user] = [ITEMS[row] for row in rows]
    expected = spark.createDataFrame(list({**before, **wanted}.items()), "user_id STRING, items ARRAY<STRING>")
    found = tables.read(RECOMMENDATIONS).select("user_id", F.col("items.item_id").alias("items"))
    assert_df_equality(found, expected, ignore_row_order=True, ignore_nullable=True)

    counts = Counter(item for items in wanted.values() for item in items)
    pairs = [[alike[ITEMS.index(a), ITEMS.index(b)] for a, b in combinations(own, 2)] for own in wanted.values()]
    run = scored.run
    assert (run.users, run.unknown_users, run.users_without_id) == (6, 1, 2)
    assert (run.changed, run.removed) == (sum(before.get(user) != items for user, items in wanted.items()), 0)
    assert run.short_lists == sum(len(items) < 5 for items in wanted.values())
    assert run.coverage == len(counts) / len(ITEMS)
    assert run.diversity == pytest.approx(np.mean([1 - np.mean(own) for own in pairs if own]))
    popular = dict(zip(ITEMS, percentiles(arrays["item_popularity"]), strict=True))
    places = [popular[item] for items in wanted.values() for item in items]
    assert run.popularity_bias == pytest.approx(np.mean(places))
    rows = tables.read(SCORING_RUNS).orderBy("scored_at").collect()
    assert [row.users for row in rows] == [len(USERS), len(USERS), 6]
    assert {**rows[-1].asDict(), "scored_at": None} == {**asdict(run), "scored_at": None}

    for name, ids, factors in (
        (ITEM_VECTORS, ITEMS, arrays["item_factors"]),
        (USER_VECTORS, USERS, arrays["user_factors"]),
    ):
        known = [(one, row.tolist()) for one, row in zip(ids, factors, strict=True) if row.any()]
        assert scored.vectors[name] == len(known)
        key = "item_id" if name == ITEM_VECTORS else "user_id"
        expected = spark.createDataFrame(known, f"{key} STRING, vector ARRAY<FLOAT>")
        assert_df_equality(
            tables.read(name).select(key, "vector"), expected, ignore_row_order=True, ignore_nullable=True
        )
    arrays["item_factors"][3] += 1
    changed, _ = register(client, settings, 2, **arrays)
    only_vectors = settings.model_copy(update={"batch_score": BatchScore(vectors=True)})
    assert score(tables, changed, only_vectors).vectors == {ITEM_VECTORS: 1, USER_VECTORS: 0}
    feed = spark.read.option("readChangeFeed", True).option("startingVersion", tables.version(ITEM_VECTORS))
    told = feed.format("delta").load(tables.location(ITEM_VECTORS)).collect()
    assert {(row.item_id, row._change_type) for row in told} == {("i3", "update_preimage"), ("i3", "update_postimage")}


def test_a_worker_loads_a_version_once(spark, scene, monkeypatch):
    """What Spark runs in a worker, run here: the second task loads nothing; another version takes its place.

    The first worker loads a version once more before, to lay it out.
    """
    _, client, settings = scene
    archives = [distributed.send_to_executors(spark, register(client, settings, batch)[0]) for batch in (1, 2)]
    loads, load = [], mlflow.pyfunc.load_model
    monkeypatch.setattr(mlflow.pyfunc, "load_model", lambda path: loads.append(path) or load(path))
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    batch = pa.RecordBatch.from_arrays([pa.array([0, 1])], ["id"])
    for archive in (archives[0], archives[0], archives[1]):
        (ranked,) = workers.ranking(archive, Request(5, True))(iter([batch]))
        assert ranked.column(0).to_pylist() == USERS[:2]
    assert [Path(path).name for path in loads] == [archive for archive in archives for _ in range(2)]

    def probe(batches):
        before = archives[0] in workers._loaded
        workers.loaded(archives[0])
        for batch in batches:
            yield pa.RecordBatch.from_pydict(
                {"process": [os.getpid()] * len(batch), "loads": [not before] * len(batch)}
            )

    tasks = spark.range(0, 8, 1, 8).mapInArrow(probe, "process BIGINT, loads BOOLEAN").collect()
    assert sum(row.loads for row in tasks) <= len({row.process for row in tasks}) < len(tasks)


def test_bad_tables_are_refused_in_one_line_before_anything_is_written(spark, scene, tmp_path, capsys):
    tables, client, settings = scene
    version, _ = register(client, settings, 1)
    decisions.promote(client, version, BY_TEST)
    spark.createDataFrame([("u1", 2.5)], "user_id STRING, item_id DOUBLE").write.parquet(f"{tmp_path}/pairs")
    spark.createDataFrame([("i1", "a"), ("i1", "b")], "item_id STRING, category STRING").write.format("delta").save(
        f"{tmp_path}/categories"
    )
    cases = {
        "batch_score.users": {"users": f"{tmp_path}/nowhere"},
        "batch_score.allowed_items": {"allowed_items": "no_such_table"},
        "no column 'category'": {"categories": f"{tmp_path}/pairs", "category_cap": 1},
        "'batch_score.excluded_items': column 'item_id' is double": {"excluded_items": f"{tmp_path}/pairs"},
        "'batch_score.category_cap': set batch_score.categories": {"category_cap": 1},
        "'batch_score.categories': set batch_score.category_cap": {"categories": f"{tmp_path}/categories"},
        "'batch_score.categories': 1 more rows than items": {"categories": f"{tmp_path}/categories", "category_cap": 1},
    }
    for told, given in cases.items():
        chosen = settings.model_copy(update={"batch_score": BatchScore(**given)})
        (tmp_path / "my.yaml").write_text(yaml.safe_dump(chosen.model_dump(mode="json", by_alias=True)), "utf-8")
        assert run_job(batch_score, ["--config", str(tmp_path / "my.yaml")]) == BAD_INPUT
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert told in line
    assert tables.version(RECOMMENDATIONS) == 0
    assert tables.read(SCORING_RUNS).count() == 0


def test_what_a_version_cannot_do_is_refused_before_anything_is_written(spark, scene):
    tables, client, settings = scene
    model = learn(OnlineModel(make_settings(model={"kind": "trend"})), clustered_batches(2, 60))
    run = GenerationRun.open(client, settings, 0, settings.mlflow.model_name)
    version = versions.register(client, settings, run.run_id, model.served(), StepId(0, 1), {})
    for wish in ("diversity", "vectors"):
        asked = settings.model_copy(update={"batch_score": BatchScore(**{wish: 1})})
        with pytest.raises(ConfigError, match=f"setting 'batch_score.{wish}': version 1 of .* set it to"):
            score(tables, version, asked)
    assert tables.version(RECOMMENDATIONS) == 0


def test_the_script_of_the_page_and_the_job_run(spark, scene, tmp_path, monkeypatch, capsys):
    _, client, settings = scene
    decisions.promote(client, register(client, settings, 1)[0], BY_TEST)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json", by_alias=True)), "utf-8")
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[1] / "docs" / "how-to" / "batch-scoring.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    exec(block, {})
    assert "users=2" in capsys.readouterr().out
    assert run_job(batch_score, ["--config", "my.yaml", "batch_score.vectors=true", "recommend.k=70"]) == DONE
    told = capsys.readouterr().out
    assert f"{len(USERS)} users have recommendations of {settings.mlflow.model_name}, version 1" in told
    assert f"lists with fewer items than recommend.k: {len(USERS)}" in told
    assert re.search(r"coverage [01]\.\d+, gini 0\.\d+, popularity_bias 0\.\d+, diversity [01]\.\d+", told)
    assert "user_vectors: " in told


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


def test_each_user_gets_the_list_of_the_version_of_their_arm(spark, scene):
    tables, client, settings = scene
    first, second = (register(client, settings, batch) for batch in (1, 2))
    strangers, _ = register(client, settings, 3, users=[*USERS[:20], *(f"w{number}" for number in range(20))])
    decisions.promote(client, first[0], BY_TEST)
    arms = {"control": {"share": 0.4}, "new": {"share": 0.6, "model": second[0].uri}, "shadow": {"share": 0}}
    experiment = Experiment.model_validate({"name": "e", "arms": arms})
    scored = score_arms(tables, settings.model_copy(update={"experiment": experiment}))
    found, places = written(tables), arms_of(USERS, experiment)
    assert found.keys() == set(USERS)
    assert {*places.tolist()} == {0, 1}
    for row, (user, place) in enumerate(zip(USERS, places.tolist(), strict=True)):
        version, arrays = (first, second)[place]
        items, scores = slow_ranking(arrays, row, 5, exclude_seen=True)
        assert found[user] == ([ITEMS[item] for item in items], scores, version.version)
    runs = {row.arm: row for row in tables.read(SCORING_RUNS).collect()}
    assert runs.keys() == scored.keys() == {"control", "new"}
    for place, name in enumerate(runs):
        assert runs[name].users == runs[name].changed == scored[name].run.users == (places == place).sum()

    # Whom one version does not know gets a list of it all the same, and a single user's arm stays.
    other = experiment.model_copy(update={"arms": {**experiment.arms, "new": Arm(share=0.6, model=strangers.uri)}})
    few = spark.createDataFrame([("w1",), ("u1",), (None,)], "user_id STRING")
    again = score_arms(tables, settings.model_copy(update={"experiment": other}), Inputs(users=few))
    assert sum(one.run.users for one in again.values()) == 2
    assert [one.run.users_without_id for one in again.values()] == [1, 0]
    assert len(tables.read(RECOMMENDATIONS).collect()) == len(USERS) + 1
    with pytest.raises(ConfigError, match="setting 'batch_score.vectors'"):
        score_arms(tables, settings.model_copy(update={"batch_score": BatchScore(vectors=True)}))

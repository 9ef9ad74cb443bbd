"""The registered model through MLflow's own doors. The door to Spark is tested in test_scoring."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import requests
from mlflow.exceptions import MlflowException

from recsys.contracts import StepId
from recsys.model.recommender import LEARNERS, OnlineModel
from recsys.registry import decisions, versions
from recsys.registry.signature import SCORES
from recsys.serving import Served
from tests.model.als.test_incremental_als import learn
from tests.model.helpers import clustered_batches, make_settings
from tests.registry.processes import free_port, mlflow_process
from tests.registry.served import BY_TEST, served_arrays, slow_ranking

USERS = ["a/b\\c", 'it\'s "quoted"', "new\nline\ttab", "🦉🦉", "日本語", "x" * 10_000, "", " ", "';drop--", "ann"]
ITEMS = [f"item {number} \n\"'🦉/" for number in range(30)] + ["y" * 10_000]
ARRAYS = served_arrays(USERS, ITEMS)


@pytest.fixture
def version(registry, open_run):
    client, settings = registry
    made = versions.register(client, settings, open_run().run_id, Served.of_packed(ARRAYS), StepId(0, 1), {})
    decisions.promote(client, made, BY_TEST)
    return made


@contextmanager
def served_over_http(version, settings, folder) -> Iterator[Callable[..., requests.Response]]:
    """A real server of a version, as a function of the keys of a request, or of its bytes."""
    arguments = ["models", "serve", "--model-uri", version.uri, "--env-manager", "local"]
    environment = {"MLFLOW_TRACKING_URI": settings.tracking_uri}
    with mlflow_process(arguments, free_port(), "/ping", folder / "serve.log", **environment) as address:

        def ask(body: bytes | None = None, **keys: Any) -> requests.Response:
            content = json.dumps(keys).encode() if body is None else body
            header = {"Content-Type": "application/json"}
            return requests.post(f"{address}/invocations", content, headers=header, timeout=60)

        yield ask


def wanted(user: int, k: int, exclude_seen: bool = True) -> tuple[list[str], list[float]]:
    items, scores = slow_ranking(ARRAYS, user, k, exclude_seen)
    return [ITEMS[item] for item in items], scores


def test_it_loads_and_answers_with_pickle_forbidden(version):
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    model = mlflow.pyfunc.load_model(f"models:/{version.name}@champion")
    answer = model.predict(pd.DataFrame({"user_id": [*USERS, "stranger"]}))
    assert answer["user_id"].tolist() == [*USERS, "stranger"]
    for user, items, scores in zip([*range(len(USERS)), -1], answer["item_ids"], answer["scores"], strict=True):
        assert (items, scores) == wanted(user, k=20)


def test_optional_columns_pass_the_signature(version):
    model = mlflow.pyfunc.load_model(version.uri)
    asked = pd.DataFrame({"user_id": ["ann", "🦉🦉"], "k": [2, 40], "exclude_seen": [True, False]})
    answer = model.predict(asked)
    assert list(zip(answer["item_ids"], answer["scores"], strict=True)) == [wanted(9, 2), wanted(3, 40, False)]
    some = model.predict(pd.DataFrame({"user_id": ["ann"], "exclude_seen": [False], "candidates": [[ITEMS[4], "?"]]}))
    assert some["item_ids"].tolist() == [[ITEMS[4]]]


def test_the_artifacts_settings_can_be_changed_when_it_is_loaded(version):
    model = mlflow.pyfunc.load_model(version.uri, model_config={"k": 1, "exclude_seen": False})
    answer = model.predict(pd.DataFrame({"user_id": ["ann"]}))
    assert answer["item_ids"].tolist() == [wanted(9, 1, False)[0]]


@pytest.mark.parametrize("kind", LEARNERS)
def test_every_kind_is_uploaded_and_answers(kind, registry, open_run):
    client, settings = registry
    chosen = make_settings(model={"kind": kind, "factors": 4, "mixture": {"half_lives": [100]}})
    model = learn(OnlineModel(chosen), clustered_batches(3, 120))
    version = versions.register(client, settings, open_run().run_id, model.served(), StepId(0, 2), {})
    loaded = mlflow.pyfunc.load_model(version.uri)
    description = loaded.metadata.metadata
    assert SCORES[kind] in description["description"]
    assert {*description["columns"]} == {*loaded.metadata.get_input_schema().input_names()}
    assert loaded.metadata.get_params_schema().params[0].name == "task"
    example = loaded.predict(loaded.input_example)
    assert [len(items) for items in example["item_ids"]] == [5, 20]
    whole = loaded.predict(pd.DataFrame({"user_id": ["u1", "stranger"]}))
    asked = pd.DataFrame({"user_id": ["u1", "stranger"], "k": [3, None], "explain": [None, True]})
    found = loaded.predict(asked)
    assert found["item_ids"].tolist() == [whole["item_ids"][0][:3], whole["item_ids"][1]]
    assert found["explanations"][0] == ""
    told = json.loads(found["explanations"][1])
    assert told["version"]["model_id"] == loaded.metadata.model_id
    assert told["version"]["model_name"] == settings.mlflow.model_name
    assert (told["version"]["generation"], told["version"]["batch_id"]) == (0, 2)
    pairs = pd.DataFrame({"user_id": ["u1"] * 3, "item_id": found["item_ids"][0]})
    scores = loaded.predict(pairs, params={"task": "score"})
    assert scores["score"].tolist() == pytest.approx(found["scores"][0], rel=1e-6)
    for task in ("similar_items", "item_vectors", "user_vectors"):
        if kind in ("trend", "sessions", "repeat", "content", "sequence") or (
            kind == "cooccurrence" and task != "similar_items"
        ):
            with pytest.raises(MlflowException, match="set model.kind to"):
                loaded.predict(pairs, params={"task": task})
        else:
            assert len(loaded.predict(pairs, params={"task": task})) == 3


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"customer": ["ann"]}, "the input has no column 'user_id'; it has none"),
        ({}, "the input has no column 'user_id'; it has none"),
        ({"user_id": ["a", "b"], "k": [2, 1.5]}, "column 'k', row 1: 1.5 is no length: give a whole number from 1 on"),
        (
            {"user_id": ["ann"], "candidates": [["x"] * 1_000_000]},
            "column 'candidates', row 0: 1,000,000 ids are too many: give 100,000 at most",
        ),
        ({"user_id": [{"a": 1}]}, "column 'user_id', row 0: {'a': 1} is no id: give text or a whole number"),
    ],
)
def test_bad_input_is_refused_in_one_line(version, asked, line):
    with pytest.raises(MlflowException) as caught:
        mlflow.pyfunc.load_model(version.uri).predict(pd.DataFrame(asked))
    assert caught.value.message == str(caught.value) == line


def test_numbers_are_ids_too_and_an_empty_frame_is_answered(version):
    model = mlflow.pyfunc.load_model(version.uri)
    answer = model.predict(pd.DataFrame({"user_id": [7, 8], "recent_items": [None, [ITEMS[4]]]}))
    assert answer["user_id"].tolist() == ["7", "8"]
    assert len(model.predict(pd.DataFrame({"user_id": []}))) == 0


def test_it_serves_over_http(version, registry, tmp_path):
    _, settings = registry
    with served_over_http(version, settings, tmp_path) as ask:
        answer = ask(dataframe_records=[{"user_id": user, "k": 3} for user in [*USERS, "stranger"]])
        lists = [(row["item_ids"], row["scores"]) for row in answer.json()["predictions"]]
        assert lists == [wanted(user, 3) for user in [*range(len(USERS)), -1]]


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["mixture", "ncf"])
def test_every_task_and_every_mistake_over_http(kind, registry, open_run, tmp_path):
    client, settings = registry
    chosen = make_settings(model={"kind": kind, "factors": 4, "mixture": {"half_lives": [100]}})
    model = learn(OnlineModel(chosen), clustered_batches(3, 120))
    version = versions.register(client, settings, open_run().run_id, model.served(), StepId(0, 2), {})
    recent = model.items.ids[2:4]
    with served_over_http(version, settings, tmp_path) as ask:

        def rows(**body: Any) -> list[dict[str, Any]]:
            answer = ask(**body)
            assert answer.ok, answer.text
            return answer.json()["predictions"]

        whole = rows(dataframe_records=[{"user_id": "u1"}, {"user_id": "u2"}])
        for asked in (
            {"dataframe_records": [{"user_id": "u1", "k": 3}, {"user_id": "u2"}]},
            {"dataframe_split": {"columns": ["user_id", "k"], "data": [["u1", 3], ["u2", None]]}},
        ):
            assert [row["item_ids"] for row in rows(**asked)] == [whole[0]["item_ids"][:3], whole[1]["item_ids"]]
        session = [{"user_id": None, "recent_items": recent, "explain": True}, {"user_id": "u1"}]
        (new, known) = rows(dataframe_records=session)
        assert known == {**whole[0], "explanations": ""}
        told = json.loads(new["explanations"])["items"]
        assert {reason["item_id"] for one in told for reason in one["because"]} == set(recent)
        assert [sum(one["contributions"].values()) for one in told] == pytest.approx(new["scores"], abs=1e-5)
        pairs = [{"user_id": "u1", "item_id": item} for item in whole[0]["item_ids"]]
        scores = rows(dataframe_records=pairs, params={"task": "score"})
        assert [row["score"] for row in scores] == pytest.approx(whole[0]["scores"], rel=1e-6)
        assert len(rows(dataframe_records=pairs[:1], params={"task": "similar_items"})[0]["item_ids"]) == 20
        for task in ("item_vectors", "user_vectors"):
            assert len(rows(dataframe_records=pairs[:1], params={"task": task})[0]["vector"]) == 4
        for body, line in (
            ({"dataframe_records": [{"who": "u1"}]}, "the input has no column 'user_id'; it has none"),
            ({"dataframe_records": []}, "the input has no column 'user_id'; it has none"),
            ({"dataframe_records": [{"user_id": "u1", "k": 0}]}, "column 'k', row 0: 0 is no length"),
            ({"dataframe_records": [{"user_id": "u1", "k": "x"}]}, "column 'k', row 0: x is no length"),
            (
                {"dataframe_records": [{"user_id": "u1", "candidates": ["x"] * 1_000_000}]},
                "column 'candidates', row 0: 1,000,000 ids are too many",
            ),
            ({"dataframe_records": [{"user_id": "u1"}], "params": {"task": "sing"}}, "there is no task 'sing'"),
        ):
            refused = ask(**body)
            assert refused.status_code == 400
            assert refused.json()["message"].startswith(line)
            assert "\n" not in refused.json()["message"]
        assert ask(dataframe_records=[{"user_id": "u1", "k": 10**9, "recent_items": ["x"] * 10_000}]).ok
        for malformed in (b"{", b"[]", b'{"rows": 1}', b"\xff\xfe", b""):
            refused = ask(malformed)
            assert 400 <= refused.status_code < 500, malformed
            assert "Traceback" not in refused.text
        assert rows(dataframe_records=[{"user_id": "u1"}])[0] == whole[0]
        page = (Path(__file__).parents[2] / "docs" / "how-to" / "serve.md").read_text("utf-8")
        section = page.partition("## With MLflow's own server")[2].partition("\n## ")[0]
        examples = re.findall(r"-d '(.*?)'", section)
        assert len(examples) == 2
        assert all(ask(example.encode()).ok for example in examples)

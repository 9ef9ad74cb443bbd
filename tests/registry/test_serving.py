"""The registered model through MLflow's own doors. The door to Spark is tested in test_scoring."""

import os

import mlflow
import pandas as pd
import pytest
import requests
from mlflow.exceptions import MlflowException

from recsys.contracts import StepId
from recsys.registry import versions
from recsys.serving import Served
from tests.registry.processes import free_port, mlflow_process
from tests.registry.served import served_arrays, slow_ranking

USERS = ["a/b\\c", 'it\'s "quoted"', "new\nline\ttab", "🦉🦉", "日本語", "x" * 10_000, "", " ", "';drop--", "ann"]
ITEMS = [f"item {number} \n\"'🦉/" for number in range(30)] + ["y" * 10_000]
ARRAYS = served_arrays(USERS, ITEMS)


@pytest.fixture
def version(registry, open_run):
    client, settings = registry
    made = versions.register(client, settings, open_run().run_id, Served.of_packed(ARRAYS), StepId(0, 1), {})
    versions.promote(client, made)
    return made


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


def test_input_without_users_is_refused_by_the_signature(version):
    with pytest.raises(MlflowException, match="user_id"):
        mlflow.pyfunc.load_model(version.uri).predict(pd.DataFrame({"customer": ["ann"]}))


def test_it_serves_over_http(version, registry, tmp_path):
    _, settings = registry
    port = free_port()
    arguments = ["models", "serve", "--model-uri", version.uri, "--env-manager", "local"]
    environment = {"MLFLOW_TRACKING_URI": settings.tracking_uri}
    with mlflow_process(arguments, port, "/ping", tmp_path / "serve.log", **environment) as address:
        asked = {"dataframe_records": [{"user_id": user, "k": 3} for user in [*USERS, "stranger"]]}
        answer = requests.post(f"{address}/invocations", json=asked, timeout=60)
        assert answer.ok, answer.text
        lists = [(row["item_ids"], row["scores"]) for row in answer.json()["predictions"]]
        assert lists == [wanted(user, 3) for user in [*range(len(USERS)), -1]]
        refused = requests.post(f"{address}/invocations", json={"dataframe_records": [{"who": "ann"}]}, timeout=60)
        assert refused.status_code == 400
        assert "user_id" in refused.text

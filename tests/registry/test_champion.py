"""The champion, fetched in one call."""

import doctest
import json
import os
import sys

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

import recsys
from recsys import champion
from recsys.config import Settings
from recsys.contracts import StepId
from recsys.errors import ConfigError, InputError, RegistryError
from recsys.registry import decisions, versions
from recsys.registry.client import ENVIRONMENT
from tests.registry.served import BY_TEST
from tests.test_door import SMALL, history


def register(registry: tuple[MlflowClient, Settings], open_run, model: recsys.Recommender) -> None:
    client, settings = registry
    run = open_run()
    arrays = model._model.served()
    version = versions.register(client, settings, run.run_id, arrays, StepId(0, 1), {})
    decisions.promote(client, version, BY_TEST)


def test_the_champion_recommends_what_was_registered(registry, open_run) -> None:
    settings = registry[1]
    model = recsys.fit(history(1_000), SMALL)
    register(registry, open_run, model)
    found = recsys.load_champion(settings.mlflow.model_name, settings.tracking_uri)
    assert repr(found) == f"Champion(models:/{settings.mlflow.model_name}/{found.version})"
    lists = found.recommend([1, "unknown"], k=4)
    expected = model.recommend([1, "unknown"], k=4)
    assert lists.columns.tolist() == ["user_id", "rank", "item_id", "score"]
    assert lists["item_id"].tolist() == expected["item_id"].tolist()
    np.testing.assert_allclose(lists["score"], expected["score"], rtol=1e-5)
    assert len(found.recommend(1)) == settings.recommend.k
    pd.testing.assert_frame_equal(found.similar_items(1, k=3), model.similar_items(1, k=3))
    items = expected["item_id"][:4].tolist()
    scores = found.score(1, items)
    assert scores.columns.tolist() == ["user_id", "item_id", "score"]
    assert scores["score"].tolist() == lists["score"][:4].tolist()
    assert found.recommend(1, candidates=items[1:], exclude_items=items[3:])["item_id"].tolist() == items[1:3]
    told = found.recommend("unknown", k=3, recent_items=[1, 2], exclude_seen=False, explain=True)
    assert told.columns.tolist() == ["user_id", "rank", "item_id", "score", "explanation"]
    for score, text in zip(told["score"], told["explanation"], strict=True):
        explanation = json.loads(text)
        assert sum(explanation["contributions"].values()) == pytest.approx(score, abs=1e-5)
        assert explanation["version"] == found.version
        assert {one["item_id"] for one in explanation["because"]} <= {"1", "2"}
    for wrong, line in (
        (lambda: found.score([1, 2], [1]), "there are 2 user_ids and 1 item_ids: give pairs, or one user"),
        (lambda: found.recommend(1, candidates=["x"] * 100_001), "100,001 ids are too many"),
    ):
        with pytest.raises(InputError, match=line):
            wrong()
    with pytest.raises(InputError, match="the model knows no item 'tea'"):
        found.similar_items("tea")


def test_without_an_address_mlflows_own_is_asked(registry, open_run, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = registry[1]
    register(registry, open_run, recsys.fit(history(200), SMALL | {"model.kind": "als"}))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.tracking_uri)
    assert recsys.load_champion(settings.mlflow.model_name).version == "1"


def test_mlflows_configuration_stays_as_it_is(registry, open_run, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = registry[1]
    register(registry, open_run, recsys.fit(history(200), SMALL | {"model.kind": "als"}))
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    elsewhere = f"sqlite:///{tmp_path}/own.db"
    mlflow.set_tracking_uri(elsewhere)
    try:
        recsys.load_champion(settings.mlflow.model_name, settings.tracking_uri)
        assert mlflow.get_tracking_uri() == elsewhere
        assert not ENVIRONMENT.keys() & os.environ.keys()
    finally:
        mlflow.set_tracking_uri(settings.tracking_uri)


def test_a_registry_without_a_champion_is_named(registry) -> None:
    with pytest.raises(RegistryError, match="the registry holds no models:/nobody@champion"):
        recsys.load_champion("nobody", registry[1].tracking_uri)


def test_a_champion_of_another_release_is_named(registry, open_run) -> None:
    client, settings = registry
    register(registry, open_run, recsys.fit(history(200), SMALL | {"model.kind": "als"}))
    client.delete_model_version_tag(settings.mlflow.model_name, "1", "generation")
    with pytest.raises(RegistryError, match="/1 was not registered by this release: it has no tag 'generation'"):
        recsys.load_champion(settings.mlflow.model_name, settings.tracking_uri)


def test_the_example_is_right(registry, open_run, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = registry[1]
    events = {"user_id": ["u1", "u2"], "item_id": ["i1", "i2"], "event_time": [10**9, 10**9 + 1]}
    register(registry, open_run, recsys.fit(events, SMALL))
    given = champion.load_champion
    own = settings.mlflow.model_name, settings.tracking_uri
    glob = {"load_champion": lambda name, tracking_uri: given(*own)}
    (example,) = [one for one in doctest.DocTestFinder().find(given, "load_champion", globs=glob) if one.examples]
    assert doctest.DocTestRunner().run(example) == (0, 2)


def test_without_mlflow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "mlflow" or name.startswith("recsys.registry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"^load_champion needs mlflow: pip install 'recsys-stream\[mlflow\]'$"):
        recsys.load_champion("recsys")

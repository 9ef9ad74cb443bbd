"""The server in an experiment: each user is answered by the version of their arm."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from mlflow import MlflowClient
from starlette.testclient import TestClient

from recsys.config import Settings, load_settings
from recsys.contracts import RECOMMENDATIONS, StepId
from recsys.errors import RegistryError
from recsys.experiment import arms_of
from recsys.exposure import Origin
from recsys.registry import decisions, versions
from recsys.registry.client import connect
from recsys.registry.runs import GenerationRun
from recsys.registry.served import ServedVersion
from recsys.registry.versions import Version
from recsys.server.app import application
from recsys.server.current import CurrentVersions
from recsys.server.figures import ServerFigures
from recsys.serving import Served
from recsys.storage import mlflow_database, table_path
from tests.registry.served import BY_TEST, as_given, served_arrays

pytestmark = pytest.mark.mlflow

USERS = [f"u{number}" for number in range(20)]
ITEMS = [f"i{number}" for number in range(30)]
NEW = "trial"
OVERRIDES = [
    "experiment.name=e",
    "experiment.arms.control.share=0.4",
    "experiment.arms.new.share=0.6",
    f"experiment.arms.new.model=models:/recsys@{NEW}",
    # Nobody gets it, so it is not missed.
    "experiment.arms.shadow.share=0",
    "experiment.arms.shadow.model=models:/recsys/99",
    "serve.refresh_seconds=0.01",
]


@dataclass(frozen=True)
class ExperimentScene:
    """Three versions. The first one is champion; the second one is the arm's, and has made the lists of two users."""

    settings: Settings
    client: MlflowClient
    made: list[Version]
    current: CurrentVersions
    app: TestClient
    arms: dict[str, str]

    def expected(self, asked: list[dict[str, Any]], numbers: dict[str | None, int]) -> list[dict[str, Any]]:
        """What each user's version answers for that user alone, by the number of each arm's version."""
        found = []
        for one in asked:
            arm = self.arms.get(one["user_id"])
            version = self.made[numbers[arm] - 1]
            columns = {name: [value] for name, value in one.items()}
            (row,) = ServedVersion(version).answer({**columns, "origin": [True]}).to_dict("records")
            named = {"model": version.name, "version": version.version, **({"arm": arm} if arm else {})}
            found.append({**as_given(row, version), **named})
        return found


@pytest.fixture
def scene(empty_registry: Callable[[str], None], tmp_path: Path) -> ExperimentScene:
    root = f"{tmp_path}/recsys"
    empty_registry(root)
    settings = load_settings(overrides=[f"storage.root={root}", *OVERRIDES])
    client = connect(settings)
    run = GenerationRun.open(client, settings, 0, "stream")
    made = [
        versions.register(
            client, settings, run.run_id, Served.of_packed(served_arrays(USERS, ITEMS, seed)), StepId(0, seed), {}
        )
        for seed in (1, 2, 3)
    ]
    decisions.promote(client, made[0], BY_TEST)
    client.set_registered_model_alias("recsys", NEW, made[1].version)
    places = arms_of(USERS, settings.experiment).tolist()
    arms = dict(zip(USERS, (list(settings.experiment.arms)[place] for place in places), strict=True))
    by_control, by_new = (next(user for user in USERS if arms[user] == arm) for arm in ("control", "new"))
    columns = {"user_id": [by_control, by_new], "items": [[{"item_id": "i1", "score": 1.0}]] * 2}
    columns |= {"model_name": ["recsys"] * 2, "model_version": ["2"] * 2, "list_id": ["of another arm", "its own"]}
    write_deltalake(
        table_path(root, RECOMMENDATIONS), pa.table({**columns, "scored_at": [datetime(2025, 1, 1, tzinfo=UTC)] * 2})
    )
    figures = ServerFigures()
    current = CurrentVersions(settings, figures)
    app = TestClient(application(current, settings.serve, figures))
    return ExperimentScene(settings, client, made, current, app, arms)


def test_each_user_is_answered_by_the_version_of_their_arm(scene: ExperimentScene) -> None:
    assert {*scene.arms.values()} == {"control", "new"}
    asked: list[dict[str, Any]] = [{"user_id": user, "k": 5} for user in [*USERS, None]]
    numbers = {"control": 1, "new": 2, None: 1}
    expected = scene.expected(asked, numbers)
    assert scene.app.post("/recommendations", json=asked).json() == {"source": "live", "lists": expected}
    assert scene.app.post("/recommendations", json=asked[3]).json()["lists"] == [expected[3]]
    pairs = scene.app.post("/scores", json=[{"user_id": user, "item_id": "i4"} for user in USERS]).json()["scores"]
    for user, given in zip(USERS, pairs, strict=True):
        version = scene.made[numbers[scene.arms[user]] - 1]
        (score,) = ServedVersion(version).answer({"user_id": [user], "item_id": ["i4"]}, "score")["score"]
        assert (given["arm"], given["version"], given["score"]) == (scene.arms[user], version.version, score)
    (similar,) = scene.app.post("/similar", json={"item_id": "i4"}).json()["lists"]
    assert (similar["version"], "arm" in similar) == ("1", False)


def test_a_list_of_the_table_is_given_to_users_of_the_arm_of_its_version(scene: ExperimentScene) -> None:
    found = {user: scene.app.get(f"/recommendations/{user}?k=1").json() for user in USERS}
    own = next(user for user in USERS if scene.arms[user] == "new")
    for user, answer in found.items():
        (given,) = answer["lists"]
        assert (given["arm"], given["version"]) == (scene.arms[user], {"control": "1", "new": "2"}[scene.arms[user]])
        assert answer["source"] == ("table" if user == own else "live")
        version = "2" if scene.arms[user] == "new" else "1"
        origin = Origin.of(given["list_id"])
        assert given["list_id"] == "its own" if user == own else origin and origin.model_version == version


def test_lists_of_a_version_that_does_not_say_how_it_ranks_have_no_id(
    scene: ExperimentScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = ServedVersion.answer

    def of_an_earlier_release(served: ServedVersion, columns: dict[str, Any], task: str = "recommend") -> pd.DataFrame:
        return answer(served, {name: column for name, column in columns.items() if name != "origin"}, task)

    monkeypatch.setattr(ServedVersion, "answer", of_an_earlier_release)
    (given,) = scene.app.post("/recommendations", json={"user_id": "u3"}).json()["lists"]
    assert given["item_ids"]
    assert "list_id" not in given


def test_what_is_refused_is_named_by_its_row_in_the_request(scene: ExperimentScene) -> None:
    last = USERS[-1]
    asked = [*({"user_id": user} for user in USERS[:-1]), {"user_id": last, "candidates": ["x"] * 100_001}]
    error = scene.app.post("/recommendations", json=asked).json()["error"]
    assert error.startswith(f"column 'candidates', row {len(USERS) - 1}: 100,001 ids are too many")


def test_aliases_of_arms_are_followed(scene: ExperimentScene) -> None:
    asked: list[dict[str, Any]] = [{"user_id": user, "k": 5} for user in USERS]
    scene.client.set_registered_model_alias("recsys", NEW, "3")
    scene.current.look()
    answer = scene.app.post("/recommendations", json=asked).json()
    assert answer["lists"] == scene.expected(asked, {"control": 1, "new": 3})
    # Both arms have the same version, loaded once.
    decisions.promote(scene.client, scene.made[2], BY_TEST)
    scene.current.look()
    assert scene.app.post("/recommendations", json=asked).json()["lists"] == scene.expected(
        asked, {"control": 3, "new": 3}
    )
    assert len(scene.current.now.of_version) == 1


def test_health_and_figures_name_the_version_of_each_arm(scene: ExperimentScene) -> None:
    health = scene.app.get("/healthz").json()
    assert health["version"] == "1"
    assert health["arms"] == {arm: {"model": "recsys", "version": n} for arm, n in (("control", "1"), ("new", "2"))}
    assert (health["registry"], health["table"], health["stored_lists"]) == ("ok", "ok", 2)
    text = scene.app.get("/metrics").text
    for arm, number in (("", 1), ("control", 1), ("new", 2)):
        assert f'recsys_serve_version{{arm="{arm}"}} {number}.0\n' in text


def test_an_arm_whose_version_is_gone_keeps_it_and_others_are_followed(scene: ExperimentScene) -> None:
    scene.client.delete_registered_model_alias("recsys", NEW)
    decisions.promote(scene.client, scene.made[2], BY_TEST)
    scene.current.look()
    health = scene.app.get("/healthz").json()
    assert {arm: one["version"] for arm, one in health["arms"].items()} == {"control": "3", "new": "2"}
    assert f"models:/recsys@{NEW}" in health["registry"]
    with pytest.raises(RegistryError, match=f"holds no models:/recsys@{NEW}"):
        CurrentVersions(scene.settings, ServerFigures())


def test_without_the_registry_all_versions_go_on(scene: ExperimentScene) -> None:
    mlflow_database(scene.settings.storage.root).write_bytes(b"no database" * 1_000)
    scene.current.look()
    health = scene.app.get("/healthz").json()
    assert "cannot look up models:/recsys@champion" in health["registry"]
    assert {arm: one["version"] for arm, one in health["arms"].items()} == {"control": "1", "new": "2"}


def test_a_look_that_has_begun_is_waited_for_when_the_server_ends(
    scene: ExperimentScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), list[int]()

    def slow_look() -> None:
        begun.set()
        ended.append(sum(range(1_000_000)))

    monkeypatch.setattr(scene.current, "look", slow_look)
    with scene.current.followed():
        assert begun.wait(60)
    assert ended
    assert "versions" not in {thread.name for thread in threading.enumerate()}

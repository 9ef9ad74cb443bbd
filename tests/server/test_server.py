"""The server as its users meet it: the real job over HTTP, a real registry, a real table."""

import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import requests
from deltalake import write_deltalake
from mlflow import MlflowClient
from prometheus_client.parser import text_string_to_metric_families

from jobs.serve import serve
from recsys.cli import BAD_INPUT, run_job
from recsys.config import Settings, load_settings
from recsys.contracts import RECOMMENDATIONS, StepId
from recsys.model.recommender import OnlineModel
from recsys.registry import decisions, versions
from recsys.registry.client import ARTIFACTS, connect
from recsys.registry.runs import GenerationRun
from recsys.registry.served import ServedVersion
from recsys.registry.versions import CHAMPION, Version
from recsys.serving import Served
from recsys.storage import mlflow_database, table_path
from tests.docs.test_pages import described
from tests.model.helpers import clustered_batches, make_settings
from tests.registry.processes import free_port, server_process
from tests.registry.served import BY_TEST, as_given, served_arrays

pytestmark = [pytest.mark.process, pytest.mark.mlflow]

ROOT = Path(__file__).parents[2]
LOOKS = 10_000
BODY_BYTES = 600_000
ODD = "a/b ?k=1&日本語 🦉"


@dataclass(frozen=True)
class Scene:
    """A server, and what it serves: the first version is champion, and has made the list of one user."""

    address: str
    log: Path
    settings: Settings
    client: MlflowClient
    versions: list[Version]
    stored: dict[str, list[dict[str, Any]]]

    def post(self, page: str, body: Any = None, **how: Any) -> requests.Response:
        return requests.post(f"{self.address}{page}", json=body, timeout=60, **how)

    def get(self, page: str, **parameters: Any) -> requests.Response:
        return requests.get(f"{self.address}{page}", params=parameters, timeout=60)

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """What /healthz says once the condition holds."""
        for _ in range(LOOKS):
            health = self.get("/healthz").json()
            if condition(health):
                return health
        pytest.fail(f"{health}\n{self.log.read_text()}")


@pytest.fixture(scope="module")
def scene(empty_registry: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("server")
    root, port = f"{folder}/recsys", free_port()
    empty_registry(root)
    serve = {"port": port, "refresh_seconds": 0.1, "max_body_bytes": BODY_BYTES}
    overrides = [f"storage.root={root}", *(f"serve.{name}={value}" for name, value in serve.items())]
    settings = load_settings(overrides=overrides)
    client = connect(settings)
    run = GenerationRun.open(client, settings, 0, "stream")
    model = OnlineModel(make_settings(model={"kind": "mixture", "factors": 4, "mixture": {"half_lives": [100]}}))
    made = []
    for number, batch in enumerate(clustered_batches(4, 150)):
        model.update(batch, StepId(0, number))
        if number % 2:
            made.append(versions.register(client, settings, run.run_id, model.served(), StepId(0, number), {}))
    decisions.promote(client, made[0], BY_TEST)
    stored = {user: [{"item_id": f"{user}-{n}", "score": 1.5 - n} for n in range(3)] for user in ("u1", ODD)}
    columns = {"user_id": list(stored), "items": list(stored.values())}
    columns |= {"model_name": [settings.mlflow.model_name] * 2, "model_version": ["1"] * 2}
    columns["list_id"] = [f"list of {user}" for user in stored]
    rows = pa.table({**columns, "scored_at": [datetime(2025, 1, 1, tzinfo=UTC)] * 2})
    write_deltalake(table_path(root, RECOMMENDATIONS), rows)
    job = [str(ROOT / "jobs" / "serve.py"), *overrides]
    with server_process(job, port, "/healthz", folder / "log", ends=True) as address:
        yield Scene(address, folder / "log", settings, client, made, stored)


ASKED: list[dict[str, Any]] = [
    {"user_id": "u1"},
    {"user_id": "stranger", "k": 3},
    {"user_id": "u2", "k": 1_000, "exclude_seen": False},
    {"user_id": None, "recent_items": ["i7", "nothing"], "explain": True},
    {"user_id": "u3", "candidates": ["i7", "i8", "i9"], "exclude_items": ["i8"]},
    {"user_id": 7},
]


def name(version: Version) -> dict[str, str]:
    return {"model": version.name, "version": version.version}


def live(version: Version, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the version answers without a server, under its name, with the ids of its lists."""
    asked = [{**one, "origin": True} for one in asked]
    columns = {column for one in asked for column in one}
    found = ServedVersion(version).answer({column: [one.get(column) for one in asked] for column in columns})
    rows = found.drop(columns="explanations", errors="ignore").assign(**name(version)).to_dict("records")
    lists = [as_given(row, version) for row in rows]
    for one, told in zip(lists, found.get("explanations", pd.Series([""] * len(lists))), strict=True):
        one |= {"explanation": json.loads(told)} if told else {}
    return lists


def test_one_request_and_several_are_answered_as_the_version_answers(scene: Scene) -> None:
    expected = live(scene.versions[0], ASKED)
    answer = scene.post("/recommendations", ASKED).json()
    assert answer == {"source": "live", "lists": expected}
    assert answer["lists"][3]["explanation"]["items"]
    # Who is known has a list with an id.
    ids = [one.get("list_id") for one in answer["lists"]]
    assert [one is not None for one in ids] == [True, False, True, False, True, False]
    assert len({*ids}) == 4
    for asked, wanted in zip(ASKED, expected, strict=True):
        assert scene.post("/recommendations", asked).json()["lists"] == [wanted]


def test_other_tasks_are_answered_as_the_version_answers(scene: Scene) -> None:
    served = ServedVersion(scene.versions[0])
    found = scene.post("/similar", [{"item_id": "i7", "k": 4}, {"item_id": "nothing"}]).json()
    expected = served.answer({"item_id": ["i7", "nothing"], "k": [4, None]}, "similar_items")
    assert found["lists"] == expected.assign(**name(scene.versions[0])).to_dict("records")
    pairs = {"user_id": ["u1", None], "item_id": ["i7", "nothing"], "recent_items": [["i8"], None]}
    rows = pd.DataFrame(pairs).to_dict("records")
    found = scene.post("/scores", rows).json()
    scores = served.answer(pairs, "score")["score"].tolist()
    assert found["scores"] == [
        {"user_id": "u1", "item_id": "i7", "score": scores[0], **name(scene.versions[0])},
        {"user_id": None, "item_id": "nothing", "score": None, **name(scene.versions[0])},
    ]
    assert np.isnan(scores[1])


def test_requests_that_wait_together_are_answered_like_those_that_come_alone(scene: Scene) -> None:
    asked = [*ASKED, {"user_id": "u4", "exclude_items": ["x"] * 100_001}]
    expected = live(scene.versions[0], ASKED)
    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda one: scene.post("/recommendations", one), asked * 30))
    for number, answer in enumerate(answers):
        place = number % len(asked)
        if place == len(ASKED):
            assert answer.json() == {
                "error": "column 'exclude_items', row 0: 100,001 ids are too many: give 100,000 at most"
            }
        else:
            assert answer.json()["lists"] == [expected[place]]


def test_a_list_comes_from_the_table_where_the_version_has_made_it(scene: Scene) -> None:
    for user, items in scene.stored.items():
        for k in (None, 2):
            answer = scene.get(f"/recommendations/{requests.utils.quote(user, safe='')}", k=k).json()
            given = answer["lists"][0]
            assert (answer["source"], given["version"], given["user_id"]) == ("table", "1", user)
            assert given["list_id"] == f"list of {user}"
            pairs = [
                {"item_id": item, "score": score}
                for item, score in zip(given["item_ids"], given["scores"], strict=True)
            ]
            assert pairs == items[:k]
    for user, k in (("u1", 4), ("u2", 2), ("stranger", None)):
        answer = scene.get(f"/recommendations/{user}", k=k).json()
        asked = {"user_id": user, **({} if k is None else {"k": k})}
        assert answer == {**scene.post("/recommendations", asked).json(), "source": "live"}


def test_another_champion_answers_while_requests_come_in(scene: Scene) -> None:
    asked = {"user_id": "u1", "k": 5}
    expected = {version.version: live(version, [asked]) for version in scene.versions}
    assert expected["1"] != expected["2"]
    for version in (scene.versions[1], scene.versions[0]):
        decisions.promote(scene.client, version, BY_TEST)
        for _ in range(LOOKS):
            answer = scene.post("/recommendations", asked)
            assert answer.status_code == 200
            lists = answer.json()["lists"]
            assert lists == expected[lists[0]["version"]]
            if lists[0]["version"] == version.version:
                break
        # The list of the table is that of the first version.
        source = scene.get("/recommendations/u1").json()["source"]
        assert source == {"1": "table", "2": "live"}[version.version]
    assert scene.until(lambda health: health["registry"] == "ok")["version"] == "1"


def test_a_newer_table_is_read(scene: Scene) -> None:
    path = table_path(scene.settings.storage.root, RECOMMENDATIONS)
    row = {"user_id": "late", "items": [{"item_id": "x", "score": 1.0}], "model_name": "recsys", "model_version": "1"}
    row["list_id"] = "late list"
    rows = pa.Table.from_pylist([{**row, "scored_at": datetime(2025, 1, 2, tzinfo=UTC)}])
    write_deltalake(path, rows, mode="append")
    scene.until(lambda health: health["stored_lists"] == 3)
    assert scene.get("/recommendations/late").json()["lists"][0]["item_ids"] == ["x"]


def test_without_the_registry_the_version_goes_on_answering(scene: Scene) -> None:
    database = mlflow_database(scene.settings.storage.root)
    whole = database.read_bytes()
    database.write_bytes(b"no database" * 1_000)
    try:
        assert "cannot look up models:/recsys@champion" in scene.until(lambda one: one["registry"] != "ok")["registry"]
        assert scene.post("/recommendations", ASKED[0]).json()["lists"][0]["version"] == "1"
        assert figures(scene)["recsys_serve_up_to_date"] == 0
    finally:
        database.write_bytes(whole)
    scene.until(lambda health: health["registry"] == "ok")
    assert figures(scene)["recsys_serve_up_to_date"] == 1


def test_a_version_that_was_altered_does_not_take_over(scene: Scene) -> None:
    run = GenerationRun.open(scene.client, scene.settings, 0, "stream")
    arrays = Served.of_packed(served_arrays(["ann"], ["tea"]))
    altered = versions.register(scene.client, scene.settings, run.run_id, arrays, StepId(0, 9), {})
    newest = max((Path(scene.settings.storage.root) / ARTIFACTS).rglob("pyfunc.py"), key=os.path.getmtime)
    newest.write_text("raise SystemExit\n")
    scene.client.set_registered_model_alias(altered.name, CHAMPION, altered.version)
    assert "is not what was registered" in scene.until(lambda health: health["registry"] != "ok")["registry"]
    assert scene.post("/recommendations", ASKED[0]).json()["lists"][0]["version"] == "1"
    decisions.promote(scene.client, scene.versions[0], BY_TEST)
    scene.until(lambda health: health["registry"] == "ok")


JSON = {"Content-Type": "application/json"}
REFUSED: list[tuple[str, bytes, int, str]] = [
    ("/recommendations", b"{", 422, "the body is no JSON: Expecting property name"),
    ("/recommendations", b"", 422, "body: field required"),
    ("/recommendations", b'"\xff\xfe"', 400, "There was an error parsing the body"),
    ("/recommendations", b"[" * 50_000, 400, "There was an error parsing the body"),
    ("/recommendations", b"9" * 5_000, 400, "There was an error parsing the body"),
    ("/recommendations", b"7", 422, "row 0: input should be a valid dictionary"),
    ("/recommendations", b"[]", 422, "body: value should have at least 1 item"),
    ("/recommendations", b"{}", 422, "'user_id', row 0: field required"),
    ("/recommendations", b'[{"user_id": "u1"}, {"user_id": true}]', 422, "'user_id', row 1: input should be a valid s"),
    ("/recommendations", b'{"user_id": "u1", "recent_item": []}', 422, "'recent_item', row 0: extra inputs are not"),
    ("/recommendations", b'{"user_id": "u1", "recent_items": "i1"}', 422, "'recent_items', row 0: input should be a v"),
    ("/recommendations", b'{"user_id": "u1", "recent_items": ["i1", {}]}', 422, "'recent_items', row 0: input should"),
    ("/recommendations", b'{"user_id": "u1", "k": 0}', 422, "'k', row 0: input should be greater than or equal to 1"),
    ("/recommendations", b'{"user_id": "u1", "k": 1000000000}', 422, "'k', row 0: input should be less than or equal"),
    ("/recommendations", b'{"user_id": "u1", "k": "7"}', 422, "'k', row 0: input should be a valid integer"),
    ("/recommendations", b'{"user_id": "u1", "k": NaN}', 422, "'k', row 0: input should be a valid integer"),
    ("/recommendations", b'{"user_id": "\\ud83d"}', 422, "'user_id', row 0: it has half a character"),
    ("/recommendations", b'{"\\ud83d": 1, "user_id": 1}', 422, "row 0: input should be a valid string"),
    (
        "/recommendations",
        b"[" + b'{"user_id": 1},' * 100 + b'{"user_id": 1}]',
        422,
        "body: value should have at most 10",
    ),
    ("/recommendations", b'{"user_id": "' + b"x" * BODY_BYTES + b'"}', 413, "the body is larger than 600,000 bytes"),
    ("/similar", b'{"item_id": null}', 422, "'item_id', row 0: input should be a valid string"),
    ("/scores", b'{"user_id": "u1"}', 422, "'item_id', row 0: field required"),
    ("/sing", b'{"user_id": "u1"}', 404, "there is no such page: POST /recommendations"),
    ("/healthz", b"", 405, "Method Not Allowed"),
]


@pytest.mark.parametrize(("page", "body", "status", "line"), REFUSED, ids=[line[:40] for *_, line in REFUSED])
def test_what_cannot_be_answered_is_refused_in_one_line(
    scene: Scene, page: str, body: bytes, status: int, line: str
) -> None:
    # With its length in the head, and in pieces without.
    for sent in (body, iter([body[:10], body[10:]])):
        answer = requests.post(scene.address + page, sent, headers=JSON, timeout=60)
        assert (answer.status_code, list(answer.json())) == (status, ["error"])
        assert answer.json()["error"].startswith(line)
        assert "\n" not in answer.json()["error"]
    assert scene.post("/recommendations", ASKED[0]).ok


def test_what_is_wrong_outside_a_body_is_refused_in_one_line(scene: Scene) -> None:
    assert scene.get("/recommendations/u1", k=0).json()["error"].startswith("'k': input should be greater")
    assert scene.post("/recommendations", ASKED[0], headers={"Content-Type": "text/plain"}).json() == {
        "error": "body: send JSON, with the header Content-Type: application/json"
    }
    huge = requests.post(f"{scene.address}/recommendations", b"x" * 30_000_000, headers=JSON, timeout=60)
    assert huge.status_code == 413
    with closing(socket.create_connection(("127.0.0.1", scene.settings.serve.port))) as raw:
        raw.sendall(b"no HTTP at all\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")


def figures(scene: Scene) -> dict[str, float]:
    families = text_string_to_metric_families(scene.get("/metrics").text)
    return {one.name: one.value for family in families for one in family.samples}


def test_every_figure_is_described_and_no_other(scene: Scene) -> None:
    scene.post("/recommendations", ASKED[0])
    shown = {name for name in figures(scene) if not name.endswith(("_created", "_bucket", "_sum"))}
    assert {name.removesuffix("_count") for name in shown} == described(ROOT / "docs" / "how-to" / "serve.md", "figure")
    health = scene.get("/healthz").json()
    assert (health["healthy"], health["version"], health["registry"], health["table"]) == (True, "1", "ok", "ok")


def test_every_example_of_the_page_is_answered(scene: Scene) -> None:
    page = (ROOT / "docs" / "how-to" / "serve.md").read_text("utf-8").partition("## As a web service")[2]
    section = page.partition("\n## ")[0]
    examples = re.findall(r"-d '(.*?)' \\\n  http://127.0.0.1:8000(/\w+)", section)
    assert len(examples) >= 3
    for body, path in examples:
        assert requests.post(scene.address + path, body.encode(), headers=JSON, timeout=60).ok


def test_the_log_names_versions_and_no_users(scene: Scene) -> None:
    name = "somebody-who-must-not-be-named"
    scene.get(f"/recommendations/{name}")
    scene.post("/recommendations", {"user_id": name, "k": 0})
    scene.post("/recommendations", {"user_id": name, "exclude_items": [name] * 3, "sing": name})
    log = scene.log.read_text()
    assert "models:/recsys/1 answers at http://127.0.0.1:" in log
    assert name not in log


def test_only_this_machine_is_listened_to(scene: Scene) -> None:
    assert Settings().serve.host == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):  # It would be answered if the server listened everywhere.
        socket.create_connection(("127.0.0.2", scene.settings.serve.port))


def test_a_server_that_cannot_start_says_why(scene: Scene, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    taken, free = f"serve.port={scene.settings.serve.port}", f"serve.port={free_port()}"
    for port, line in ((taken, "cannot listen on serve.host 127.0.0.1"), (free, "holds no models:/recsys@champion")):
        assert run_job(serve, [f"storage.root={tmp_path}", port]) == BAD_INPUT
        (printed,) = capsys.readouterr().err.strip().splitlines()
        assert line in printed

"""Who decided which version is champion, and why; and the job that people decide with."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs import registry as job
from recsys.cli import BAD_INPUT, DONE, run_job
from recsys.config import Settings
from recsys.contracts import StepId
from recsys.errors import RegistryError
from recsys.registry import decisions, versions
from recsys.registry.decisions import RegistryDecision, Standing
from recsys.registry.runs import GenerationRun
from recsys.registry.versions import Version
from recsys.serving import Served
from tests.registry.served import served_arrays

ARRAYS = served_arrays(["u1", "u2"], ["i1", "i2", "i3"])

NIGHT = RegistryDecision("ann", "lists look wrong; 'quotes' and 🛒")


@pytest.fixture
def three(registry: tuple[MlflowClient, Settings], open_run: Callable[..., GenerationRun]) -> list[Version]:
    client, settings = registry
    run, served = open_run(), Served.of_packed(ARRAYS)
    tags = versions.gate_tags("passed", "7", ["0.2 >= 0.1"], {"version": 0.2})
    return [versions.register(client, settings, run.run_id, served, StepId(0, 20 * n), tags) for n in (1, 2, 3)]


def test_the_champion_moves_forward_and_back_and_the_one_before_is_known(
    registry: tuple[MlflowClient, Settings], three: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, settings = registry
    name, (first, second, third) = settings.mlflow.model_name, three

    def now() -> tuple[str | None, str | None]:
        found = versions.champion(client, name), decisions.previous(client, name)
        return tuple(None if version is None else version.version for version in found)  # type: ignore[return-value]

    assert now() == (None, None)
    with pytest.raises(RegistryError, match="has had no champion before"):
        decisions.rollback(client, name, None, NIGHT)
    decisions.promote(client, first, NIGHT)
    assert now() == (first.version, None)
    for _ in range(2):  # A crash may have it repeated.
        decisions.promote(client, second, NIGHT)
        assert now() == (second.version, first.version)
    assert decisions.rollback(client, name, None, NIGHT).version == first.version
    assert now() == (first.version, second.version)
    assert decisions.rollback(client, name, third.version, NIGHT).version == third.version
    assert now() == (third.version, first.version)
    assert versions.resolve(client, f"models:/{name}@challenger").version == third.version
    with pytest.raises(RegistryError, match="99"):
        decisions.rollback(client, name, "99", NIGHT)
    tags = versions.resolve(client, f"models:/{name}/{first.version}").tags
    assert (tags["promoted.by"], tags["promoted.reason"]) == (tags["rolled_back.by"], tags["rolled_back.reason"])
    assert RegistryDecision(tags["promoted.by"], tags["promoted.reason"]) == NIGHT
    replaced = [decisions.replaced_by(versions.resolve(client, version.uri)) for version in three]
    assert replaced == [NIGHT, NIGHT, None]
    assert decisions.standing(client, name).aliases == {"champion": "3", "previous": "1", "challenger": "3"}

    moved: list[str] = []
    set_alias = client.set_registered_model_alias
    monkeypatch.setattr(
        client, "set_registered_model_alias", lambda *given: moved.append(given[1]) or set_alias(*given)
    )
    decisions.promote(client, second, NIGHT)
    decisions.rollback(client, name, None, NIGHT)
    assert moved == ["previous", "champion", "champion", "previous"], "who comes back always has an alias"


def test_a_hold_says_who_and_why_until_it_is_released(
    registry: tuple[MlflowClient, Settings], three: list[Version]
) -> None:
    client, settings = registry
    name = settings.mlflow.model_name
    assert decisions.standing(client, "another") == Standing({}, None)
    assert decisions.standing(client, name).hold is None
    decisions.hold(client, name, NIGHT)
    assert decisions.standing(client, name).hold == NIGHT
    for _ in range(2):
        decisions.release(client, name)
        assert decisions.standing(client, name).hold is None


def test_people_decide_on_the_command_line(
    registry: tuple[MlflowClient, Settings],
    three: list[Version],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    client, settings = registry
    name = settings.mlflow.model_name
    monkeypatch.setattr("getpass.getuser", lambda: "ann")

    def says(*words: str, code: int = DONE) -> str:
        overrides = [f"storage.root={settings.storage.root}", f"mlflow.model_name={name}"]
        assert run_job(job.registry, [*words, *overrides], options=job.OPTIONS) == code
        shown = capsys.readouterr()
        return shown.out if code == DONE else shown.err

    number = three[1].version
    assert f"models:/{name}/{number} is champion" in says("promote", "--version", number, "--reason", "spring")
    head, *rows = says("list").splitlines()
    assert head.split()[:3] == ["version", "aliases", "batch"]
    assert [row.split()[0] for row in rows] == [version.version for version in reversed(three)]
    assert rows[1].split()[1:] == ["champion", "0-40", "0.2", "passed", "0.2", ">=", "0.1"]
    card = says("show", "--version", number)
    assert "promoted.by: ann" in card
    assert "promoted.reason: spring" in card
    says("promote", "--version", three[2].version)
    assert f"models:/{name}/{number} is champion again" in says("rollback")
    says("hold", "--reason", "sale")
    assert decisions.standing(client, name).hold == RegistryDecision("ann", "sale")
    says("release")
    assert decisions.standing(client, name).hold is None
    for words in (["show"], ["promote"], ["promote", "--version", "99"], ["rollback", "--version", "x"]):
        line = says(*words, code=BAD_INPUT)
        assert line.startswith("error: ")
        assert line.count("\n") == 1
    assert run_job(job.registry, ["list", f"storage.root={tmp_path}"], options=job.OPTIONS) == BAD_INPUT
    assert not list(tmp_path.iterdir()), "no registry is made by looking for one"


def test_unity_catalog_takes_all_names_and_keys(
    registry: tuple[MlflowClient, Settings], open_run: Callable[..., GenerationRun]
) -> None:
    """It refuses these characters in keys of tags, and MLflow refuses dots in names of logged models."""
    client, settings = registry
    name = f"main.shop.{settings.mlflow.model_name}"
    settings = settings.model_copy(update={"mlflow": settings.mlflow.model_copy(update={"model_name": name})})
    run, served = open_run(), Served.of_packed(ARRAYS)
    tags = versions.gate_tags("passed", "7", ["0.2 >= 0.1"], {"version": 0.2})
    for n in (1, 2):
        made = versions.register(client, settings, run.run_id, served, StepId(0, n), tags)
        decisions.promote(client, made, NIGHT)
    decisions.rollback(client, name, "1", NIGHT)
    decisions.hold(client, name, NIGHT)
    found = [client.get_registered_model(name).tags, *(client.get_model_version(name, n).tags for n in ("1", "2"))]
    assert all(found)
    assert not [key for tags in found for key in tags if set(key) & set(".,-=/:")]

    read = versions.resolve(client, f"models:/{name}/1").tags
    assert read["rolled_back.by"] == "ann"
    assert read.items() >= tags.items()
    assert decisions.standing(client, name).hold == NIGHT
    decisions.release(client, name)
    assert decisions.standing(client, name) == Standing({"champion": "1", "previous": "2", "challenger": "2"}, None)

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from recsys.contracts import StepId
from recsys.errors import AlteredArtifactError, ConfigError, RegistryError
from recsys.registry import artifacts, retention, versions
from recsys.registry.artifacts import DIGEST
from recsys.registry.served import ServedVersion
from recsys.registry.versions import Version
from recsys.serving import Served
from recsys.serving.stored import stored
from recsys.serving.version import declared_axes
from recsys.version import VERSION
from tests.registry.served import served_arrays

ARRAYS = served_arrays(["ann", "bob"], ["tea", "milk", "rice"])


@pytest.fixture
def make(registry, open_run):
    """Registers a version for a batch."""
    client, settings = registry
    run = open_run()

    def register(batch: int, **tags: str) -> Version:
        return versions.register(client, settings, run.run_id, Served.of_packed(ARRAYS), StepId(0, batch), tags)

    register.run_id = run.run_id
    return register


def test_a_version_says_what_it_was_made_of(registry, make):
    client, settings = registry
    made = make(20, interaction_log_version="21", **versions.gate_tags("passed", "7", ["a", "b"], {"version": 0.25}))
    kept = client.get_model_version(made.name, made.version).tags
    assert kept == {
        "generation": "0",
        "batch_id": "20",
        "config_hash": settings.fingerprint(),
        "code_version": versions.code_version(),
        DIGEST: made.digest,
        "interaction_log_version": "21",
        "gate.verdict": "passed",
        "gate.against": "7",
        "gate.reasons": "a; b",
        "gate.version": "0.25",
    }
    assert made.step == StepId(0, 20)
    assert versions.resolve(client, f"models:/{made.name}@challenger") == made


def test_a_step_is_registered_once(registry, make):
    client, settings = registry
    first, second = make(20), make(40)
    assert make(20) == first
    assert make(40) == second
    assert [first.version, second.version] == ["1", "2"]
    assert len(client.search_model_versions(f"name='{settings.mlflow.model_name}'")) == 2


def test_an_epoch_does_not_take_the_versions_of_another(registry, make, open_run):
    client, settings = registry
    first = make(20)
    run = open_run(1)
    second = versions.register(client, settings, run.run_id, Served.of_packed(ARRAYS), StepId(1, 20), {})
    assert second.version != first.version
    assert versions.first(client, settings.mlflow.model_name, make.run_id) == first
    assert versions.first(client, settings.mlflow.model_name, run.run_id) == second


def test_the_first_version_of_a_run_stays_the_first(registry, make):
    client, settings = registry
    assert versions.first(client, settings.mlflow.model_name, make.run_id) is None
    first = make(20)
    for batch in (40, 60):
        make(batch)
    assert versions.first(client, settings.mlflow.model_name, make.run_id) == first


def test_the_arrays_come_back_as_they_were(make):
    made = make(20)
    loaded = artifacts.load_served(made.uri, made.digest).packed()
    assert loaded.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        assert loaded[name].dtype == values.dtype
        np.testing.assert_array_equal(loaded[name], values)


def test_a_version_without_the_arrays_of_its_kind_is_named(registry, open_run):
    client, settings = registry
    other = Served.of_packed({**ARRAYS, "kind": np.frombuffer(b"mixture", dtype=np.uint8)})
    made = versions.register(client, settings, open_run().run_id, other, StepId(0, 1), {})
    with pytest.raises(RegistryError, match=r"was not registered by this release: it has no array 'calibration'$"):
        artifacts.load_served(made.uri, made.digest)


def test_what_was_altered_is_not_loaded(registry, make, tmp_path):
    """Whatever file it is: one that was changed, and one that came or went."""
    client, _ = registry
    made = make(20)
    folder = artifacts.download(made.uri, made.digest, tmp_path)
    assert artifacts.digest_of(folder) == made.digest == client.get_model_version(made.name, made.version).tags[DIGEST]
    stored = artifact_of(client, made)
    code, arrays = stored / "pyfunc.py", stored / "artifacts" / "arrays.safetensors"
    changes = [
        lambda: code.write_text(code.read_text() + "\n"),
        lambda: arrays.write_bytes(arrays.read_bytes()[:-1] + b"?"),
        lambda: (stored / "artifacts" / "serving" / "more.py").write_text(""),
        lambda: (stored / "requirements.txt").unlink(),
    ]
    kept = {file: file.read_bytes() for file in stored.rglob("*") if file.is_file()}
    for number, change in enumerate(changes):
        change()
        with pytest.raises(AlteredArtifactError, match="/1 is not what was registered: .* rollback --version NUMBER"):
            artifacts.load_served(made.uri, made.digest)
        with pytest.raises(AlteredArtifactError):
            ServedVersion(made)
        for file in stored.rglob("*"):
            if file.is_file() and file not in kept:
                file.unlink()
        for file, content in kept.items():
            file.write_bytes(content)
        assert artifacts.load_served(made.uri, made.digest).kind, number


def artifact_of(client, version) -> Path:
    """Where the files of a version lie."""
    model_id = retention.model_id_of(client.get_model_version(version.name, version.version))
    return Path(client.get_logged_model(model_id).artifact_location.removeprefix("file://"))


def test_an_artifact_knows_how_many_users_and_items_it_serves(make, tmp_path):
    outline = artifacts.outline(artifacts.download(make(20).uri, None, tmp_path))
    assert (outline.users, outline.items) == (2, 3)
    assert {"user_factors", "item_factors"} <= outline.arrays


@pytest.mark.parametrize("users", [0, 510, 511, 3_000])
def test_users_are_counted_where_the_ids_are_stored_compressed(tmp_path, users):
    packed = served_arrays([f"u{number}" for number in range(users)], ["tea", "milk"])
    (tmp_path / "artifacts").mkdir()
    save_file(stored(packed, declared_axes("als")), tmp_path / "artifacts" / "arrays.safetensors")
    outline = artifacts.outline(tmp_path)
    assert (outline.users, outline.items) == (users, 2)


def test_an_artifact_brings_its_code_and_no_pickle(make, tmp_path):
    folder = artifacts.download(make(20).uri, None, tmp_path)
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert {"MLmodel", "pyfunc.py", "artifacts/arrays.safetensors", "requirements.txt"} <= files
    assert not [file for file in files if file.endswith(".pkl")]
    assert "recsys" not in re.sub(r'""".*?"""', "", (folder / "pyfunc.py").read_text(), flags=re.DOTALL)
    assert f"numpy=={np.__version__}" in (folder / "requirements.txt").read_text()


@pytest.mark.parametrize("uri", ["recsys", "models:/recsys", "models:/a/b/c", "runs:/1/model", "models:/recsys/latest"])
def test_a_uri_of_another_form_is_refused(registry, uri):
    with pytest.raises(ConfigError, match="names no model: write models:/NAME@ALIAS or models:/NAME/VERSION"):
        versions.resolve(registry[0], uri)


@pytest.mark.parametrize("what", ["{}@champion", "{}/99", "nobody@champion", "nobody/1"])
def test_what_the_registry_does_not_hold_is_said_in_one_line(registry, make, what):
    uri = "models:/" + what.format(make(20).name)
    with pytest.raises(RegistryError, match=f"the registry holds no {uri}"):
        versions.resolve(registry[0], uri)


def test_a_name_that_mlflow_refuses_is_one_line(registry, make):
    client, settings = registry
    odd = settings.model_copy(update={"mlflow": settings.mlflow.model_copy(update={"model_name": "a/b:c"})})
    with pytest.raises(RegistryError, match="cannot register a version of 'a/b:c'"):
        versions.register(client, odd, make.run_id, Served.of_packed(ARRAYS), StepId(0, 20), {})


def test_the_code_version_is_the_package_and_its_commit():
    assert re.fullmatch(rf"{re.escape(VERSION)}(\+[0-9a-f]{{7,}})?", versions.code_version())


def test_a_package_without_metadata_is_required_without_a_version():
    assert artifacts._requirement("no-such-package") == "no-such-package"
    assert artifacts._requirement("numpy").startswith("numpy==2.")

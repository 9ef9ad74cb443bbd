"""Retention of versions: what is in use stays, the rest goes with its artifact."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient

from recsys.contracts import StepId
from recsys.registry import decisions, retention, versions
from recsys.registry.versions import Version
from recsys.serving import Served
from tests.registry.served import BY_TEST, served_arrays

ARRAYS = served_arrays(["ann", "bob"], ["tea", "milk", "rice"])


def artifact_of(client: MlflowClient, version: Version) -> Path:
    model_id = retention.model_id_of(client.get_model_version(version.name, version.version))
    assert model_id is not None
    return Path(unquote(urlsplit(client.get_logged_model(model_id).artifact_location).path))


def test_what_is_in_use_stays(registry, open_run):
    client, settings = registry
    name = settings.mlflow.model_name
    runs = {(0, "a"): open_run(0, "a"), (1, "a"): open_run(1, "a"), (0, "b"): open_run(0, "b")}

    def make(generation: int, batch: int, stream: str = "a") -> Version:
        run_id = runs[generation, stream].run_id
        return versions.register(client, settings, run_id, Served.of_packed(ARRAYS), StepId(generation, batch), {})

    made = [make(0, batch) for batch in range(4)]
    made += [make(1, 4), make(0, 0, "b"), make(1, 5), make(1, 6), make(1, 7)]
    decisions.promote(client, made[1], BY_TEST)
    client.set_registered_model_alias(name, "previous", made[2].version)
    chosen = settings.model_copy(
        update={
            "maintain": settings.maintain.model_copy(update={"versions_kept": 2}),
            "recommend": settings.recommend.model_copy(update={"model": f"models:/{name}/{made[6].version}"}),
        }
    )
    assert not retention.unneeded(client, settings, "a", 1, [])
    assert retention.unneeded(client, chosen, "other", 1, []) == []
    assert retention.unneeded(client, chosen, "a", 1, [made[3].version]) == [made[0]]
    found = retention.unneeded(client, chosen, "a", 1, [])
    assert found == [made[0], made[3]]

    artifact = artifact_of(client, made[0])
    assert artifact.is_dir()
    assert retention.delete(client, made[0])
    assert not artifact.exists()
    client.set_registered_model_alias(name, "mine", made[3].version)
    assert not retention.delete(client, made[3]), "it got an alias after it was listed"
    assert artifact_of(client, made[3]).is_dir()
    assert retention.unneeded(client, chosen, "a", 1, []) == []

    # A deletion that ended before the version was gone is completed.
    client.delete_registered_model_alias(name, "mine")
    client.delete_logged_model(retention.model_id_of(client.get_model_version(name, made[3].version)))
    assert retention.delete(client, made[3])
    left = {str(found.version) for found in client.search_model_versions(f"name='{name}'")}
    assert left == {version.version for version in made} - {made[0].version, made[3].version}

"""Which registered versions a stream needs no more, and their deletion."""

import re
from collections.abc import Collection
from contextlib import suppress

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from recsys.config import Settings
from recsys.registry import versions
from recsys.registry.client import registry_errors
from recsys.registry.runs import runs_of
from recsys.registry.versions import Version

_LOGGED_MODEL = re.compile(r"models:/(m-\w+)")


def unneeded(
    client: MlflowClient, settings: Settings, stream_id: str, generation: int, in_use: Collection[str]
) -> list[Version]:
    """Versions that a stream has registered and that may go, oldest first.

    Kept are the newest `maintain.versions_kept`, those with an alias, the first of the current generation (the stream
    compares with it), and those that are in use. Versions of other streams and of other origin are never listed.

    Args:
        client: From `connect`.
        settings: All settings.
        stream_id: Id of the stream, as its runs have it.
        generation: The current generation.
        in_use: Numbers of versions that something outside the registry refers to.

    Raises:
        RegistryError: MLflow failed.
    """
    name = settings.mlflow.model_name
    runs = runs_of(client, settings, stream_id)
    by_generation = {number: versions.of_run(client, name, run) for number, run in runs.items()}
    first = by_generation.get(generation, [])[-1:]
    named = [settings.recommend.model, *(arm.model for arm in settings.experiment.arms.values())]
    kept = {*(_chosen(settings, uri) for uri in named), *(version.version for version in first), *in_use}
    own = sorted((version for some in by_generation.values() for version in some), key=lambda one: int(one.version))
    return [
        version
        for version in own[: -settings.maintain.versions_kept]
        if version.version not in kept and not _aliases(client, version)
    ]


def delete(client: MlflowClient, version: Version) -> bool:
    """Delete a version with its artifact; returns False if it has got an alias meanwhile, and stays.

    The version goes last, so that a deletion that was interrupted is completed by the next one.

    Raises:
        RegistryError: MLflow failed.
    """
    with registry_errors(f"cannot delete {version.uri}"):
        found = client.get_model_version(version.name, version.version)
        if found.aliases:
            return False
        model_id = model_id_of(found)
        if model_id is not None:
            _delete_model(client, model_id)
        client.delete_model_version(version.name, version.version)
    return True


def model_id_of(found: ModelVersion) -> str | None:
    """Id of the logged model of a version. MLflow's database keeps it in the source only."""
    source = _LOGGED_MODEL.fullmatch(found.source or "")
    return found.model_id or (source[1] if source else None)


def _delete_model(client: MlflowClient, model_id: str) -> None:
    try:
        location = client.get_logged_model(model_id).artifact_location
    except MlflowException as error:
        if error.error_code == versions.MISSING:
            return
        raise
    # MLflow itself only marks a model as deleted, and its files stay; a platform that stores them removes them.
    with suppress(NotImplementedError):
        get_artifact_repository(location).delete_artifacts()  # type: ignore[no-untyped-call]
    client.delete_logged_model(model_id)


def _aliases(client: MlflowClient, version: Version) -> list[str]:
    with registry_errors(f"cannot look up {version.uri}"):
        return list(client.get_model_version(version.name, version.version).aliases)


def _chosen(settings: Settings, uri: str | None) -> str | None:
    """Number of the version that a setting names, if it is one of this model."""
    if uri is None:
        return None
    found = versions.parse(uri)
    return found["version"] if found["name"] == settings.mlflow.model_name else None

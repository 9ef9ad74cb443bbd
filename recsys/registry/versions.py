"""Registered model versions: register and find."""

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from recsys.config import Settings
from recsys.contracts import BATCH, GENERATION, StepId
from recsys.errors import ConfigError, RegistryError
from recsys.registry import artifacts
from recsys.registry.client import connect, registry_errors
from recsys.registry.tags import read, stored
from recsys.serving import Served
from recsys.storage import mlflow_database
from recsys.version import VERSION

CHAMPION = "champion"
CHALLENGER = "challenger"
# Tags of the gate: its verdict, why, and the version that was champion during the trial; and how the watch over the
# version has ended, once it was champion itself.
VERDICT, REASONS, AGAINST, WATCHED = "gate.verdict", "gate.reasons", "gate.against", "gate.watched"
_REASONS_AT_MOST = 1_000  # Characters: registries bound the length of a tag.

_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
MISSING = "RESOURCE_DOES_NOT_EXIST"
_EXISTS = ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS")


@dataclass(frozen=True)
class Version:
    """A registered version. Unlike an alias, it never points at anything else."""

    name: str
    version: str
    run_id: str
    tags: dict[str, str]

    @property
    def uri(self) -> str:
        """`models:/NAME/VERSION`."""
        return f"models:/{self.name}/{self.version}"

    @property
    def digest(self) -> str | None:
        """SHA-256 of its artifact, see `artifacts.digest_of`; None for a version that was registered without it."""
        return self.tags.get(artifacts.DIGEST)

    @property
    def step(self) -> StepId | None:
        """The step of its model; None for a version that this project did not register."""
        if GENERATION not in self.tags or BATCH not in self.tags:
            return None
        return StepId(int(self.tags[GENERATION]), int(self.tags[BATCH]))


def register(
    client: MlflowClient,
    settings: Settings,
    run_id: str,
    served: Served,
    step: StepId,
    tags: Mapping[str, str],
) -> Version:
    """Register a version of the model, once per run and step, and make it the challenger.

    Args:
        client: from `connect`.
        settings: name of the model, and `recommend` for the defaults of the served model.
        run_id: run that the version belongs to.
        served: the model; its arrays are listed in `pyfunc`.
        step: the last batch that the model has learned.
        tags: additional tags, such as `interaction_log_version`.

    Returns:
        The version; the existing one if the step was registered before.

    Raises:
        RegistryError: MLflow failed. Calling again is safe.
    """
    name = settings.mlflow.model_name
    with registry_errors(f"cannot register a version of '{name}'"):
        version = _find(client, name, run_id, step)
        if version is None:
            model_id, digest = artifacts.upload(client, settings, run_id, served, step)
            every_tag = {
                GENERATION: str(step.generation),
                BATCH: str(step.batch_id),
                "config_hash": settings.fingerprint(),
                "code_version": code_version(),
                artifacts.DIGEST: digest,
                **tags,
            }
            _make_model(client, name)
            made = client.create_model_version(
                name, f"models:/{model_id}", run_id, tags=stored(name, every_tag), model_id=model_id
            )
            version = Version(name, str(made.version), run_id, every_tag)
        client.set_registered_model_alias(name, CHALLENGER, version.version)
    return version


def gate_tags(
    verdict: str, against: str | None, reasons: Sequence[str], figures: Mapping[str, float]
) -> dict[str, str]:
    """The gate's verdict as tags of a version; the verdict is the last, so that with it all others are there."""
    return {
        **({} if against is None else {AGAINST: against}),
        REASONS: "; ".join(reasons)[:_REASONS_AT_MOST],
        **{f"gate.{name}": f"{value:.6g}" for name, value in figures.items()},
        VERDICT: verdict,
    }


def tag(client: MlflowClient, version: Version, tags: Mapping[str, str]) -> Version:
    """Tag a version; returns it with the tags.

    Raises:
        RegistryError: MLflow failed. Calling again is safe.
    """
    with registry_errors(f"cannot tag {version.uri}"):
        for key, value in stored(version.name, tags).items():
            client.set_model_version_tag(version.name, version.version, key, value)
    return replace(version, tags={**version.tags, **tags})


def champion(client: MlflowClient, name: str) -> Version | None:
    """The champion, or None if there is none yet.

    Raises:
        RegistryError: MLflow failed.
    """
    return by_alias(client, name, CHAMPION)


def by_alias(client: MlflowClient, name: str, alias: str) -> Version | None:
    """The version that an alias points at, or None if there is none.

    Raises:
        RegistryError: MLflow failed.
    """
    with registry_errors(f"cannot look up models:/{name}@{alias}"):
        model = find_model(client, name)
        aliases = {} if model is None else model.aliases
        return _get(client, name, str(aliases[alias])) if alias in aliases else None


def find_model(client: MlflowClient, name: str) -> RegisteredModel | None:
    """A registered model with its aliases and tags, or None if there is none of that name; MLflow's errors pass."""
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == MISSING:
            return None
        raise


def find(client: MlflowClient, name: str, number: str) -> Version | None:
    """A version by its number; None if there is none.

    Raises:
        RegistryError: MLflow failed.
    """
    with registry_errors(f"cannot look up models:/{name}/{number}"):
        return _get(client, name, number)


def first(client: MlflowClient, name: str, run_id: str) -> Version | None:
    """The earliest version that a run registered, or None if there is none yet.

    Raises:
        RegistryError: MLflow failed.
    """
    with registry_errors(f"cannot list the versions of '{name}'"):
        return next((_version(client, found) for found in reversed(_of_run(client, name, run_id))), None)


def of_run(client: MlflowClient, name: str, run_id: str) -> list[Version]:
    """The versions that a run registered, newest first.

    Raises:
        RegistryError: MLflow failed.
    """
    with registry_errors(f"cannot list the versions of '{name}'"):
        return [_version(client, found) for found in _of_run(client, name, run_id)]


def all_versions(client: MlflowClient, name: str) -> list[Version]:
    """All versions of a model, newest first.

    Raises:
        RegistryError: MLflow failed.
    """
    with registry_errors(f"cannot list the versions of '{name}'"):
        found = [_version(client, one) for one in _search(client, f"name='{name}'")]
    return sorted(found, key=lambda version: -int(version.version))


def champion_uri(name: str) -> str:
    """The URI of the champion of a registered model."""
    return f"models:/{name}@{CHAMPION}"


def scored_uri(settings: Settings, model: str | None = None) -> str:
    """The URI that batch scoring uses: `model`, such as that of an arm, else `recommend.model`, else the champion's."""
    return model or settings.recommend.model or champion_uri(settings.mlflow.model_name)


def parse(uri: str) -> dict[str, Any]:
    """Parts of a model's URI: name, and alias or version.

    Raises:
        ConfigError: the URI has neither form.
    """
    parts = _URI.fullmatch(uri)
    if parts is None:
        raise ConfigError(f"'{uri}' names no model: write models:/NAME@ALIAS or models:/NAME/VERSION")
    return parts.groupdict()


def resolve(client: MlflowClient, uri: str) -> Version:
    """The version that `models:/NAME@ALIAS` or `models:/NAME/VERSION` currently points at.

    Raises:
        ConfigError: the URI has neither form.
        RegistryError: there is no such version, or MLflow failed.
    """
    parts = parse(uri)
    if parts["alias"]:
        version = by_alias(client, parts["name"], parts["alias"])
    else:
        version = find(client, parts["name"], parts["version"])
    if version is None:
        raise _no_version(uri)
    return version


def chosen(settings: Settings, uri: str) -> Version:
    """The version that a URI points at, in the registry of the settings, which is not made if it is missing.

    Raises:
        ConfigError: the URI names no model.
        RegistryError: there is no such version, or MLflow failed.
    """
    return resolve(connect_to_existing(settings, uri), uri)


def connect_to_existing(settings: Settings, uri: str) -> MlflowClient:
    """Connect to the registry of the settings, which is not made if it is missing.

    Args:
        settings: all settings.
        uri: what is looked for, for the message.

    Raises:
        RegistryError: there is no registry, or it does not answer.
    """
    if settings.mlflow.tracking_uri is None and not mlflow_database(settings.storage.root).exists():
        raise _no_version(uri)  # Looked up in MLflow, this would first make an empty database.
    return connect(settings)


def _no_version(uri: str) -> RegistryError:
    """What to raise where a version is asked for that is not there."""
    return RegistryError(
        f"the registry holds no {uri}: run jobs/stream_update.py, or jobs/backfill.py on old events, to register one"
    )


@cache
def code_version() -> str:
    """The version of the package and, in a checkout, its commit: `0.1.0+1a2b3c4`."""
    checkout = Path(__file__).parents[2]
    command = ["git", "-C", str(checkout), "rev-parse", "--show-toplevel", "--short", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return VERSION
    # An installed package may be inside the checkout of another project.
    return f"{VERSION}+{answer[1]}" if Path(answer[0]) == checkout.resolve() else VERSION


def _make_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code not in _EXISTS:
            raise


def _find(client: MlflowClient, name: str, run_id: str, step: StepId) -> Version | None:
    for found in _of_run(client, name, run_id):
        version = _version(client, found)
        if version.step == step:
            return version
        if version.step is not None and version.step < step:
            return None
    return None


def _of_run(client: MlflowClient, name: str, run_id: str) -> list[ModelVersion]:
    """Versions of a run, newest first. Unity Catalog can filter by run, but not by tag or by two conditions."""
    found = _search(client, f"run_id='{run_id}'")
    return sorted((one for one in found if one.name == name), key=lambda one: -int(one.version))


def _search(client: MlflowClient, condition: str) -> Iterator[ModelVersion]:
    token = None
    while page := client.search_model_versions(condition, page_token=token):
        yield from page
        token = page.token
        if not token:
            return


def _get(client: MlflowClient, name: str, number: str) -> Version | None:
    try:
        found = client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code == MISSING:
            return None
        raise
    return _version(client, found)


def _version(client: MlflowClient, found: ModelVersion) -> Version:
    """Convert a search result. Unity Catalog lists versions without their tags, so they are fetched."""
    whole = found if found.tags else client.get_model_version(found.name, found.version)
    return Version(whole.name, str(whole.version), whole.run_id or "", read(whole.name, whole.tags))

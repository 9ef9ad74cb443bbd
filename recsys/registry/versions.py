"""Registered model versions: register, find, promote, load."""

import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version as installed_version
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from recsys import serving
from recsys.config import Settings
from recsys.contracts import BATCH, GENERATION, StepId
from recsys.errors import ConfigError, RegistryError
from recsys.registry.client import registry_errors
from recsys.serving import Served

CHAMPION = "champion"
CHALLENGER = "challenger"
ARRAYS_FILE = "arrays.safetensors"

_SERVED_CODE = Path(__file__).with_name("pyfunc.py")
# Travels with every version, so that it always scores as it did when it was evaluated.
_SERVING = Path(serving.__file__).parent
_SERVED_PACKAGES = ("mlflow", "numpy", "pandas", "safetensors")
_SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            ColSpec(DataType.string, "user_id"),
            ColSpec(DataType.long, "k", required=False),
            ColSpec(DataType.boolean, "exclude_seen", required=False),
            ColSpec(Array(DataType.string), "candidates", required=False),
        ]
    ),
    outputs=Schema(
        [
            ColSpec(DataType.string, "user_id"),
            ColSpec(Array(DataType.string), "item_ids"),
            ColSpec(Array(DataType.double), "scores"),
        ]
    ),
)
_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
_MISSING = "RESOURCE_DOES_NOT_EXIST"
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
        tags: additional tags, such as `gate_tags` and `interaction_log_version`.

    Returns:
        The version; the existing one if the step was registered before.

    Raises:
        RegistryError: MLflow failed. Calling again is safe.
    """
    name = settings.mlflow.model_name
    with registry_errors(f"cannot register a version of '{name}'"):
        version = _find(client, name, run_id, step)
        if version is None:
            every_tag = {
                GENERATION: str(step.generation),
                BATCH: str(step.batch_id),
                "config_hash": settings.fingerprint(),
                "code_version": code_version(),
                **tags,
            }
            model_id = _log_model(client, settings, run_id, served, step)
            _make_model(client, name)
            made = client.create_model_version(name, f"models:/{model_id}", run_id, tags=every_tag, model_id=model_id)
            version = Version(name, str(made.version), run_id, every_tag)
        client.set_registered_model_alias(name, CHALLENGER, version.version)
    return version


def gate_tags(passed: bool, reasons: Sequence[str], figures: Mapping[str, float]) -> dict[str, str]:
    """The gate's verdict as tags of a version."""
    return {
        "gate.passed": str(passed).lower(),
        "gate.reasons": "; ".join(reasons),
        **{f"gate.{name}": f"{value:.6g}" for name, value in figures.items()},
    }


def promote(client: MlflowClient, version: Version) -> None:
    """Make a version the champion. Scoring and serving depend on this alias only, so it is set last.

    Raises:
        RegistryError: MLflow failed. Calling again is safe.
    """
    with registry_errors(f"cannot make {version.uri} the champion"):
        client.set_registered_model_alias(version.name, CHAMPION, version.version)


def rollback(client: MlflowClient, name: str, version: str) -> Version:
    """Make an earlier version the champion again.

    Raises:
        RegistryError: there is no such version, or MLflow failed.
    """
    earlier = resolve(client, f"models:/{name}/{version}")
    promote(client, earlier)
    return earlier


def champion(client: MlflowClient, name: str) -> Version | None:
    """The champion, or None if there is none yet.

    Raises:
        RegistryError: MLflow failed.
    """
    return _by_alias(client, name, CHAMPION)


def first(client: MlflowClient, name: str, run_id: str) -> Version | None:
    """The earliest version that a run registered, or None if there is none yet.

    Raises:
        RegistryError: MLflow failed.
    """
    with registry_errors(f"cannot list the versions of '{name}'"):
        return next((_version(client, found) for found in reversed(_of_run(client, name, run_id))), None)


def resolve(client: MlflowClient, uri: str) -> Version:
    """The version that `models:/NAME@ALIAS` or `models:/NAME/VERSION` currently points at.

    Raises:
        ConfigError: the URI has neither form.
        RegistryError: there is no such version, or MLflow failed.
    """
    parts = _URI.fullmatch(uri)
    if parts is None:
        raise ConfigError(f"'{uri}' names no model: write models:/NAME@ALIAS or models:/NAME/VERSION")
    if parts["alias"]:
        version = _by_alias(client, parts["name"], parts["alias"])
    else:
        with registry_errors(f"cannot look up {uri}"):
            version = _get(client, parts["name"], parts["version"])
    if version is None:
        raise no_version(uri)
    return version


def no_version(uri: str) -> RegistryError:
    """What to raise where a version is asked for that is not there."""
    return RegistryError(
        f"the registry holds no {uri}: run jobs/stream_update.py, or jobs/backfill.py on old events, to register one"
    )


def download(version: Version, folder: Path) -> Path:
    """Download the artifact of a version.

    Args:
        version: the version.
        folder: an empty folder for the artifact.

    Returns:
        The folder that MLflow loads as a model.

    Raises:
        RegistryError: MLflow failed.
    """
    with registry_errors(f"cannot download {version.uri}"):
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=version.uri, dst_path=str(folder)))


def load_served(version: Version) -> Served:
    """What a version serves, as it was registered, read without unpickling.

    Raises:
        RegistryError: MLflow failed, or the version holds something else.
    """
    with tempfile.TemporaryDirectory() as folder, registry_errors(f"cannot load {version.uri}"):
        uri = f"{version.uri}/artifacts/{ARRAYS_FILE}"
        packed = load_file(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder))
        try:
            return Served.of_packed(packed)
        except KeyError as error:
            raise RegistryError(f"{version.uri} was not registered by this release: it has no array {error}") from error


def count_users(artifact: Path) -> int:
    """Number of users of a downloaded artifact, without reading its arrays.

    Raises:
        RegistryError: the artifact is not one of this project.
    """
    try:
        with safe_open(artifact / "artifacts" / ARRAYS_FILE, framework="np") as arrays:
            offsets: int = arrays.get_slice("user_ids_offsets").get_shape()[0]
    except (OSError, SafetensorError) as error:
        raise RegistryError(
            f"the registered model holds no {ARRAYS_FILE} with users, so it was not made by this project: set "
            "recommend.model to a version that the stream has registered"
        ) from error
    return offsets - 1


@cache
def code_version() -> str:
    """The version of the package and, in a checkout, its commit: `0.1.0+1a2b3c4`."""
    package = installed_version("recsys-stream")
    checkout = Path(__file__).parents[2]
    command = ["git", "-C", str(checkout), "rev-parse", "--show-toplevel", "--short", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return package
    # An installed package may be inside the checkout of another project.
    return f"{package}+{answer[1]}" if Path(answer[0]) == checkout.resolve() else package


def _log_model(
    client: MlflowClient,
    settings: Settings,
    run_id: str,
    served: Served,
    step: StepId,
) -> str:
    """Upload the artifact and return its id.

    Not with `mlflow.pyfunc.log_model`, which copies the history of all metrics of the run: it grows with the stream.
    """
    experiment = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment, f"{settings.mlflow.model_name}-{step}", run_id)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, ARRAYS_FILE)
        save_file(served.packed(), file)
        artifact, code = Path(folder, "model"), Path(folder, "serving")
        shutil.copytree(_SERVING, code, ignore=shutil.ignore_patterns("__pycache__"))
        with warnings.catch_warnings():
            # MLflow would run an example through the model at every registration; the signature says the same.
            warnings.filterwarnings("ignore", message=".*input example")
            mlflow.pyfunc.save_model(
                path=artifact,
                mlflow_model=Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id),
                python_model=str(_SERVED_CODE),
                artifacts={"arrays": str(file), "serving": str(code)},
                signature=_SIGNATURE,
                pip_requirements=[f"{package}=={installed_version(package)}" for package in _SERVED_PACKAGES],
                model_config={"k": settings.recommend.k, "exclude_seen": settings.recommend.exclude_seen},
            )
        client.log_model_artifacts(logged.model_id, str(artifact))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=step.batch_id)])
    return str(logged.model_id)


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

    def pages() -> Iterator[ModelVersion]:
        token = None
        while page := client.search_model_versions(f"run_id='{run_id}'", page_token=token):
            yield from page
            token = page.token
            if not token:
                return

    return sorted((found for found in pages() if found.name == name), key=lambda found: -int(found.version))


def _by_alias(client: MlflowClient, name: str, alias: str) -> Version | None:
    with registry_errors(f"cannot look up models:/{name}@{alias}"):
        try:
            aliases = client.get_registered_model(name).aliases
        except MlflowException as error:
            if error.error_code == _MISSING:
                return None
            raise
        return _get(client, name, str(aliases[alias])) if alias in aliases else None


def _get(client: MlflowClient, name: str, number: str) -> Version | None:
    try:
        found = client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code == _MISSING:
            return None
        raise
    return _version(client, found)


def _version(client: MlflowClient, found: ModelVersion) -> Version:
    """Convert a search result. Unity Catalog lists versions without their tags, so they are fetched."""
    whole = found if found.tags else client.get_model_version(found.name, found.version)
    return Version(whole.name, str(whole.version), whole.run_id or "", dict(whole.tags))

"""The artifact of a version: upload, download, check, load."""

import hashlib
import json
import re
import tempfile
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from importlib.resources import files
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.errors import AlteredArtifactError, RegistryError
from recsys.registry.client import registry_errors
from recsys.registry.signature import EXAMPLE_INFO, SIGNATURE, metadata, write_example
from recsys.serving import Served
from recsys.serving.stored import ARRAYS_FILE, FORMS, restored, stored
from recsys.serving.version import absent_arrays, declared_axes

# Tag of a logged model and of its version.
DIGEST = "artifact_sha256"
# MLflow adds it to what it downloads.
_ADDED = "registered_model_meta"
# What travels with every version, so that it always scores as it did when it was evaluated.
_SERVED_CODE, _SERVING = "pyfunc.py", "serving"
_NOT_IN_NAMES = r"""[/:.%"']"""
_SERVED_PACKAGES = ("mlflow", "numba", "numpy", "pandas", "pyarrow")


def upload(
    client: MlflowClient,
    settings: Settings,
    run_id: str,
    served: Served,
    step: StepId,
) -> tuple[str, str]:
    """Upload the artifact of a version, unless that was done before a crash; MLflow's errors pass.

    Args:
        client: from `connect`.
        settings: name of the model, and `recommend` for the defaults of the served model.
        run_id: run that the artifact belongs to.
        served: the model; its arrays are listed in `pyfunc`.
        step: the last batch that the model has learned.

    Returns:
        The id of the logged model, and the SHA-256 of the artifact, see `digest_of`.
    """
    # Not with `mlflow.pyfunc.log_model`, which copies the history of all metrics of the run: it grows with the stream.
    experiment = client.get_run(run_id).info.experiment_id
    # MLflow refuses dots in the name of a logged model, and that of a model in Unity Catalog has two.
    name = f"{re.sub(_NOT_IN_NAMES, '-', settings.mlflow.model_name)}-{step}"
    uploaded = client.search_logged_models([experiment], f"source_run_id = '{run_id}' AND name = '{name}'")
    for model in uploaded:
        if model.status == LoggedModelStatus.READY and DIGEST in model.tags:
            return str(model.model_id), str(model.tags[DIGEST])
    logged = client.create_logged_model(experiment, name, run_id)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, ARRAYS_FILE)
        save_file(stored(served.packed(), declared_axes(served.kind)), file)
        artifact = Path(folder, "model")
        _copy_served_code(Path(folder))
        with warnings.catch_warnings():
            # It is written below.
            warnings.filterwarnings("ignore", message=".*input example")
            mlflow.pyfunc.save_model(
                path=artifact,
                mlflow_model=Model(
                    artifact_path=logged.artifact_location,
                    run_id=run_id,
                    model_id=logged.model_id,
                    saved_input_example_info=EXAMPLE_INFO,
                    metadata=metadata(served.kind),
                ),
                python_model=str(Path(folder, _SERVED_CODE)),
                artifacts={"arrays": str(file), "serving": str(Path(folder, _SERVING))},
                signature=SIGNATURE,
                pip_requirements=[*map(_requirement, _SERVED_PACKAGES)],
                model_config={
                    "k": settings.recommend.k,
                    "exclude_seen": settings.recommend.exclude_seen,
                    "model_name": settings.mlflow.model_name,
                    "model_id": str(logged.model_id),
                    "generation": step.generation,
                    "batch_id": step.batch_id,
                },
            )
        write_example(artifact, served.user_ids, served.item_ids)
        digest = digest_of(artifact)
        client.set_logged_model_tags(logged.model_id, {DIGEST: digest})
        client.log_model_artifacts(logged.model_id, str(artifact))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=step.batch_id)])
    return str(logged.model_id), digest


def _copy_served_code(folder: Path) -> None:
    """Copy the code of a version into a folder, also where the package is in a zip file that Spark was given."""
    registry, serving = files("recsys.registry"), files("recsys.serving")
    (folder / _SERVED_CODE).write_bytes(registry.joinpath(_SERVED_CODE).read_bytes())
    (folder / _SERVING).mkdir()
    for source in serving.iterdir():
        if source.is_file():
            (folder / _SERVING / source.name).write_bytes(source.read_bytes())


def _requirement(package: str) -> str:
    """The installed version of a package; any, where it does not say which it is, as parts of some clusters do."""
    try:
        return f"{package}=={installed_version(package)}"
    except PackageNotFoundError:
        return package


def digest_of(artifact: Path) -> str:
    """SHA-256 over the names and contents of all files of an artifact: its arrays, and the code that it runs."""
    digest = hashlib.sha256()
    for file in sorted(file for file in artifact.rglob("*") if file.is_file() and file.name != _ADDED):
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        digest.update(f"{file.relative_to(artifact).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def download(uri: str, digest: str | None, folder: Path) -> Path:
    """Download the artifact of a version, and check that it is what was registered, before anything of it runs.

    Args:
        uri: `models:/NAME/VERSION`.
        digest: the tag `DIGEST` of the version; None for one that was registered without it.
        folder: an empty folder for the artifact.

    Returns:
        The folder that MLflow loads as a model.

    Raises:
        AlteredArtifactError: it is not what was registered.
        RegistryError: MLflow failed.
    """
    with registry_errors(f"cannot download {uri}"):
        artifact = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    if digest is not None and digest_of(artifact) != digest:
        raise AlteredArtifactError(
            f"{uri} is not what was registered: the SHA-256 of its files is not that of its tag {DIGEST}; find out who "
            "has changed it, and make another version champion (jobs/registry.py rollback --version NUMBER)"
        )
    return artifact


def load_served(uri: str, digest: str | None) -> Served:
    """What a version serves, as it was registered, read without unpickling.

    Args:
        uri: `models:/NAME/VERSION`.
        digest: see `download`.

    Raises:
        AlteredArtifactError: it is not what was registered.
        RegistryError: MLflow failed, or the version holds something else.
    """
    with tempfile.TemporaryDirectory() as folder:
        artifact = download(uri, digest, Path(folder))
        try:
            served = Served.of_packed(restored(load_file(artifact / "artifacts" / ARRAYS_FILE)))
            absent = absent_arrays(served.kind, served.arrays)
        except (OSError, SafetensorError) as error:
            raise RegistryError(
                f"{uri} is damaged ({ARRAYS_FILE}: {error}): restore its artifact, or choose another champion with "
                "jobs/registry.py"
            ) from error
        except KeyError as error:
            raise RegistryError(f"{uri} was not registered by this release: it has no array {error}") from error
        if absent:
            raise RegistryError(f"{uri} was not registered by this release: it has no array '{absent[0]}'")
        return served


@dataclass(frozen=True)
class Outline:
    """What an artifact holds, told without reading its arrays.

    Attributes:
        users, items: numbers of them.
        pairs: number of the items that users have interacted with; 0 for a version that carries no history.
        arrays: names of the arrays.
    """

    users: int
    items: int
    pairs: int
    arrays: frozenset[str]


def outline(artifact: Path) -> Outline:
    """The outline of a downloaded artifact.

    Raises:
        RegistryError: the artifact is not one of this project.
    """
    try:
        with safe_open(artifact / "artifacts" / ARRAYS_FILE, framework="np") as arrays:
            names = frozenset(arrays.keys())
            # An array that is stored compressed is as long as its bytes; its own shape is told beside it.
            forms = json.loads(arrays.get_tensor(FORMS).tobytes()) if FORMS in names else {}
            user_offsets, item_offsets, pairs = (
                int((forms[name]["shape"] if name in forms else arrays.get_slice(name).get_shape())[0])
                for name in ("user_ids_offsets", "item_ids_offsets", "seen_items")
            )
    except (OSError, SafetensorError) as error:
        raise RegistryError(
            f"the registered model holds no {ARRAYS_FILE} with users, so it was not made by this project: set "
            "recommend.model to a version that the stream has registered"
        ) from error
    return Outline(user_offsets - 1, item_offsets - 1, pairs, names)

"""The artifact of a version: upload, download, load."""

import shutil
import tempfile
import warnings
from importlib.metadata import version as installed_version
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from recsys import serving
from recsys.config import Settings
from recsys.contracts import StepId
from recsys.errors import RegistryError
from recsys.registry.client import registry_errors
from recsys.registry.signature import EXAMPLE_INFO, SIGNATURE, metadata, write_example
from recsys.serving import Served
from recsys.serving.stored import restored, stored
from recsys.serving.version import absent_arrays, declared_axes

_ARRAYS_FILE = "arrays.safetensors"
_SERVED_CODE = Path(__file__).with_name("pyfunc.py")
# Travels with every version, so that it always scores as it did when it was evaluated.
_SERVING = Path(serving.__file__).parent
_SERVED_PACKAGES = ("mlflow", "numba", "numpy", "pandas", "safetensors")


def upload(
    client: MlflowClient,
    settings: Settings,
    run_id: str,
    served: Served,
    step: StepId,
) -> str:
    """Upload the artifact of a version, unless that was done before a crash; MLflow's errors pass.

    Args:
        client: from `connect`.
        settings: name of the model, and `recommend` for the defaults of the served model.
        run_id: run that the artifact belongs to.
        served: the model; its arrays are listed in `pyfunc`.
        step: the last batch that the model has learned.

    Returns:
        The id of the logged model.
    """
    # Not with `mlflow.pyfunc.log_model`, which copies the history of all metrics of the run: it grows with the stream.
    experiment = client.get_run(run_id).info.experiment_id
    name = f"{settings.mlflow.model_name}-{step}"
    uploaded = client.search_logged_models([experiment], f"source_run_id = '{run_id}' AND name = '{name}'")
    for model in uploaded:
        if model.status == LoggedModelStatus.READY:
            return str(model.model_id)
    logged = client.create_logged_model(experiment, name, run_id)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, _ARRAYS_FILE)
        save_file(stored(served.packed(), declared_axes(served.kind)), file)
        artifact, code = Path(folder, "model"), Path(folder, "serving")
        shutil.copytree(_SERVING, code, ignore=shutil.ignore_patterns("__pycache__"))
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
                python_model=str(_SERVED_CODE),
                artifacts={"arrays": str(file), "serving": str(code)},
                signature=SIGNATURE,
                pip_requirements=[f"{package}=={installed_version(package)}" for package in _SERVED_PACKAGES],
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
        client.log_model_artifacts(logged.model_id, str(artifact))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=step.batch_id)])
    return str(logged.model_id)


def download(uri: str, folder: Path) -> Path:
    """Download the artifact of a version.

    Args:
        uri: `models:/NAME/VERSION`.
        folder: an empty folder for the artifact.

    Returns:
        The folder that MLflow loads as a model.

    Raises:
        RegistryError: MLflow failed.
    """
    with registry_errors(f"cannot download {uri}"):
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))


def load_served(uri: str) -> Served:
    """What a version serves, as it was registered, read without unpickling.

    Raises:
        RegistryError: MLflow failed, or the version holds something else.
    """
    with tempfile.TemporaryDirectory() as folder, registry_errors(f"cannot load {uri}"):
        arrays = f"{uri}/artifacts/{_ARRAYS_FILE}"
        file = mlflow.artifacts.download_artifacts(artifact_uri=arrays, dst_path=folder)
        try:
            kept = load_file(file)
        except SafetensorError as error:
            raise RegistryError(
                f"{uri} is damaged ({_ARRAYS_FILE}: {error}): restore its artifact, or choose another champion with "
                "jobs/registry.py"
            ) from error
        try:
            served = Served.of_packed(restored(kept))
            absent = absent_arrays(served.kind, served.arrays)
        except KeyError as error:
            raise RegistryError(f"{uri} was not registered by this release: it has no array {error}") from error
        if absent:
            raise RegistryError(f"{uri} was not registered by this release: it has no array '{absent[0]}'")
        return served


def count_users(artifact: Path) -> int:
    """Number of users of a downloaded artifact, without reading its arrays.

    Raises:
        RegistryError: the artifact is not one of this project.
    """
    try:
        with safe_open(artifact / "artifacts" / _ARRAYS_FILE, framework="np") as arrays:
            offsets: int = arrays.get_slice("user_ids_offsets").get_shape()[0]
    except (OSError, SafetensorError) as error:
        raise RegistryError(
            f"the registered model holds no {_ARRAYS_FILE} with users, so it was not made by this project: set "
            "recommend.model to a version that the stream has registered"
        ) from error
    return offsets - 1

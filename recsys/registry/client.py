"""The connection to MLflow, and what its failures look like to the rest of the project."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import create_engine

from recsys.config import Settings
from recsys.errors import RegistryDownError, RegistryError
from recsys.storage import mlflow_artifacts

_ENVIRONMENT = {
    # With MLflow's own defaults one call to a dead server takes four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # Our artifacts hold no pickle; whatever else is registered under the name is refused.
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


@contextmanager
def registry_errors(doing: str) -> Iterator[None]:
    """Turn any failure of MLflow inside the block into one line, without credentials.

    Args:
        doing: what failed, first words of the line.

    Raises:
        RegistryError: MLflow refused what was asked of it, or an address names what cannot be.
        RegistryDownError: anything else failed. Artifact stores raise the errors of their own libraries, so every kind
            counts.
    """
    try:
        yield
    except RegistryError:
        raise
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        kind = RegistryError if _is_refusal(error) else RegistryDownError
        raise kind(f"{doing}: {_without_credentials(text)[:300]}") from error


def connect(settings: Settings) -> MlflowClient:
    """Connect to the tracking server and make sure that it answers, trying briefly.

    Also makes the server the process's own, for what MLflow offers no client call for (downloads by `models:/` URIs),
    and shortens MLflow's timeouts and forbids pickled models, unless the environment says otherwise.

    Raises:
        RegistryDownError: the server does not answer; the line names it without its credentials.
        RegistryError: it refuses, or the address cannot be one.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # its retries are ours to report
    uri = settings.tracking_uri
    shown = _without_credentials(uri)
    with registry_errors(f"MLflow does not answer at {shown}; start it or set mlflow.tracking_uri to one that runs"):
        if urlsplit(uri).scheme.split("+")[0] in _DATABASES:
            _try_database(uri)
        mlflow.set_tracking_uri(uri)
        client = MlflowClient(uri)
        client.get_experiment_by_name(settings.mlflow.experiment)
    return client


def experiment_id(client: MlflowClient, settings: Settings) -> str:
    """The id of the experiment of the settings, made when it is missing.

    Artifacts go where the server says; without a server, under the storage root.

    Raises:
        RegistryError: MLflow failed, or the experiment was deleted there.
    """
    name = settings.mlflow.experiment
    with registry_errors(f"cannot open the experiment '{name}'"):
        found = client.get_experiment_by_name(name)
        if found is None:
            local = mlflow_artifacts(settings.storage.root).as_uri()
            return client.create_experiment(name, None if settings.mlflow.tracking_uri else local)
    if found.lifecycle_stage != "active":
        raise RegistryError(f"the experiment '{name}' was deleted in MLflow: restore it, or set mlflow.experiment")
    return str(found.experiment_id)


def _is_refusal(error: Exception) -> bool:
    """Whether trying again would fail again: the request, or a path, is wrong."""
    if isinstance(error, MlflowException):
        return bool(error.get_http_status_code() < 500)  # type: ignore[no-untyped-call]
    return isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError)


def _try_database(uri: str) -> None:
    """One attempt: MLflow itself would go on trying for an hour."""
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _without_credentials(text: str) -> str:
    return re.sub(r"(?<=://)[^/\s]*@", "", text)

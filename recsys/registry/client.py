"""Connection to MLflow, and translation of its failures."""

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
from recsys.errors import RecsysError, RegistryDownError, RegistryError

ENVIRONMENT = {
    # With MLflow's defaults, a call to a dead server takes four minutes to fail.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # Our artifacts contain no pickle; anything else that is registered under the name is refused.
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_SQLITE = "sqlite:///"
# Folder beside an SQLite database.
ARTIFACTS = "mlflow-artifacts"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
# No outage raises these: they are faults of a program, this one or MLflow. What an outage raises is MlflowException,
# OSError (errors of requests are that, too), or what a library of a database or an artifact store derives from
# Exception itself; these libraries may not be installed, so they cannot be named.
_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NameError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


@contextmanager
def registry_errors(doing: str) -> Iterator[None]:
    """Turn a failure of MLflow inside the block into a one-line error without credentials.

    Deliberate errors and faults of a program pass: a fault would come again, however long a caller waited.

    Args:
        doing: what failed; the message begins with it.

    Raises:
        RegistryError: MLflow refused the request, or an address is invalid.
        RegistryDownError: MLflow, its database or its artifact store failed.
    """
    try:
        yield
    except RecsysError:
        raise
    except Exception as error:
        if isinstance(error, _FAULTS) and not isinstance(error, OSError):
            raise
        kind = RegistryError if _is_refusal(error) else RegistryDownError
        raise kind(_line(doing, error)) from error


@contextmanager
def version_errors(doing: str) -> Iterator[None]:
    """Turn whatever the code of a version raises inside the block into a one-line error.

    Args:
        doing: what failed; the message begins with it.

    Raises:
        RegistryError: the code has failed. It came with the version, so it may fail in any way.
    """
    try:
        yield
    except Exception as error:
        raise RegistryError(_line(doing, error)) from error


def connect(settings: Settings) -> MlflowClient:
    """Connect to the tracking server and check that it answers, with a short timeout.

    Also sets it as the tracking server of the process, because some operations (downloads by `models:/` URIs) have no
    client call. Shortens MLflow's timeouts and forbids pickled models, unless the environment says otherwise.

    Raises:
        RegistryDownError: the server does not answer. The message names it without its credentials.
        RegistryError: the server refuses, or the address is invalid.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # we report its retries ourselves
    uri = settings.tracking_uri
    shown = _without_credentials(uri)
    doing = f"MLflow does not answer at {shown}; start it, or set mlflow.tracking_uri to a running server"
    try:
        with registry_errors(doing):
            if urlsplit(uri).scheme.split("+")[0] in _DATABASES:
                _try_database(uri)
            mlflow.set_tracking_uri(uri)
            client = MlflowClient(uri)
            client.get_experiment_by_name(settings.mlflow.experiment)
    except ValueError as error:  # No address at all, such as one whose port is no number.
        raise RegistryError(_line(doing, error)) from error
    return client


def experiment_id(client: MlflowClient, settings: Settings) -> str:
    """Id of the configured experiment, which is created if it is missing.

    Artifacts go where the server says; of an SQLite database, which has no server, into a folder beside it, and not
    into the folder in which a job happens to be started.

    Raises:
        RegistryError: MLflow failed, or the experiment was deleted.
    """
    name = settings.mlflow.experiment
    with registry_errors(f"cannot open the experiment '{name}'"):
        found = client.get_experiment_by_name(name)
        if found is None:
            database = sqlite_file(settings.tracking_uri)
            beside = None if database is None else (database.absolute().parent / ARTIFACTS).as_uri()
            return client.create_experiment(name, beside)
    if found.lifecycle_stage != "active":
        raise RegistryError(f"the experiment '{name}' was deleted in MLflow: restore it, or set mlflow.experiment")
    return str(found.experiment_id)


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite database; None for anything else that MLflow tracks in."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def _is_refusal(error: Exception) -> bool:
    """Whether a retry would fail again: the request or a path is wrong, or a library is missing."""
    if isinstance(error, MlflowException):
        return bool(error.get_http_status_code() < 500)  # type: ignore[no-untyped-call]
    return isinstance(error, FileExistsError | FileNotFoundError | NotADirectoryError | PermissionError | ImportError)


def _line(doing: str, error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{doing}: {_without_credentials(text)[:300]}"


def _try_database(uri: str) -> None:
    """Try to connect once. MLflow itself would keep trying for an hour."""
    database = sqlite_file(uri)
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _without_credentials(text: str) -> str:
    """The text without users and passwords in URLs; a password may contain any character but a space."""
    text = re.sub(r"(?<=://)(?!/)\S*@", "", text)
    return re.sub(r"(?i)\b(user|password|pwd|token|secret)=[^&\s]+", r"\1=...", text)

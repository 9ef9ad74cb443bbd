import errno
import sqlite3

import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE
from sqlalchemy.exc import OperationalError

from recsys.config import load_settings
from recsys.errors import ConfigError, RegistryDownError, RegistryError
from recsys.registry.attempts import Attempts
from recsys.registry.client import connect, experiment_id, registry_errors, version_errors


def test_without_a_server_everything_lies_under_the_storage_root(registry, database):
    client, settings = registry
    made = client.get_experiment(experiment_id(client, settings))
    assert made.artifact_location == f"file://{database}/mlflow-artifacts"
    assert experiment_id(client, settings) == made.experiment_id


def test_the_artifacts_of_a_database_lie_beside_it(empty_registry, tmp_path, monkeypatch):
    empty_registry(str(tmp_path / "shared"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    uri = f"sqlite:///{tmp_path}/shared/mlflow.db"
    settings = load_settings(overrides=[f"storage.root={tmp_path}/own", f"mlflow.tracking_uri={uri}"])
    client = connect(settings)
    made = client.get_experiment(experiment_id(client, settings))
    assert made.artifact_location == f"file://{tmp_path}/shared/mlflow-artifacts"


def test_a_deleted_experiment_is_refused_in_one_line(registry):
    client, settings = registry
    client.delete_experiment(experiment_id(client, settings))
    with pytest.raises(RegistryError, match=r"was deleted in MLflow: restore it, or set mlflow\.experiment"):
        experiment_id(client, settings)


@pytest.mark.parametrize("credentials", ["ann:s3cret@", "ann:s3cret/or@more@"])
def test_a_server_that_does_not_answer_is_named_without_its_credentials(credentials):
    settings = load_settings(overrides=[f"mlflow.tracking_uri=http://{credentials}127.0.0.1:9/x"])
    with pytest.raises(RegistryDownError) as raised:
        connect(settings)
    line = str(raised.value)
    told = "MLflow does not answer at http://127.0.0.1:9/x; start it, or set mlflow.tracking_uri to a running server"
    assert line.startswith(told)
    assert "s3cret" not in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("uri", "may_come_back"),
    [
        ("sqlite:////dev/null/mlflow.db", False),
        ("nonsense://somewhere", False),
        ("http://ann:s3cret@[::1", False),
        ("sqlite:///x?timeout=never", False),
    ],
)
def test_an_unusable_address_is_refused_at_once(uri, may_come_back):
    with pytest.raises(RegistryError, match="MLflow does not answer at") as raised:
        connect(load_settings(overrides=[f"mlflow.tracking_uri={uri}"]))
    assert "s3cret" not in str(raised.value)
    assert isinstance(raised.value, RegistryDownError) == may_come_back


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MlflowException("internal", INTERNAL_ERROR), RegistryDownError),
        (MlflowException("busy", TEMPORARILY_UNAVAILABLE), RegistryDownError),
        (requests.ConnectionError("refused"), RegistryDownError),
        (OperationalError("SELECT 1", None, sqlite3.OperationalError("database is locked")), RegistryDownError),
        (OSError(errno.EIO, "input/output error"), RegistryDownError),
        # As the libraries of artifact stores derive theirs, such as botocore's ClientError.
        (type("ClientError", (Exception,), {})("slow down"), RegistryDownError),
        (MlflowException("no such run", RESOURCE_DOES_NOT_EXIST), RegistryError),
        (requests.exceptions.InvalidURL("no host"), RegistryDownError),
        (ModuleNotFoundError("No module named 'boto3'"), RegistryError),
    ],
)
def test_an_outage_may_end_and_a_refusal_does_not(error, kind):
    with pytest.raises(RegistryError, match="^cannot log: ") as raised, registry_errors("cannot log"):
        raise error
    assert type(raised.value) is kind


@pytest.mark.parametrize(
    "error", [TypeError("x"), KeyError("x"), AttributeError("x"), AssertionError("x"), ConfigError("x")]
)
def test_a_fault_of_a_program_is_no_outage(error):
    with pytest.raises(type(error)) as raised, registry_errors("cannot log"):
        raise error
    assert raised.value is error
    attempts = Attempts()
    with pytest.raises(type(error)):
        attempts.make(lambda: (_ for _ in ()).throw(error))
    assert attempts.failure is None


def test_whatever_the_code_of_a_version_raises_is_refused_in_one_line():
    with pytest.raises(RegistryError, match="^cannot load: 'x'$") as raised, version_errors("cannot load"):
        raise KeyError("x")
    assert type(raised.value) is RegistryError


def test_an_error_without_words_still_says_what_failed():
    with pytest.raises(RegistryError, match="^cannot log: KeyboardError$"), registry_errors("cannot log"):
        raise type("KeyboardError", (Exception,), {})

import pytest

from recsys.config import load_settings
from recsys.errors import RegistryDownError, RegistryError
from recsys.registry.client import connect, experiment_id, registry_errors


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
        ("postgresql://ann:s3cret@127.0.0.1:9/mlflow", True),
    ],
)
def test_an_unusable_address_is_refused_at_once(uri, may_come_back):
    with pytest.raises(RegistryError, match="MLflow does not answer at") as raised:
        connect(load_settings(overrides=[f"mlflow.tracking_uri={uri}"]))
    assert "s3cret" not in str(raised.value)
    assert isinstance(raised.value, RegistryDownError) == may_come_back


def test_an_error_without_words_still_says_what_failed():
    with pytest.raises(RegistryError, match="^cannot log: KeyboardError$"), registry_errors("cannot log"):
        raise type("KeyboardError", (Exception,), {})

import uuid
from collections.abc import Callable

import pytest
from mlflow import MlflowClient

from recsys.config import Settings, load_settings
from recsys.registry.client import connect
from recsys.registry.runs import GenerationRun


@pytest.fixture(scope="module")
def database(empty_registry: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Storage root with an MLflow database."""
    root = str(tmp_path_factory.mktemp("registry"))
    empty_registry(root)
    return root


@pytest.fixture
def registry(database: str) -> tuple[MlflowClient, Settings]:
    """A client, and settings with an experiment and a model name of the test's own."""
    name = uuid.uuid4().hex
    settings = load_settings(
        overrides=[f"storage.root={database}", f"mlflow.experiment={name}", f"mlflow.model_name={name}"]
    )
    return connect(settings), settings


@pytest.fixture
def open_run(registry: tuple[MlflowClient, Settings]) -> Callable[..., GenerationRun]:
    client, settings = registry
    return lambda generation=0, stream_id="stream": GenerationRun.open(client, settings, generation, stream_id)

"""A registered version, loaded for scoring with the code that it carries."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from recsys.config import load_settings
from recsys.errors import InputError, RegistryError
from recsys.registry import artifacts, versions
from recsys.registry.client import ENVIRONMENT, version_errors
from recsys.registry.versions import Version
from recsys.serving import Served


class ServedVersion:
    """A loaded version.

    Attributes:
        version: the version.
        arrays: its served arrays, by name.
        item_ids: ids of the items by row.
        item_rows: rows of the items by id.

    Raises:
        AlteredArtifactError: its artifact is not what was registered; none of it has run.
        RegistryError: MLflow failed, or the version was not registered by this release, or its code fails.
    """

    def __init__(self, version: Version) -> None:
        if version.step is None:
            raise RegistryError(f"{version.uri} was not registered by this release: it has no tag 'generation'")
        self.version = version
        self._folder = tempfile.TemporaryDirectory()  # As long as this lives: its code may import more of itself.
        artifact = artifacts.download(version.uri, version.digest, Path(self._folder.name))
        with version_errors(f"cannot load {version.uri}"):
            self._model: Any = mlflow.pyfunc.load_model(str(artifact)).unwrap_python_model()
            served = Served.of_packed(self._model.ranker.arrays)
        self.arrays, self.item_ids = served.arrays, served.item_ids
        self.item_rows = {item: row for row, item in enumerate(self.item_ids)}

    @classmethod
    def champion(cls, name: str, tracking_uri: str | None) -> "ServedVersion":
        """The champion of a registered model. MLflow's configuration in this process stays as it is.

        Args:
            name: name of the model.
            tracking_uri: MLflow tracking URI; None: the one that MLflow is configured with, or else the default of the
                settings.

        Raises:
            RegistryError: the registry does not answer, or has no champion of that name.
        """
        if tracking_uri is None and mlflow.is_tracking_uri_set():  # type: ignore[no-untyped-call]
            tracking_uri = mlflow.get_tracking_uri()
        settings = load_settings()
        if tracking_uri is not None:
            given = settings.mlflow.model_copy(update={"tracking_uri": tracking_uri})
            settings = settings.model_copy(update={"mlflow": given})
        with _configuration_kept():
            return cls(versions.chosen(settings, versions.champion_uri(name)))

    def answer(self, columns: Mapping[str, Any], task: str = "recommend") -> pd.DataFrame:
        """Do a task of the artifact; see `recsys.serving.Answers`.

        Args:
            columns: of the request.
            task: its name.

        Raises:
            InputError: the request cannot be answered.
        """
        asked = pd.DataFrame(dict(columns), dtype=object)
        try:
            # Not through MLflow's wrapper: its checks pass whatever the signature leaves open, and double the time.
            found: pd.DataFrame = self._model.predict(None, asked, {"task": task})
        except MlflowException as error:
            raise InputError(str(error.message)) from error
        return found


@contextmanager
def _configuration_kept() -> Iterator[None]:
    """Undo at the end what `connect` sets in the process: a notebook's own MLflow has other servers and models."""
    uri = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None  # type: ignore[no-untyped-call]
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    try:
        yield
    finally:
        mlflow.set_tracking_uri(uri)  # type: ignore[arg-type]
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

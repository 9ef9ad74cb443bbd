"""A registered version, loaded for scoring with the code that it carries."""

from collections.abc import Sequence

import mlflow
import pandas as pd

from recsys.config import Settings, load_settings
from recsys.registry import artifacts, versions
from recsys.registry.client import connect, registry_errors
from recsys.registry.versions import CHAMPION, Version


class ServedVersion:
    """A loaded version.

    Attributes:
        version: the version.
        arrays: its served arrays, by name.
        item_ids: ids of the items by row.
        item_rows: rows of the items by id.

    Raises:
        RegistryError: MLflow failed.
    """

    def __init__(self, version: Version) -> None:
        self.version = version
        served = artifacts.load_served(version.uri)
        self.arrays, self.item_ids = served.arrays, served.item_ids
        with registry_errors(f"cannot load {version.uri}"):
            self._scorer = mlflow.pyfunc.load_model(version.uri)
        self.item_rows = {item: row for row, item in enumerate(self.item_ids)}

    @classmethod
    def champion(cls, name: str, tracking_uri: str | None) -> "ServedVersion":
        """The champion of a registered model.

        Args:
            name: name of the model.
            tracking_uri: MLflow tracking URI; None: the one that MLflow is configured with, or else the default of the
                settings.

        Raises:
            RegistryError: the registry does not answer, or has no champion of that name.
        """
        if tracking_uri is None and mlflow.is_tracking_uri_set():  # type: ignore[no-untyped-call]
            tracking_uri = mlflow.get_tracking_uri()
        uri = tracking_uri or load_settings().tracking_uri
        client = connect(Settings.model_validate({"mlflow": {"tracking_uri": uri}}))
        return cls(versions.resolve(client, f"models:/{name}@{CHAMPION}"))

    def recommend(self, user_ids: Sequence[str], k: int | None) -> list[list[tuple[str, float]]]:
        """Lists of n users, best first, as item ids and scores; `k` None: the length registered with the version."""
        asked = pd.DataFrame({"user_id": list(user_ids)}, dtype=object)
        found = self._scorer.predict(asked if k is None else asked.assign(k=k))
        return [
            list(zip(items, scores, strict=True))
            for items, scores in zip(found["item_ids"], found["scores"], strict=True)
        ]

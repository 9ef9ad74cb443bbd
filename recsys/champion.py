"""The champion of an MLflow registry, loaded for recommending."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from recsys.errors import ConfigError
from recsys.lists import as_id, as_ids, as_length, lists_frame, similar_frame

if TYPE_CHECKING:
    import pandas as pd

    from recsys.registry.served import ServedVersion


def load_champion(model_name: str, tracking_uri: str | None = None) -> "Champion":
    """Load the champion of a registered model, as the stream has registered it.

    Args:
        model_name: Name of the registered model; by default the jobs use `recsys`.
        tracking_uri: MLflow tracking URI. None: the one that MLflow is configured with (`mlflow.set_tracking_uri` or
            the environment variable MLFLOW_TRACKING_URI), or else the default of the jobs.

    Returns:
        A model that recommends, but cannot be updated.

    Raises:
        ConfigError: MLflow is not installed.
        RegistryError: the registry does not answer, or has no champion of that name.

    Examples:
        >>> champion = load_champion("recsys", tracking_uri="sqlite:///var/recsys/mlflow.db")
        >>> list(champion.recommend(["u1"], k=1)["item_id"])
        ['i2']
    """
    try:
        from recsys.registry.served import ServedVersion
    except ModuleNotFoundError as error:
        raise ConfigError(f"load_champion needs {error.name}: pip install 'recsys-stream[mlflow]'") from error
    return Champion(ServedVersion.champion(model_name, tracking_uri))


class Champion:
    """The champion of a registry. It recommends with the code that it carries. Created by `load_champion`.

    Attributes:
        version: Number of the version.
    """

    def __init__(self, served: "ServedVersion") -> None:
        self._served = served
        self.version = served.version.version

    def __repr__(self) -> str:
        return f"Champion({self._served.version.uri})"

    def recommend(self, user_ids: str | int | Iterable[str | int], k: int | None = None) -> "pd.DataFrame":
        """Rank items for users; see `Recommender.recommend`."""
        users = as_ids(user_ids)
        return lists_frame(users, self._served.recommend(users, None if k is None else as_length(k)))

    def similar_items(self, item_id: str | int, k: int = 10) -> "pd.DataFrame":
        """Rank the items that are most similar to an item; see `Recommender.similar_items`."""
        served = self._served
        row = served.item_rows.get(as_id(item_id), -1)
        return similar_frame(item_id, row, served.arrays, served.item_ids, as_length(k))

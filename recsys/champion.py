"""The champion of an MLflow registry, loaded for recommending."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from recsys.errors import ConfigError
from recsys.lists import AskedFor, answered_frame, as_id, as_ids, as_length, as_pairs, similar_frame

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

    def __init__(self, served: "ServedVersion", titles: Mapping[str, str] | None = None) -> None:
        self._served, self._titles = served, titles
        self.version = served.version.version

    def __repr__(self) -> str:
        return f"Champion({self._served.version.uri})"

    def recommend(
        self,
        user_ids: str | int | Iterable[str | int],
        k: int | None = None,
        *,
        exclude_seen: bool | None = None,
        candidates: Iterable[str | int] | None = None,
        exclude_items: Iterable[str | int] | None = None,
        recent_items: Iterable[str | int] | None = None,
        explain: bool = False,
    ) -> "pd.DataFrame":
        """Rank items for users; see `Recommender.recommend`.

        The lists of items that are given hold for all users of the call.

        Args:
            user_ids: Ids, or a single id.
            k: Items per list; None: as many as were registered with the version.
            exclude_seen: Leave out what the users have interacted with; None: as registered.
            candidates: Choose among these items.
            exclude_items: Recommend none of these.
            recent_items: What the users have done since the version was made, latest last; the last 1,000 count.
            explain: Add a column `explanation`.

        Returns:
            `user_id`, `rank`, `item_id`, `score`. An explanation is JSON text: `contributions` that add up to the
            score, `because` of which items of the user, and the `version`.

        Raises:
            InputError: something cannot be used.
        """
        users = as_ids(user_ids)
        wanted = AskedFor(exclude_seen, candidates, exclude_items, recent_items, explain)
        found = self._served.answer(wanted.columns(users, k))
        return answered_frame(users, found, {"version": self.version}, self._titles)

    def score(
        self,
        user_ids: str | int | Iterable[str | int],
        item_ids: str | int | Iterable[str | int],
        recent_items: Iterable[str | int] | None = None,
    ) -> "pd.DataFrame":
        """Score pairs of users and items.

        Args:
            user_ids: Ids (n,), or a single id for all items.
            item_ids: Ids (n,).
            recent_items: See `recommend`.

        Returns:
            `user_id`, `item_id`, `score`, NaN for an unknown item; the scores are those of `recommend`.

        Raises:
            InputError: something is not an id, or there are not as many users as items.
        """
        return self._served.answer(as_pairs(user_ids, item_ids, recent_items), "score")

    def similar_items(self, item_id: str | int, k: int = 10) -> "pd.DataFrame":
        """Rank the items that are most similar to an item; see `Recommender.similar_items`."""
        served = self._served
        row = served.item_rows.get(as_id(item_id), -1)
        return similar_frame(item_id, row, served.arrays, served.item_ids, as_length(k))

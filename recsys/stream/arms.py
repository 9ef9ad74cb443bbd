"""The versions of an experiment's arms, measured by the stream beside its own."""

import logging
from collections.abc import Callable

from mlflow.tracking import MlflowClient

from recsys.config import Settings
from recsys.errors import RegistryDownError, RegistryError
from recsys.model.evaluation.prequential import BatchEvaluation
from recsys.registry import artifacts, versions
from recsys.registry.versions import Version
from recsys.serving import Served

logger = logging.getLogger(__name__)

# What the names of arms begin with, where they stand beside champion and challenger.
PREFIX = "experiment/"
DEVIATE = 1.96  # Of 95 %.


class Arms:
    """The versions of the arms.

    Args:
        settings: `experiment` is used, and for arms without a version `recommend.model`.
    """

    def __init__(self, settings: Settings) -> None:
        self._models = {name: arm.model or settings.recommend.model for name, arm in settings.experiment.arms.items()}
        # What each arm has now, and what has been loaded, by the URI of the version.
        self._uris: dict[str, str] = {}
        self._loaded: dict[str, tuple[Version, Served]] = {}
        self._told: set[tuple[str, str]] = set()

    def look(self, client: MlflowClient, loaded: Callable[[str], Served | None]) -> None:
        """Load the versions that the arms name now. A version that has gone stays as it was loaded.

        An arm whose version is not there is not measured: a stream has more to do than an experiment.

        Args:
            client: from `connect`.
            loaded: what is loaded already, by the URI of a version, so that it is measured once.

        Raises:
            RegistryDownError: MLflow does not answer.
        """
        for name, model in self._models.items():
            if model is None or (model == self._uris.get(name) and "@" not in model):
                continue  # The champion's, or a number that has been loaded.
            try:
                version = versions.resolve(client, model)
                if version.uri not in self._loaded:
                    served = loaded(version.uri) or artifacts.load_served(version.uri, version.digest)
                    self._loaded[version.uri] = version, served
                self._uris[name] = version.uri
            except RegistryDownError:
                raise
            except RegistryError as error:
                if (name, str(error)) not in self._told:
                    instead = f"goes on with {self._uris[name]}" if name in self._uris else "is not measured"
                    logger.warning("experiment.arms.%s %s: %s", name, instead, error)
                self._told.add((name, str(error)))
        self._loaded = {uri: one for uri, one in self._loaded.items() if uri in self._uris.values()}

    def measured(self, champion: tuple[Version, Served] | None) -> dict[str, tuple[Version, Served]]:
        """The versions of the arms and what they serve, by the names under which they are measured.

        Args:
            champion: that of the arms without a model; None if there is none.
        """
        own = {
            name: champion if model is None else self._loaded.get(self._uris.get(name, ""))
            for name, model in self._models.items()
        }
        return {f"{PREFIX}{name}": one for name, one in own.items() if one is not None}


def intervals_of_arms(evaluation: BatchEvaluation) -> dict[str, float]:
    """The 95 % interval of each arm's mean NDCG over the evaluated users.

    Returns:
        `experiment/ARM/ndcg_lower` and `experiment/ARM/ndcg_upper`.
    """
    found: dict[str, float] = {}
    for name, ndcg in evaluation.ndcg.items():
        if name.startswith(PREFIX) and len(ndcg) > 1:
            arm, mean, error = name.removeprefix(PREFIX), float(ndcg.mean()), float(ndcg.std(ddof=1)) / len(ndcg) ** 0.5
            found[f"experiment/{arm}/ndcg_lower"] = max(0.0, mean - DEVIATE * error)
            found[f"experiment/{arm}/ndcg_upper"] = min(1.0, mean + DEVIATE * error)
    return found

"""The versions of an experiment's arms, measured by the stream beside its own."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow.tracking import MlflowClient

from recsys.config import Settings
from recsys.errors import RegistryDownError, RegistryError
from recsys.model.evaluation.prequential import BatchEvaluation
from recsys.model.evaluation.trial import CHAMPION
from recsys.registry import artifacts, versions
from recsys.registry.versions import Version
from recsys.serving import Served

logger = logging.getLogger(__name__)

# What the names of arms begin with, where they stand beside champion and challenger.
PREFIX = "experiment/"
_DEVIATE = 1.96  # Of 95 %.


@dataclass(frozen=True)
class _Loaded:
    version: Version
    served: Served


class Arms:
    """The versions of the arms.

    Args:
        settings: `experiment` is used.
    """

    def __init__(self, settings: Settings) -> None:
        self._arms = settings.experiment.arms
        self._loaded: dict[str, _Loaded] = {}
        self._told: set[str] = set()

    def look(self, client: MlflowClient) -> None:
        """Load the versions that the arms name now. A version that has gone stays as it was loaded.

        Raises:
            RegistryError: MLflow failed, or an arm has never had a version.
        """
        for name, arm in self._arms.items():
            if arm.model is None:
                continue
            try:
                version = versions.resolve(client, arm.model)
                if name not in self._loaded or self._loaded[name].version.uri != version.uri:
                    self._loaded[name] = _Loaded(version, artifacts.load_served(version.uri, version.digest))
            except RegistryDownError:
                raise
            except RegistryError as error:
                if name not in self._loaded:
                    raise RegistryError(f"setting 'experiment.arms.{name}.model': {error}") from error
                if name not in self._told:
                    logger.warning("arm %s goes on with %s: %s", name, self._loaded[name].version.uri, error)
                self._told.add(name)

    def rivals(self, others: Mapping[str, Served]) -> dict[str, Served]:
        """What the arms serve, by the names under which they are measured; an arm without a version has the champion's.

        Args:
            others: what else is measured, by name.
        """
        served = {name: loaded.served for name, loaded in self._loaded.items()}
        own = {name: served.get(name, others.get(CHAMPION)) for name in self._arms}
        return {f"{PREFIX}{name}": version for name, version in own.items() if version is not None}


def intervals_of_arms(evaluation: BatchEvaluation) -> dict[str, float]:
    """The 95 % interval of each arm's mean NDCG over the evaluated users.

    Returns:
        `experiment/ARM/ndcg_lower` and `experiment/ARM/ndcg_upper`.
    """
    found: dict[str, float] = {}
    for name, ndcg in evaluation.ndcg.items():
        if name.startswith(PREFIX) and len(ndcg) > 1:
            arm, mean, error = name.removeprefix(PREFIX), float(ndcg.mean()), float(ndcg.std(ddof=1)) / len(ndcg) ** 0.5
            found[f"experiment/{arm}/ndcg_lower"] = max(0.0, mean - _DEVIATE * error)
            found[f"experiment/{arm}/ndcg_upper"] = min(1.0, mean + _DEVIATE * error)
    return found

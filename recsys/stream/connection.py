"""The place of one generation in MLflow: its run, its first version and the champion."""

import logging
from dataclasses import dataclass

from mlflow.tracking import MlflowClient

from recsys.config import Settings
from recsys.registry import artifacts, versions
from recsys.registry.client import connect
from recsys.registry.runs import GenerationRun
from recsys.registry.versions import Version
from recsys.serving import Served

logger = logging.getLogger(__name__)

FIRST, CHAMPION = "first", "champion"


@dataclass(frozen=True)
class Connection:
    """MLflow, once it has answered.

    Attributes:
        client: from `registry.client.connect`.
        run: run of the generation.
        versions: the first version of the generation and the champion, by `FIRST` and `CHAMPION`, as far as they exist.
        served: what these versions serve, by the same names. A version with two names is one object.
    """

    client: MlflowClient
    run: GenerationRun
    versions: dict[str, Version]
    served: dict[str, Served]

    @classmethod
    def open(cls, settings: Settings, generation: int, stream_id: str) -> "Connection":
        """Connect, find or create the run, and load what the live model is compared with.

        Raises:
            RegistryDownError: MLflow does not answer. Calling again is safe.
            RegistryError: MLflow refuses.
        """
        client = connect(settings)
        run = GenerationRun.open(client, settings, generation, stream_id)
        name = settings.mlflow.model_name
        found = {FIRST: versions.first(client, name, run.run_id), CHAMPION: own_champion(client, name)}
        named = {alias: version for alias, version in found.items() if version is not None}
        loaded = {version.version: artifacts.load_served(version.uri) for version in named.values()}
        return cls(client, run, named, {alias: loaded[version.version] for alias, version in named.items()})

    @property
    def champion_version(self) -> str | None:
        """Registered version of the champion, or None if there is none."""
        return self.versions[CHAMPION].version if CHAMPION in self.versions else None


def own_champion(client: MlflowClient, name: str) -> Version | None:
    """The champion, unless another release has registered it: this one might read its arrays wrongly."""
    champion = versions.champion(client, name)
    if champion is None or champion.step is not None:
        return champion
    logger.warning(
        "%s is champion, but this release did not register it (it has no tag 'generation') and cannot compare with it: "
        "the first version that is registered now takes its place; to keep it, set mlflow.model_name to another name",
        champion.uri,
    )
    return None

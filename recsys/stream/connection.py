"""The place of one generation in MLflow: its run and its first version."""

from dataclasses import dataclass

from mlflow.tracking import MlflowClient

from recsys.config import Settings
from recsys.registry import versions
from recsys.registry.client import connect
from recsys.registry.runs import GenerationRun
from recsys.registry.versions import Version


@dataclass
class Connection:
    """MLflow, once it has answered.

    Attributes:
        client: from `registry.client.connect`.
        run: run of the generation.
        first: the first version of the generation; None before it is registered.
    """

    client: MlflowClient
    run: GenerationRun
    first: Version | None

    @classmethod
    def open(cls, settings: Settings, generation: int, stream_id: str) -> "Connection":
        """Connect, and find or create the run.

        Raises:
            RegistryDownError: MLflow does not answer. Calling again is safe.
            RegistryError: MLflow refuses.
        """
        client = connect(settings)
        run = GenerationRun.open(client, settings, generation, stream_id)
        return cls(client, run, versions.first(client, settings.mlflow.model_name, run.run_id))

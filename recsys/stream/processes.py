"""Trains the network of `model.kind: ncf` in several processes that Spark starts (`TorchDistributor`)."""

import tempfile
from pathlib import Path

import torch.distributed as dist
from pyspark.sql import SparkSession
from safetensors.numpy import load_file, save_file

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.errors import ConfigError
from recsys.model.interactions.history import History
from recsys.model.learner import State
from recsys.model.neural.ncf import NeuralCf
from recsys.model.neural.peers import Peers
from recsys.remote import is_uri
from recsys.serving.arrays import part, prefixed
from recsys.storage import snapshot_folder
from recsys.tables.cluster import LOCAL

_BEFORE, _AFTER = "before.safetensors", "after.safetensors"


def refuse_processes(settings: Settings) -> None:
    """Refuse several processes for what one trains.

    Raises:
        ConfigError: see above.
    """
    if settings.rebuild.processes > 1 and settings.model.kind != "ncf":
        raise ConfigError(
            f"setting 'rebuild.processes': model.kind is '{settings.model.kind}', and only the network of 'ncf' is "
            "trained by several processes; set it to 1"
        )
    if settings.rebuild.processes > 1 and is_uri(settings.storage.root):
        raise ConfigError(
            f"setting 'rebuild.processes': several processes pass files through a folder, and storage.root is "
            f"{settings.storage.root}; set it to 1"
        )


class Processes:
    """A `TrainElsewhere`: `rebuild.processes` of them on this machine, or on the executors of a cluster.

    What they need, and what they have made of it, passes through a folder among the snapshots, which all machines see.

    Args:
        spark: Starts the processes.
        settings: All settings.
    """

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        self._spark, self._settings = spark, settings

    def __call__(self, learner: State, history: State, step: StepId) -> tuple[State, dict[str, float]]:
        """See `TrainElsewhere`."""
        alone = LOCAL.fullmatch(str(self._spark.sparkContext.master)) is not None
        count, kept = self._settings.rebuild.processes, Path(str(snapshot_folder(self._settings.storage.root)))
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".processes-", dir=kept.absolute()) as folder:
            save_file(prefixed(learner, "learner") | prefixed(history, "history"), Path(folder, _BEFORE))
            from pyspark.ml.torch.distributor import TorchDistributor  # It brings all of pyspark.ml.

            distributor = TorchDistributor(num_processes=count, local_mode=alone, use_gpu=False)
            figures = distributor.run(train_share, folder, _shared(self._settings, count), step)
            assert figures is not None, "the first process returns them"
            return load_file(Path(folder, _AFTER)), figures


def _shared(settings: Settings, processes: int) -> Settings:
    """What a process needs of the settings: others may hold secrets; the mini-batches of all together are as long."""
    neural = settings.model.neural
    smaller = neural.model_copy(update={"batch_size": max(neural.batch_size // processes, 1)})
    return Settings(
        model=settings.model.model_copy(update={"neural": smaller}),
        recommend=settings.recommend,
        decay=settings.decay,
        staleness=settings.staleness,
        seed=settings.seed,
        device="cpu",
    )


def train_share(folder: str, settings: Settings, step: StepId) -> dict[str, float]:
    """What each process does, all at the same time; the first one writes the network.

    Args:
        folder: Where the states are.
        settings: From `_shared`.
        step: Step of the model.

    Returns:
        The metrics of `NeuralCf.refit`.
    """
    dist.init_process_group("gloo")
    try:
        before, peers = load_file(Path(folder, _BEFORE)), Peers()
        learner = NeuralCf.from_state(settings, part(before, "learner"))
        history = History.from_state(settings.decay.half_life_days, part(before, "history"))
        network, figures = learner.train_with(peers, history, step)
        if peers.rank == 0:
            save_file(network, Path(folder, _AFTER))
        dist.barrier()
        return figures
    finally:
        dist.destroy_process_group()

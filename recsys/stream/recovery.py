"""Restores a stream at its start: the current generation, and the model as of the last batch in the ledger.

A generation begins with a rebuild, whose ledger row has the last batch id that the rebuilt model has learned. The model
is a pure function of the log; a snapshot only saves the time to recompute it.
"""

import itertools
import logging
from dataclasses import dataclass

from tqdm import tqdm

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.errors import InputError
from recsys.model import snapshot
from recsys.model.recommender import OnlineModel
from recsys.storage import checkpoint_folder, snapshot_folder
from recsys.tables import ledger, log
from recsys.tables.delta import Tables

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Generation:
    """A generation of the model: it begins with a rebuild and ends with the next one.

    Attributes:
        number: 0 at first; every rebuild adds 1.
        first_batch: first batch id that the stream learns in this generation.
        last_batch: last batch id in the ledger; `first_batch - 1` if the stream has learned none yet.
    """

    number: int
    first_batch: int
    last_batch: int


def current_generation(tables: Tables) -> Generation:
    """Read the current generation and its last batch from the ledger."""
    last = ledger.last_step(tables)
    if last is None:
        return Generation(number=0, first_batch=0, last_batch=-1)
    if last.generation == 0:
        return Generation(number=0, first_batch=0, last_batch=last.batch_id)
    rebuilt = ledger.first_step(tables, last.generation)
    return Generation(number=last.generation, first_batch=rebuilt.batch_id + 1, last_batch=last.batch_id)


def refuse_lost_checkpoint(
    settings: Settings, query_id: str | None, generation: Generation, logged: StepId | None, first_batch: int = 0
) -> None:
    """Refuse to count events twice: without its checkpoint, Spark would read everything from the start.

    Args:
        settings: all settings.
        query_id: id in the checkpoint, or None if there is no checkpoint.
        generation: the current generation.
        logged: last step of this generation in the log.
        first_batch: batch id in the ledger of the checkpoint's batch 0.

    Raises:
        InputError: the tables hold batches of this generation, but the checkpoint that delivered them is gone.
    """
    last = max(generation.last_batch, -1 if logged is None else logged.batch_id)
    if query_id is None and last >= first_batch:
        root = settings.storage.root
        raise InputError(
            f"the checkpoint {checkpoint_folder(root)} is gone, but the tables under {root} hold its batches, and "
            f"reading the source again would count events twice: restore the checkpoint, or set storage.root to a new "
            f"folder, or, if the source now holds only new events, run jobs/rebuild.py with the same settings to begin "
            f"a new generation"
        )


def recover_model(settings: Settings, tables: Tables, generation: Generation) -> OnlineModel:
    """The model as of the last batch in the ledger: the newest snapshot plus the batches of the log since.

    Raises:
        InputError: a snapshot was made with other model settings.
    """
    last = StepId(generation.number, generation.last_batch)
    model = _newest_snapshot(settings, last)
    if model is None and generation.number > 0:
        model = rebuilt_model(settings, tables, StepId(generation.number, generation.first_batch - 1))
    elif model is None:
        model = OnlineModel(settings)
    start = model.step or StepId(generation.number, -1)
    if start < last:
        logger.info("recovering the model from step %s to %s", start, last)
        for step, batch in tqdm(
            log.batches_after(tables, start, last), desc="recovering the model", unit=" batches", leave=False
        ):
            model.update(batch, step)
    return model


def _newest_snapshot(settings: Settings, last: StepId) -> OnlineModel | None:
    """The newest usable snapshot up to a step; None if there is none.

    A damaged one is passed over, and so is one that holds another step than its name says.
    """
    folder = snapshot_folder(settings.storage.root)
    for step in snapshot.steps(folder, not_after=last):
        path = snapshot.path_for(folder, step)
        try:
            model = snapshot.load(path, settings)
        except snapshot.UnusableSnapshotError as error:
            logger.warning("%s: the model is recovered from an older one, or from the log", error)
            continue
        if model.step == step:
            return model
        logger.warning(
            "%s holds step %s: the model is recovered from what is older, and from the log", path, model.step
        )
    return None


def rebuilt_model(settings: Settings, tables: Tables, begin: StepId) -> OnlineModel:
    """Retrain the model of a generation from every batch that was in the log when it began.

    Args:
        settings: all settings.
        tables: the Delta tables.
        begin: step of the rebuilt model: its generation, and the last batch id that it has learned.
    """
    model = OnlineModel(settings)
    logged = tqdm(log.everything(tables), desc="reading the log", unit=" batches", leave=False)
    model.rebuild(itertools.takewhile(lambda one: one[0].generation < begin.generation, logged), begin)
    return model

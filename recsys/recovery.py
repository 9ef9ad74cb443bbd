"""Where a stream stands when it starts: its epoch, and the model as of the last batch in the ledger.

An epoch begins with a rebuild, whose ledger row carries the last batch id that the rebuilt model contains. The model
is a pure function of the log: a snapshot only saves the time to compute it again.
"""

import itertools
import logging
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.errors import InputError
from recsys.model import snapshot
from recsys.model.recommender import Recommender
from recsys.tables import ledger, log
from recsys.tables.delta import Tables

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Epoch:
    """One life of the model.

    Attributes:
        number: 0 at first; every rebuild adds one.
        first_batch: first batch id that the stream learns in this epoch.
        last_batch: last batch id in the ledger; `first_batch - 1` when the stream has learnt none yet.
    """

    number: int
    first_batch: int
    last_batch: int


def current_epoch(tables: Tables) -> Epoch:
    """Read from the ledger which epoch is running and how far it has come."""
    last = ledger.last_step(tables)
    if last is None:
        return Epoch(number=0, first_batch=0, last_batch=-1)
    if last.epoch == 0:
        return Epoch(number=0, first_batch=0, last_batch=last.batch_id)
    rebuilt = ledger.first_step(tables, last.epoch)
    return Epoch(number=last.epoch, first_batch=rebuilt.batch_id + 1, last_batch=last.batch_id)


def snapshot_folder(settings: Settings) -> Path:
    """Where the snapshots of the model's state lie."""
    return Path(settings.storage.root) / "state"


def checkpoint_folder(settings: Settings) -> Path:
    """Where Spark keeps what it has read."""
    return Path(settings.storage.root) / "checkpoint"


def refuse_lost_checkpoint(settings: Settings, query_id: str | None, epoch: Epoch, logged: StepId | None) -> None:
    """Stop before events are counted twice: without its checkpoint, Spark would read everything from the start.

    Args:
        settings: all settings.
        query_id: id found in the checkpoint, None when there is no checkpoint.
        epoch: the running epoch.
        logged: last step of this epoch in the log.

    Raises:
        InputError: the tables hold batches of this epoch, but the checkpoint that delivered them is gone.
    """
    begun = logged is not None or epoch.first_batch > 0 or epoch.last_batch >= 0
    if query_id is None and begun:
        raise InputError(
            f"the checkpoint {checkpoint_folder(settings)} is gone, but the tables under {settings.storage.root} hold "
            f"its batches, and reading the source again would count events twice: restore the checkpoint, or set "
            f"storage.root to a new folder, or, if the source now holds only new events, run "
            f"jobs/rebuild.py with the same settings to begin a new epoch"
        )


def recover_model(settings: Settings, tables: Tables, epoch: Epoch) -> Recommender:
    """The model as of the last batch in the ledger: the newest snapshot, and the log's batches since.

    Raises:
        InputError: a snapshot was made with other model settings.
    """
    last = StepId(epoch.number, epoch.last_batch)
    path = snapshot.latest(snapshot_folder(settings), not_after=last)
    if path is not None:
        model = snapshot.load(path, settings)
    elif epoch.number > 0:
        model = rebuilt_model(settings, tables, StepId(epoch.number, epoch.first_batch - 1))
    else:
        model = Recommender(settings)
    start = model.step or StepId(epoch.number, -1)
    if start < last:
        logger.info("recovering the model from step %s to %s", start, last)
        for step, batch in tqdm(
            log.batches_after(tables, start, last), desc="catching up", unit=" batches", leave=False
        ):
            model.update(batch, step)
    return model


def rebuilt_model(settings: Settings, tables: Tables, begin: StepId) -> Recommender:
    """Train a model from every batch that the log held when an epoch began.

    Args:
        settings: all settings.
        tables: the Delta tables.
        begin: the step that the rebuilt model gets: its epoch, and the last batch id that it contains.
    """
    model = Recommender(settings)
    logged = tqdm(log.everything(tables), desc="reading the log", unit=" batches", leave=False)
    model.rebuild(itertools.takewhile(lambda one: one[0].epoch < begin.epoch, logged), begin)
    return model

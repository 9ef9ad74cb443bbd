"""Retrains the model from the log, or goes back to an earlier one, and begins a new generation."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from mlflow import MlflowClient

from recsys.catalogue import fit_adapter
from recsys.config import Settings
from recsys.contracts import INTERACTION_LOG, LedgerRow, StepId
from recsys.errors import InputError
from recsys.model import snapshot
from recsys.model.recommender import OnlineModel
from recsys.model.snapshot import Snapshot
from recsys.registry import versions
from recsys.registry.client import connect
from recsys.registry.runs import runs_of
from recsys.registry.versions import Version
from recsys.storage import Place, checkpoint_folder, snapshot_folder, writer_lock
from recsys.stream.contents import write_catalog
from recsys.stream.distributed import PAIRS, Factors, refuse_undistributed, train
from recsys.stream.handover import load, refuse_unfinished
from recsys.stream.processes import refuse_processes
from recsys.stream.publish import Publisher
from recsys.stream.recovery import before, current_generation, new_model, refuse_incomplete, refuse_other_settings
from recsys.stream.scope import Scope
from recsys.tables import checkpoint, lease, ledger, log
from recsys.tables.delta import Tables
from recsys.tables.session import build_session

SECONDS = "rebuild_seconds"


@dataclass(frozen=True)
class Rebuilt:
    """Result of a rebuild.

    Attributes:
        generation: number of the generation that begins with it.
        users, items: size of the model; seconds: time taken to read the log and to train.
        version: the registered version; promoted: whether it became champion.
    """

    generation: int
    users: int
    items: int
    seconds: float
    version: Version
    promoted: bool


def rebuild(settings: Settings) -> Rebuilt:
    """Retrain a model from the whole log, or from what `settings.rebuild` says, and begin a new generation with it.

    It becomes champion if there is none. An existing champion stays until the stream has found, on batches that neither
    model has seen, that the new model is no worse. A rebuild that ended before its version was registered is finished,
    not repeated.

    Raises:
        ConfigError: only a rebuild on one machine can do what the settings ask for.
        InputError: the log is empty, a backfill is unfinished, a stream is running on the same storage, or there is no
            such batch to go back to.
        LeaseError: another job writes the tables.
        RegistryError: the tracking server does not answer.
    """
    if settings.rebuild.distributed:
        refuse_undistributed(settings)
    refuse_processes(settings)
    with writer_lock(settings.storage.root), ExitStack() as holding:
        refuse_unfinished(settings.storage.root)
        client = connect(settings)
        spark = build_session(settings)
        tables = Tables(spark, settings.storage)
        tables.create_missing()
        holding.enter_context(lease.held(tables, "rebuild", settings.storage.lease_seconds))
        if log.last_step(tables) is None:
            raise InputError(f"{tables.location(INTERACTION_LOG)} is empty: run jobs/stream_update.py first")
        row, model = _unregistered(client, settings, tables) or _trained(settings, tables)
        publisher = Publisher(settings, tables, row.step.generation, [row])
        publisher.start(may_wait=False)
        version = publisher.publish(model, row.step)
        promoted = publisher.promote_first(row.step)
        publisher.close(failed=False)
        seconds = row.metrics[SECONDS]
        return Rebuilt(row.step.generation, row.users, row.items, seconds, version, promoted)


def _unregistered(
    client: MlflowClient, settings: Settings, tables: Tables
) -> tuple[LedgerRow, OnlineModel | Factors] | None:
    """The last rebuild, if it has the same settings and scope, no version yet, and no batch after it; else None."""
    present = current_generation(tables)
    if present.number == 0 or present.last_batch >= present.first_batch:
        return None
    run_id = runs_of(client, settings, tables.identity(INTERACTION_LOG)).get(present.number)
    if run_id is not None and versions.first(client, settings.mlflow.model_name, run_id) is not None:
        return None
    (row,) = ledger.read(tables, present.number, after=present.last_batch - 1)
    if Scope.of_decisions(row.decisions) != Scope.of_settings(settings.rebuild, present.number - 1):
        return None
    solved = Factors.load(settings, row.step) if settings.rebuild.distributed else None
    if solved is not None:
        return row, solved
    try:
        return row, snapshot.load(snapshot.path_for(snapshot_folder(settings.storage.root), row.step), settings)
    except InputError:
        return None  # Another kind of model is wanted, or the file is gone: train again.


def _trained(settings: Settings, tables: Tables) -> tuple[LedgerRow, OnlineModel | Factors]:
    """Train from the whole log, save the model, and begin a generation with it in the ledger."""
    begin = _next_step(settings, tables)
    scope = Scope.of_settings(settings.rebuild, begin.generation - 1)
    if scope.as_of is not None:
        refuse_other_settings(settings, current_generation(tables))
    started = time.perf_counter()
    if scope.as_of is None:
        write_catalog(settings, tables, begin)
    model = (_on_executors if settings.rebuild.distributed else _on_driver)(settings, tables, begin, scope)
    seconds = time.perf_counter() - started
    path = model.save(settings) if isinstance(model, Factors) else _save(model, settings)
    figures = {PAIRS: float(model.pairs)} if isinstance(model, Factors) else {}
    row = LedgerRow(
        step=begin,
        log_version=tables.version(INTERACTION_LOG),
        events=0,
        users=len(model.users),
        items=len(model.items),
        duration_ms=round(1000 * seconds),
        ingested_at=datetime.now(UTC),
        metrics={SECONDS: seconds, **figures},
        state_uri=path.as_posix(),
        decisions=scope.decisions(),
        settings=settings.shaping(),
    )
    ledger.append(tables, [row], app_id="recsys:rebuild", txn_version=begin.generation)
    return row, model


def _on_driver(settings: Settings, tables: Tables, begin: StepId, scope: Scope) -> OnlineModel:
    model = new_model(settings, tables, begin, scope)
    if settings.items.path is not None and settings.items.adapter.enabled:
        fit_adapter(settings, model, begin)
    return model


def _on_executors(settings: Settings, tables: Tables, begin: StepId, scope: Scope) -> Factors:
    refuse_incomplete(tables, before(begin))
    return train(settings, tables, scope, before(begin), begin)


def _save(model: OnlineModel, settings: Settings) -> Place:
    return Snapshot.of(model).save_in(snapshot_folder(settings.storage.root))


def _next_step(settings: Settings, tables: Tables) -> StepId:
    """Step of the rebuilt model: the next generation, and the last batch of the checkpoint in the log.

    A batch that a crash left in the log but not in the ledger is part of it. If the checkpoint is gone, the next stream
    begins a new one, whose first batch is number 0. After a backfill the numbers continue, even if Spark has not begun
    the checkpoint yet.
    """
    present = current_generation(tables)
    root = settings.storage.root
    if checkpoint.query_id(checkpoint_folder(root)) is None and load(root) is None:
        return StepId(present.number + 1, -1)
    logged = log.last_step(tables, present.number)
    last = present.last_batch if logged is None else max(present.last_batch, logged.batch_id)
    return StepId(present.number + 1, last)

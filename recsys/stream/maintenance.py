"""Keeps a storage small while a stream runs: tables, old rows of some, snapshots, adapters and registered versions.

A plan of tasks is worked through in order. Each says what it would do, and what it has done. Nothing is removed that
the stream reads, now or when it starts again, so the lock of the writer is not needed.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from recsys.config import Settings
from recsys.contracts import (
    EXPOSURES,
    INTERACTION_LOG,
    MODEL_UPDATES,
    QUARANTINE,
    RECOMMENDATIONS,
    TABLE_SCHEMAS,
    TRIALS,
    VECTOR_SCHEMAS,
    StepId,
)
from recsys.errors import InputError
from recsys.model import snapshot
from recsys.registry import retention
from recsys.registry.client import connect
from recsys.registry.versions import Version
from recsys.storage import Place, earlier_adapters, mlflow_database, remove, snapshot_folder
from recsys.stream.pipeline import SNAPSHOTS_KEPT
from recsys.stream.recovery import current_generation
from recsys.tables import lease, maintenance
from recsys.tables.delta import Tables
from recsys.tables.session import build_session

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """One piece of upkeep.

    Attributes:
        planned: what it would do, in the imperative.
        run: does it, and returns what was done; None if there was nothing to do after all.
    """

    planned: str
    run: Callable[[], str | None]


def maintain(settings: Settings, dry_run: bool = False) -> list[str]:
    """Compact, vacuum and apply retention, beside a running stream.

    Args:
        settings: all settings; the section `maintain` says what is kept.
        dry_run: only log what would be done.

    Returns:
        The lines that were logged: what was done, or what would be.

    Raises:
        InputError: there are no tables, or another upkeep is running.
        LeaseError: the same in a store of objects, where it does not run beside a writer either.
        RegistryError: MLflow failed; everything else is done by then.
    """
    tables = Tables(build_session(settings), settings.storage)
    if not tables.exists(MODEL_UPDATES):
        raise InputError(
            f"there is no table {tables.location(MODEL_UPDATES)}: set storage.root (and storage.catalog) to those of "
            f"the stream"
        )
    if dry_run:
        return [_logged(f"would {task.planned}") for task in _plan(settings, tables)]
    with lease.upkeep(tables, settings.storage, "maintain"), ExitStack() as holding:
        if tables.one_committer:
            holding.enter_context(lease.held(tables, "maintain", settings.storage.lease_seconds))
        done = (task.run() for task in _plan(settings, tables))
        return [_logged(line) for line in done if line is not None]


def _plan(settings: Settings, tables: Tables) -> Iterator[Task]:
    """All tasks. What depends on MLflow comes last, because it may be down."""
    generation = current_generation(tables)
    learned = StepId(generation.number, generation.last_batch)
    yield from _old_rows(tables, QUARANTINE, settings.maintain.quarantine_days, learned)
    yield from _old_rows(tables, TRIALS, settings.maintain.trials_days, learned)
    yield from _old_rows(tables, EXPOSURES, settings.maintain.exposures_days, learned)
    # What no job has written yet may not be there.
    for name in filter(tables.exists, maintenance.GROWING):
        yield from _compaction(tables, name)
    for name in filter(tables.exists, (*TABLE_SCHEMAS, *VECTOR_SCHEMAS)):
        yield from _vacuum(tables, name)
    yield from _files(settings, generation.number)
    yield from _versions(settings, tables, generation.number)


def _old_rows(tables: Tables, name: str, days: float | None, learned: StepId) -> Iterator[Task]:
    if days is None:
        return
    before = datetime.now(UTC) - timedelta(days=days)
    count = maintenance.count_old_rows(tables, name, before, learned)
    rows = f"{count:,} rows of {name} ingested more than {days:g} days ago"

    def run() -> str:
        if maintenance.delete_old_rows(tables, name, before, learned):
            return f"deleted {rows}"
        return f"left for the next time, because the stream appends all the time: {rows}"

    if count:
        yield Task(f"delete {rows}", run)


def _compaction(tables: Tables, name: str) -> Iterator[Task]:
    def run() -> str | None:
        removed, added = maintenance.compact(tables, name)
        return f"compacted {removed:,} files of {name} into {added:,}" if removed else None

    files = maintenance.count_files(tables, name)
    if files > 1:
        yield Task(f"compact {files:,} files of {name}, as far as they are small", run)


def _vacuum(tables: Tables, name: str) -> Iterator[Task]:
    count = maintenance.count_unused_files(tables, name)
    more = " or more" if count == maintenance.VACUUM_LISTS else ""
    files = f"{count:,}{more} files of {name} that no recent version of it uses"

    def run() -> str:
        maintenance.vacuum(tables, name)
        return f"deleted {files}"

    # A vacuum without effect would be two commits without effect.
    if count:
        yield Task(f"delete {files}", run)


def _files(settings: Settings, generation: int) -> Iterator[Task]:
    """Snapshots and adapters; a stream that rebuilds at this moment writes those of a later generation."""
    root = settings.storage.root
    snapshots = snapshot.unneeded(snapshot_folder(root), generation, SNAPSHOTS_KEPT)
    for path in [*snapshots, *earlier_adapters(root, generation)]:

        def run(path: Place = path) -> str:
            remove(path)
            return f"deleted {path}"

        yield Task(f"delete {path}", run)


def _versions(settings: Settings, tables: Tables, generation: int) -> Iterator[Task]:
    if settings.mlflow.tracking_uri is None and not mlflow_database(settings.storage.root).exists():
        return  # Asked for versions, MLflow would first make an empty database.
    client = connect(settings)
    listed = tables.read(RECOMMENDATIONS).select("model_name", "model_version").distinct().collect()
    in_use = {row.model_version for row in listed if row.model_name == settings.mlflow.model_name}
    stream = tables.identity(INTERACTION_LOG)
    for version in retention.unneeded(client, settings, stream, generation, in_use):
        text = f"version {version.version} of {version.name}, of batch {version.step}"

        def run(version: Version = version, text: str = text) -> str | None:
            return f"deleted {text}" if retention.delete(client, version) else None

        yield Task(f"delete {text}", run)


def _logged(line: str) -> str:
    logger.info(line)
    return line

"""Brings quarantined records back: those that are good now come in again, as a file of events like any other.

    judge -> write a hidden file -> record its rows in `requeued` -> show the file under its name

A record comes back once, wherever the job is killed. What counts is the commit to `requeued`: before it, the hidden
file is only a leftover, and the next run deletes it; after it, the next run shows the file, which is complete on the
disk. A hidden file exists until it is shown, so showing it is never done twice.
"""

import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.config import Settings
from recsys.contracts import MODEL_UPDATES, QUARANTINE, StepId
from recsys.errors import ConfigError, InputError
from recsys.remote import is_uri
from recsys.storage import sync
from recsys.stream.recovery import current_generation, refuse_other_settings, returning
from recsys.tables import lease, ledger, quarantine
from recsys.tables import requeue as records
from recsys.tables.clean import is_good
from recsys.tables.delta import Tables
from recsys.tables.session import build_session
from recsys.tables.source import named, refuse_unusable

logger = logging.getLogger(__name__)

_PREFIX, _SUFFIX = "requeued-", ".json"


@dataclass(frozen=True)
class RequeueSummary:
    """Result of a requeue.

    Attributes:
        records: number of records that came back, or would.
        files: files that they are in, those that an earlier run had not come to show included.
        remaining: number of records that are still bad, by reason; a record may have several.
    """

    records: int
    files: tuple[Path, ...] = ()
    remaining: Mapping[str, int] = field(default_factory=dict)


def log_stage(stage: str, file: Path) -> None:
    """The default observer of stages: writes a line to the debug log."""
    logger.debug("%s: %s", file, stage)


def requeue(
    settings: Settings, dry_run: bool = False, observe: Callable[[str, Path], None] = log_stage
) -> RequeueSummary:
    """Write quarantined records that are good under these settings to the source of the stream, once each.

    It may run beside the stream. The records stay in the quarantine, where they belong to the batches that they came
    with.

    Args:
        settings: all settings, the same as those of the stream; the section `requeue` selects and corrects.
        dry_run: only count.
        observe: called with the file after each stage: `written`, `recorded`, `shown`.

    Raises:
        InputError: there is no quarantine, another upkeep is running, or the folder cannot be written to.
        LeaseError: another upkeep is running on a store of objects.
        ConfigError: there is no such source, or it is not a folder of JSON lines and no other folder is set.
    """
    refuse_unusable(settings)
    own = _of_source(settings)
    with named(settings.requeue.source):
        folder, line_end = target(own)
    tables = Tables(build_session(settings), settings.storage)
    _refuse_missing(tables, QUARANTINE)
    refuse_other_settings(settings, current_generation(tables))
    if dry_run:
        rows, remaining = _judged(tables, own)
        return RequeueSummary(pc.sum(rows[records.RECORDS]).as_py() or 0, (), remaining)
    with lease.upkeep(tables, settings.storage, "requeue"):
        records.create_missing(tables)
        files = _finish(tables, folder)
        rows, remaining = _judged(tables, own)
        for part in parts(rows, own.source.max_records_per_batch):
            digest = _digest(part)
            file = folder / f"{_PREFIX}{digest[:16]}{_SUFFIX}"
            _write_hidden(file, part, line_end)
            observe("written", file)
            records.record(tables, part, str(file), f"recsys:requeue:{digest}")
            observe("recorded", file)
            _show(file)
            observe("shown", file)
            files.append(file)
    return RequeueSummary(pc.sum(rows[records.RECORDS]).as_py() or 0, tuple(files), remaining)


def requeue_batches(settings: Settings, dry_run: bool = False) -> list[StepId]:
    """Ask for batches of the current generation that the stream has set aside because they could not be learned.

    The stream looks for requests when it starts, and learns these batches together with its next one. A batch that
    still cannot be learned stays aside, and may be asked for again. It may run beside the stream.

    Args:
        settings: all settings, the same as those of the stream; of the section `requeue`, `batches` selects.
        dry_run: only look.

    Returns:
        Their steps.

    Raises:
        InputError: there is no stream, or another upkeep is running.
    """
    tables = Tables(build_session(settings), settings.storage)
    _refuse_missing(tables, MODEL_UPDATES)
    generation = current_generation(tables)
    with nullcontext() if dry_run else lease.upkeep(tables, settings.storage, "requeue"):
        rows = ledger.read(tables, generation.number, after=-1)
        learned = {batch_id for row in rows for batch_id, done in ledger.returned(row).items() if done}
        gone = learned | set(returning(tables, generation))
        aside = [row for row in rows if ledger.is_set_aside(row) and row.step.batch_id not in gone]
        wanted = [row for row in aside if row.step.batch_id in (settings.requeue.batches or {row.step.batch_id})]
        if not dry_run and wanted:
            records.create_missing(tables)
            asked = records.requests(tables, generation.number)
            for row in wanted:
                records.request(tables, row.step, row.events, times=asked[row.step.batch_id])
    return [row.step for row in wanted]


def target(settings: Settings) -> tuple[Path, str]:
    """The folder for the files, and what ends a line in them.

    Args:
        settings: Those of the source that the records come from.

    Raises:
        ConfigError: see `requeue`.
    """
    set_path = settings.requeue.path
    if set_path is not None and is_uri(set_path):
        raise ConfigError(
            "setting 'requeue.path': requeue shows a file by renaming it, which a store of objects cannot do: set it "
            "to a folder of a file system, and add what comes into it to the source"
        )
    if set_path is not None:
        return Path(set_path).absolute(), "\n"
    source = settings.source
    options = {key.lower(): value for key, value in source.options.items()}
    pattern, line_end = options.get("pathglobfilter", "*"), options.get("linesep", "\n")
    why = None
    if source.format != "json":
        why = f"source.format is {source.format}"
    elif not Path(source.path).is_dir():
        why = f"source.path {source.path} is no folder"
    elif not fnmatch(f"{_PREFIX}0{_SUFFIX}", pattern):
        why = f"source.options.pathGlobFilter {pattern} leaves out {_PREFIX}*{_SUFFIX}"
    elif line_end.strip("\r\n"):
        why = "source.options.lineSep is no line break"
    if why is not None:
        raise ConfigError(
            f"requeue writes files of JSON lines, and {why}: set requeue.path to a folder, and add what comes into it "
            f"to the source"
        )
    return Path(source.path).absolute(), line_end


def _of_source(settings: Settings) -> Settings:
    """The settings for the source that the records come from."""
    number, every = settings.requeue.source, settings.each_source
    if number >= len(every):
        raise ConfigError(
            f"setting 'requeue.source': there is no source {number}; 0 is source, and sources has {len(every) - 1}"
        )
    return every[number]


def parts(rows: pa.Table, most: int | None) -> Iterator[pa.Table]:
    """Cut rows into files of about `most` records, because the stream reads a file as a whole."""
    counts = rows[records.RECORDS].to_numpy()
    number = (np.cumsum(counts) - counts) // (most or max(1, counts.sum()))
    edges = [*np.flatnonzero(np.diff(number, prepend=-1)), len(counts)]
    for start, end in itertools.pairwise(edges):
        yield rows.slice(start, end - start)


def _refuse_missing(tables: Tables, name: str) -> None:
    if not tables.exists(name):
        raise InputError(
            f"there is no table {tables.location(name)}: set storage.root (and storage.catalog) to those of the stream"
        )


def _judged(tables: Tables, settings: Settings) -> tuple[pa.Table, dict[str, int]]:
    """The rows that are good now, and the number of others by reason."""
    rows = records.judged(records.outstanding(tables, settings.requeue), settings).persist()
    try:
        return records.good(rows), quarantine.reasons(rows.filter(~is_good()))
    finally:
        rows.unpersist()


def _digest(part: pa.Table) -> str:
    keys = zip(*(part[column].to_pylist() for column in records.KEY), strict=True)
    return hashlib.sha256(
        "".join(f"{generation} {batch} {record}\n" for generation, batch, record in keys).encode()
    ).hexdigest()


def _finish(tables: Tables, folder: Path) -> list[Path]:
    """Do what a run that was killed has left; returns the files that it had recorded, but not shown."""
    late = [file for file in map(Path, records.recorded_files(tables)) if _hidden(file).exists()]
    for file in late:
        _show(file)
    for leftover in folder.glob(f".{_PREFIX}*{_SUFFIX}"):
        leftover.unlink()
    return late


def _hidden(file: Path) -> Path:
    """The name under which a file is written; Spark ignores it."""
    return file.with_name(f".{file.name}")


def _write_hidden(file: Path, part: pa.Table, line_end: str) -> None:
    lines = zip(part[records.LINE].to_pylist(), part[records.RECORDS].to_pylist(), strict=True)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _hidden(file).open("w", encoding="utf-8", newline="") as written:
            written.writelines(f"{line}{line_end}" * count for line, count in lines)
            written.flush()
            os.fsync(written.fileno())
        sync(file.parent)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror or error}") from error


def _show(file: Path) -> None:
    os.utime(_hidden(file))  # Spark reads files in order of their times.
    _hidden(file).rename(file)
    sync(file.parent)

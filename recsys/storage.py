"""All paths under `storage.root`, and the locks of the jobs that write there.

tables/                       the Delta tables, unless `storage.catalog` is set
checkpoint/                   Spark's progress in the source
state/generation-G/           snapshots of the model, one file each, or factors that executors have solved
items/                        embeddings of item texts, and the adapter of each generation
plots/quality.png             quality and cost over the batches
plots/report.html             the report, see `recsys.report`
mlflow.db, mlflow-artifacts/  runs and versions, unless `mlflow.tracking_uri` is set
writer.lock                   held by the job that writes
upkeep.lock                   held by maintain or requeue, which run beside that job
read-by-executors-…           there for a moment at each start on a cluster
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from recsys.errors import InputError, OutsideDownError, RecsysError, is_outage

_ADAPTER = "adapter-generation-"


def table_path(root: str, name: str) -> str:
    """Path of a Delta table. It is absolute, because Delta reads a relative path as a table name; a scheme is kept."""
    root = root.rstrip("/")
    return f"{root if ':/' in root else Path(root).absolute()}/tables/{name}"


def checkpoint_folder(root: str) -> Path:
    """Folder of the streaming checkpoint."""
    return Path(root) / "checkpoint"


def snapshot_folder(root: str) -> Path:
    """Folder of the model's snapshots; `model.snapshot` names the files."""
    return Path(root) / "state"


def items_folder(root: str) -> Path:
    """Folder of the embeddings of item texts."""
    return Path(root) / "items"


def adapter_folder(root: str, generation: int) -> Path:
    """Folder of a generation's adapter of the text encoder, if its rebuild trained one."""
    return items_folder(root) / f"{_ADAPTER}{generation}"


def earlier_adapters(root: str, generation: int) -> list[Path]:
    """Folders of the adapters of earlier generations."""
    return earlier_generations(items_folder(root), _ADAPTER, generation)


def earlier_generations(folder: Path, prefix: str, generation: int) -> list[Path]:
    """Entries of a folder that are named by a prefix and the number of an earlier generation."""
    numbered = ((entry, entry.name.removeprefix(prefix)) for entry in sorted(folder.glob(f"{prefix}*")))
    return [entry for entry, number in numbered if number.isdigit() and int(number) < generation]


def remove(path: Path) -> None:
    """Remove a file or a folder; none is fine, too, as where two jobs remove the same."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the operating system write a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def plot_file(root: str) -> Path:
    """Plot of quality and cost over the batches."""
    return Path(root) / "plots" / "quality.png"


def report_file(root: str) -> Path:
    """The report."""
    return Path(root) / "plots" / "report.html"


def mlflow_database(root: str) -> Path:
    """Absolute path of the MLflow database, used when no tracking server is set."""
    return Path(root).absolute() / "mlflow.db"


def mlflow_artifacts(root: str) -> Path:
    """Absolute path of MLflow's artifacts, used when no tracking server is set."""
    return Path(root).absolute() / "mlflow-artifacts"


@contextmanager
def writer_lock(root: str) -> Iterator[None]:
    """Let one job at a time write under a storage root. The lock is released when the process ends.

    Raises:
        InputError: the folder cannot be written, or another job holds the lock.
        OutsideDownError: the file system does not answer, or is full.
    """
    with _lock(root, "writer.lock", "another job is writing to"):
        yield


@contextmanager
def upkeep_lock(root: str) -> Iterator[None]:
    """Let one of the jobs `maintain` and `requeue` at a time work under a storage root, beside the job that writes.

    Raises:
        InputError: as `writer_lock`.
    """
    with _lock(root, "upkeep.lock", "maintain or requeue is running on"):
        yield


@contextmanager
def note_to_executors(root: str, text: str) -> Iterator[Path]:
    """A file under a storage root that all users may read, for as long as the context lasts.

    Raises:
        InputError: the folder cannot be written.
        OutsideDownError: the file system does not answer, or is full.
    """
    note = Path(root).absolute() / f"read-by-executors-{uuid.uuid4().hex}"
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(text, "utf-8")
    except OSError as error:
        raise _unwritable(root, error) from error
    try:
        yield note
    finally:
        note.unlink(missing_ok=True)


@contextmanager
def _lock(root: str, name: str, held: str) -> Iterator[None]:
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        lock = FileLock(Path(root) / name)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"{held} storage.root {root}: wait for its end, or stop it") from error
    except OSError as error:
        raise _unwritable(root, error) from error
    try:
        yield
    finally:
        lock.release()


def _unwritable(root: str, error: OSError) -> RecsysError:
    kind = OutsideDownError if is_outage(error) else InputError
    return kind(f"storage.root {root} cannot be written: {error.strerror or error}")

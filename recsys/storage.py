"""All paths under `storage.root`, and the locks of the jobs that write there.

The root is a folder, or a URI in a store of objects (`remote.STORES`). There, a file is replaced by an upload and
not by a rename, leases take the place of the locks, and MLflow has to be elsewhere.

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
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from recsys.errors import ConfigError, InputError, OutsideDownError, RecsysError, is_outage
from recsys.remote import STORES, RemotePath, is_uri

_ADAPTER = "adapter-generation-"

# A file or folder under a root.
Place = Path | RemotePath


def refuse_unsupported(root: str, tracking_uri: str | None) -> None:
    """Refuse a root with which no job could work.

    Args:
        root: `storage.root`.
        tracking_uri: `mlflow.tracking_uri`.

    Raises:
        ConfigError: its scheme is not supported, it holds a password, or MLflow's database would lie there.
    """
    if not is_uri(root):
        return
    scheme, _, rest = root.partition("://")
    names = ", ".join(f"{name}://" for name in STORES)
    if root.startswith("dbfs:"):
        raise ConfigError(
            "storage.root: dbfs:/ is not supported, because its files cannot be replaced in one step: set it to a "
            "volume, /Volumes/CATALOG/SCHEMA/VOLUME/FOLDER"
        )
    if scheme not in STORES:
        meant = "; Spark knows S3 as s3a://" if scheme.lower() in ("s3", "s3n") else ""
        raise ConfigError(f"storage.root: its scheme is none of {names}{meant}: set it to one of them, or to a folder")
    place = rest.partition("/")[0]
    if not place or any(letter in root for letter in "?#") or ":" in place.partition("@")[0]:
        raise ConfigError(
            f"storage.root: a URI is {scheme}://BUCKET/FOLDER, without user, password or options: credentials belong "
            f"into the environment"
        )
    if tracking_uri is None:
        raise ConfigError(
            f"mlflow.tracking_uri is null, and no database can lie under storage.root {root}: set it to the address "
            "of a tracking server"
        )


def place_of(root: str) -> Place:
    """The root as a folder."""
    return RemotePath(root.rstrip("/")) if is_uri(root) else Path(root)


def table_path(root: str, name: str) -> str:
    """Path of a Delta table. It is absolute, because Delta reads a relative path as a table name; a scheme is kept."""
    root = root.rstrip("/")
    return f"{root if is_uri(root) else Path(root).absolute()}/tables/{name}"


def checkpoint_folder(root: str) -> Place:
    """Folder of the streaming checkpoint."""
    return place_of(root) / "checkpoint"


def snapshot_folder(root: str) -> Place:
    """Folder of the model's snapshots; `model.snapshot` names the files."""
    return place_of(root) / "state"


def items_folder(root: str) -> Place:
    """Folder of the embeddings of item texts."""
    return place_of(root) / "items"


def adapter_folder(root: str, generation: int) -> Place:
    """Folder of a generation's adapter of the text encoder, if its rebuild trained one."""
    return items_folder(root) / f"{_ADAPTER}{generation}"


def earlier_adapters(root: str, generation: int) -> list[Place]:
    """Folders of the adapters of earlier generations."""
    return earlier_generations(items_folder(root), _ADAPTER, generation)


def earlier_generations(folder: Place, prefix: str, generation: int) -> list[Place]:
    """Entries of a folder that are named by a prefix and the number of an earlier generation."""
    named = {entry.name.removeprefix(prefix): entry for entry in folder.glob(f"{prefix}*")}
    return [entry for number, entry in sorted(named.items()) if number.isdigit() and int(number) < generation]


def remove(place: Place) -> None:
    """Remove a file or a folder; none is fine, too, as where two jobs remove the same."""
    if isinstance(place, RemotePath):
        place.remove()
    elif place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


@contextmanager
def written(place: Place) -> Iterator[Path]:
    """A file to write, whose content takes a place when the context ends. At any instant there is the old or the new.

    What a process that was killed leaves in a folder is named `.*.tmp`.

    Raises:
        OSError: it cannot be written.
        InputError, OutsideDownError: the store of objects refuses it, or does not answer.
    """
    if isinstance(place, RemotePath):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder, place.name)
            place.upload(Path(folder, place.name))
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, place)
    finally:
        temporary.unlink(missing_ok=True)
    sync(place.parent)


@contextmanager
def written_folder(place: Place, last: str) -> Iterator[Path]:
    """A folder to fill, which takes a place when the context ends.

    Args:
        place: what is there is removed.
        last: name of the file that is uploaded last in a store of objects, so that a folder with it is whole.

    Raises:
        OSError, InputError, OutsideDownError: as `written`.
    """
    if isinstance(place, RemotePath):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            remove(place)
            for file in sorted(Path(folder).iterdir(), key=lambda file: (file.name == last, file.name)):
                (place / file.name).upload(file)
        return
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        shutil.rmtree(place, ignore_errors=True)
        os.replace(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def at_hand(place: Place) -> Iterator[Path]:
    """A file, or a folder of files, as one on this machine; a copy of it lasts as long as the context.

    Raises:
        FileNotFoundError: there is none.
        InputError, OutsideDownError: the store of objects refuses it, or does not answer.
    """
    if not isinstance(place, RemotePath):
        yield place
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, place.name)
        if place.is_dir():
            copy.mkdir()
            for name in place.files():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).download(copy / name)
        else:
            place.download(copy)
        yield copy


def sync(path: Path) -> None:
    """Have the operating system write a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def plot_file(root: str) -> Place:
    """Plot of quality and cost over the batches."""
    return place_of(root) / "plots" / "quality.png"


def report_file(root: str) -> Place:
    """The report."""
    return place_of(root) / "plots" / "report.html"


def mlflow_database(root: str) -> Path:
    """Absolute path of the MLflow database, used when no tracking server is set."""
    return Path(root).absolute() / "mlflow.db"


@contextmanager
def writer_lock(root: str) -> Iterator[None]:
    """Let one job at a time write under a storage root. The lock is released when the process ends.

    A store of objects has no locks: there, only the lease of the tables keeps others out, see `tables.lease`.

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
    if isinstance(place := place_of(root), RemotePath):
        place.refuse_unusable()
        yield
        return
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

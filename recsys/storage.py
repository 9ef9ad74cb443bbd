"""Every path under `storage.root`, and who may write there.

tables/                       the Delta tables, unless `storage.catalog` is set
checkpoint/                   what Spark has read of the source
state/generation-G/           snapshots of the model, one file per batch that saved one
items/                        embeddings of item texts, and the adapter of each generation
plots/quality.png             quality and cost over the batches
mlflow.db, mlflow-artifacts/  runs and versions, unless `mlflow.tracking_uri` is set
writer.lock                   held by the one job that writes
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from recsys.errors import InputError


def table_path(root: str, name: str) -> str:
    """Where a Delta table lies: absolute, as Delta takes a relative path for a table's name; a scheme is kept."""
    root = root.rstrip("/")
    return f"{root if ':/' in root else Path(root).absolute()}/tables/{name}"


def checkpoint_folder(root: str) -> Path:
    """Where Spark keeps what it has read."""
    return Path(root) / "checkpoint"


def snapshot_folder(root: str) -> Path:
    """Where the snapshots of the model's state lie; `model.snapshot` names the files."""
    return Path(root) / "state"


def items_folder(root: str) -> Path:
    """Where embeddings of item texts are kept."""
    return Path(root) / "items"


def adapter_folder(root: str, generation: int) -> Path:
    """Where the adapter of the text encoder of a generation lies, if its rebuild trained one."""
    return items_folder(root) / f"adapter-generation-{generation}"


def plot_file(root: str) -> Path:
    """The picture of quality and cost over the batches."""
    return Path(root) / "plots" / "quality.png"


def mlflow_database(root: str) -> Path:
    """The MLflow database when no tracking server is set; absolute."""
    return Path(root).absolute() / "mlflow.db"


def mlflow_artifacts(root: str) -> Path:
    """MLflow's artifacts when no tracking server is set; absolute."""
    return Path(root).absolute() / "mlflow-artifacts"


@contextmanager
def writer_lock(root: str) -> Iterator[None]:
    """Let one job at a time write below a storage root; the lock is free again when its process is gone.

    Raises:
        InputError: the folder cannot be written, or another job holds the lock.
    """
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        lock = FileLock(Path(root) / "writer.lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"another job is writing to storage.root {root}: wait for its end, or stop it") from error
    except OSError as error:
        raise InputError(f"storage.root {root} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()

"""The jobs under fire, each as a process of its own that may die at a fault point."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from recsys.batch_scoring import chosen_version, score
from recsys.cli import run_job
from recsys.config import Settings
from recsys.stream.backfill import backfill
from recsys.stream.job import run_stream
from recsys.stream.maintenance import maintain
from recsys.stream.rebuild import rebuild
from recsys.tables.delta import Tables
from recsys.tables.session import build_session
from tests.fire import points

_WAIT_SECONDS = 600
# What a job imports only when it comes to it: seconds of each process.
_IMPORTED_LATE = ("torch._dynamo", "mlflow.store.tracking.sqlalchemy_store", "matplotlib.backends.backend_agg")


def stream(settings: Settings) -> None:
    run_stream(settings)


def batch_score(settings: Settings) -> None:
    version = chosen_version(settings)
    tables = Tables(build_session(settings), settings.storage)
    tables.create_missing()
    score(tables, version, settings)


JOBS: dict[str, Callable[[Settings], object]] = {
    "stream_update": stream,
    "backfill": backfill,
    "rebuild": rebuild,
    "batch_score": batch_score,
    "maintain": maintain,
}


@dataclass(frozen=True)
class Fault:
    """Where a process dies.

    Attributes:
        point: name of the fault point; None: nowhere.
        passes: how often the process passes it before it dies there.
    """

    point: str | None = None
    passes: int = 0


def start(name: str, config: Path, fault: Fault = Fault(), record: Path | None = None) -> BaseProcess:
    """Start a job as a process.

    Args:
        name: a key of `JOBS`.
        config: its settings.
        fault: where it dies.
        record: file that gets the names of the points it passes.
    """
    # A server imports everything once; each process is a copy of it, with a JVM of its own.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__, *_IMPORTED_LATE])
    process = processes.Process(target=_run, args=(name, config, fault, record))
    process.start()
    return process


def end(process: BaseProcess, config: Path, within: float = _WAIT_SECONDS) -> int:
    """Wait for a process, kill it after `within` seconds, and return its exit status; negative: the signal.

    Raises:
        RuntimeError: it has failed; the message has the end of what it printed.
    """
    process.join(timeout=within)
    if process.is_alive():
        process.kill()
        process.join()
    assert process.exitcode is not None
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{process.name} ended with {process.exitcode}: {printed(config).read_text()[-6000:]}")
    return process.exitcode


def printed(config: Path) -> Path:
    """What the jobs of a storage have printed."""
    return config.with_suffix(".log")


def _run(name: str, config: Path, fault: Fault, record: Path | None) -> None:
    with printed(config).open("ab") as output:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    passed: dict[str, int] = {}

    def reached(point: str) -> None:
        passed[point] = passed.get(point, 0) + 1
        if point == fault.point and passed[point] > fault.passes:
            os.kill(os.getpid(), signal.SIGKILL)

    points.install(reached)
    status = run_job(JOBS[name], ["--config", str(config)])
    if record is not None:
        record.write_text("\n".join(f"{count} {point}" for point, count in passed.items()))
    sys.exit(status)

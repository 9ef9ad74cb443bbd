"""A real job as a process that dies by SIGKILL at one stage boundary."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from recsys.cli import run_job
from recsys.config import Settings
from recsys.contracts import StepId
from recsys.stream.job import run_stream

Job = Callable[..., object]


def start(config: Path, stage: str = "none", batch: int = -1, job: Job = run_stream) -> BaseProcess:
    """Start a job, which takes settings and `observe`, as a process; it dies at the end of the stage in the batch."""
    # A server imports everything once; each process is a copy of it, with a JVM of its own.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    process = processes.Process(target=_run, args=(config, stage, batch, job))
    process.start()
    return process


def end(process: BaseProcess, config: Path) -> int | None:
    """Wait for a process and return its exit status; negative: the signal that ended it."""
    process.join(timeout=300)
    if process.is_alive():
        process.kill()
        pytest.fail(_printed(config).read_text()[-4000:])
    assert process.exitcode in (0, -signal.SIGKILL), _printed(config).read_text()[-4000:]
    return process.exitcode


def _printed(config: Path) -> Path:
    return config.with_suffix(".log")


def _run(config: Path, stage: str, batch: int, job: Job) -> None:
    """Run the job and exit as it does; the stage `none` lets it run to its end."""
    with _printed(config).open("ab") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)

    def die(reached: str, step: StepId) -> None:
        if reached == stage and step.batch_id == batch:
            os.kill(os.getpid(), signal.SIGKILL)

    def observed(settings: Settings) -> None:
        job(settings, observe=die)

    sys.exit(run_job(observed, ["--config", str(config)]))

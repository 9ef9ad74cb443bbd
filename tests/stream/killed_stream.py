"""The real stream job, for a process that dies by SIGKILL at one stage boundary."""

import os
import signal
import sys
from pathlib import Path

from recsys.cli import run_job
from recsys.config import Settings
from recsys.contracts import StepId
from recsys.stream.job import run_stream


def printed(config: Path) -> Path:
    """Where the jobs of a configuration print to."""
    return config.with_suffix(".log")


def run(config: Path, stage: str, batch: int) -> None:
    """Run the job and exit as it does; the stage `none` lets it run to its end."""
    with printed(config).open("ab") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)

    def die(reached: str, step: StepId) -> None:
        if reached == stage and step.batch_id == batch:
            os.kill(os.getpid(), signal.SIGKILL)

    def stream_update(settings: Settings) -> None:
        run_stream(settings, observe=die)

    sys.exit(run_job(stream_update, ["--config", str(config)]))

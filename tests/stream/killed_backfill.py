"""The real backfill, for a process that dies by SIGKILL at one stage boundary."""

import os
import signal
import sys
from pathlib import Path

from recsys.cli import run_job
from recsys.config import Settings
from recsys.contracts import StepId
from recsys.stream.backfill import backfill


def run(config: Path, stage: str, batch: int) -> None:
    """Run the job and exit as it does; the stage `none` lets it run to its end."""
    with config.with_suffix(".log").open("ab") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)

    def die(reached: str, step: StepId) -> None:
        if reached == stage and step.batch_id == batch:
            os.kill(os.getpid(), signal.SIGKILL)

    def backfill_history(settings: Settings) -> None:
        backfill(settings, observe=die)

    sys.exit(run_job(backfill_history, ["--config", str(config)]))

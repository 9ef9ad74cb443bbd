"""The real stream job as a process that dies by SIGKILL at one stage boundary.

    python tests/stream/killed_stream.py STAGE BATCH --config FILE [key=value ...]

`none` as the stage lets it run to its end.
"""

import os
import signal
import sys

from recsys.cli import run_job
from recsys.config import Settings
from recsys.contracts import StepId
from recsys.stream.job import run_stream


def main() -> int:
    stage, batch, *arguments = sys.argv[1:]

    def die(reached: str, step: StepId) -> None:
        if reached == stage and step.batch_id == int(batch):
            os.kill(os.getpid(), signal.SIGKILL)

    def stream_update(settings: Settings) -> None:
        run_stream(settings, observe=die)

    return run_job(stream_update, arguments)


if __name__ == "__main__":
    sys.exit(main())

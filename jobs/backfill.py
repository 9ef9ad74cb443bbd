"""spark-submit jobs/backfill.py --config conf/local.yaml [key.sub=value ...]"""

import sys

from recsys.cli import run_job
from recsys.config import Settings
from recsys.stream.backfill import backfill


def backfill_history(settings: Settings) -> None:
    """Take old events in as if they had streamed: cut by time into batches that are evaluated and learned in order."""
    summary = backfill(settings)
    if not summary.finished:
        print("stopped before the end: run the same command again to go on")
    print(f"{summary.learned:,} of {summary.batches:,} batches")


if __name__ == "__main__":
    sys.exit(run_job(backfill_history))

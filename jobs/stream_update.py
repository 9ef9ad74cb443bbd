"""spark-submit jobs/stream_update.py --config conf/local.yaml [key.sub=value ...]"""

import sys

from recsys.cli import run_job
from recsys.config import Settings
from recsys.stream.job import run_stream


def stream_update(settings: Settings) -> None:
    """Read events as they come and keep the interaction tables and the model up to date."""
    summary = run_stream(settings)
    duplicates = f", {summary.duplicates:,} duplicates dropped" if summary.duplicates else ""
    print(f"{summary.batches:,} batches, {summary.events:,} events learned{duplicates}")
    print(f"champion: version {summary.champion_version or '– (none is registered yet)'}")
    if summary.plot is not None:
        print(f"quality over the batches: {summary.plot}")


if __name__ == "__main__":
    sys.exit(run_job(stream_update))

"""python jobs/replay_events.py --config conf/demo.yaml [key.sub=value ...]"""

import sys

from recsys.cli import run_job
from recsys.config import Settings
from recsys.stream.replay import replay


def replay_events(settings: Settings) -> None:
    """Turn a data set (`replay.dataset`) into a stream of JSON-lines files in `source.path`."""
    written = replay(settings)
    print(f"{written.events:,} events in {written.files:,} files in {settings.source.path}")


if __name__ == "__main__":
    sys.exit(run_job(replay_events))

"""python jobs/replay_events.py --config conf/demo.yaml [key.sub=value ...]"""

import sys

from recsys.cli import run_job
from recsys.config import Settings

EXAMPLES = {
    "a Parquet file with the standard column names": ("source.path=var/replay replay.dataset=/data/events.parquet"),
    "the purchases of the demo, one file every 10 seconds": "--config conf/demo.yaml replay.pause_seconds=10",
}
SETTINGS = (
    "replay.dataset",
    "replay.until",
    "replay.events_per_file",
    "replay.pause_seconds",
    "source.path",
    "source.columns.user_id",
    "source.columns.item_id",
    "source.columns.event_type",
    "source.columns.value",
    "source.columns.event_time",
)


def replay_events(settings: Settings) -> None:
    """Turn a data set (`replay.dataset`) into a stream of JSON-lines files in `source.path`, in order of time."""
    # Imported here, so that neither help nor a wrong setting waits for Spark and torch.
    from recsys.stream.replay import replay

    written = replay(settings)
    print(f"{written.events:,} events written to {written.files:,} files in {settings.source.path}")
    print("next: jobs/stream_update.py, with the same settings, reads them")


if __name__ == "__main__":
    sys.exit(run_job(replay_events, examples=EXAMPLES, settings=SETTINGS))

"""python jobs/replay_events.py --config conf/demo.yaml [key.sub=value ...]"""

import sys

from recsys.cli import run_job
from recsys.config import Settings

EXAMPLES = {
    "a Parquet file with the standard column names": ("source.path=var/replay replay.dataset=/data/events.parquet"),
    "the same to a topic; my.yaml has source.topics and source.options": "--config my.yaml --to kafka",
    "the purchases of the demo, one file every 10 seconds": "--config conf/demo.yaml replay.pause_seconds=10",
}
SETTINGS = (
    "replay.dataset",
    "replay.until",
    "replay.events_per_file",
    "replay.pause_seconds",
    "source.path",
    "source.topics",
    "source.columns.user_id",
    "source.columns.item_id",
    "source.columns.event_type",
    "source.columns.event_time",
)
FORMATS = {"files": "json", "kafka": "kafka"}
OPTIONS = {"--to": {"choices": tuple(FORMATS), "help": "where to, in place of what source.format says"}}


def replay_events(settings: Settings, to: str | None = None) -> None:
    """Turn a data set (`replay.dataset`) into a stream of events, in order of time.

    They become JSON-lines files in `source.path`, or Kafka records in the first of `source.topics`.
    """
    # Imported here, so that neither help nor a wrong setting waits for Spark and torch.
    from recsys.stream.replay import replay

    if to is not None:
        source = settings.source.model_copy(update={"format": FORMATS[to]})
        settings = settings.model_copy(update={"source": source})
    written = replay(settings)
    source = settings.source
    place = f"topic {source.topics[0]}" if source.format == "kafka" else f"{written.files:,} files in {source.path}"
    print(f"{written.events:,} events written to {place}")
    print(f"next: jobs/stream_update.py, with the same settings and source.format={settings.source.format}, reads them")


if __name__ == "__main__":
    sys.exit(run_job(replay_events, examples=EXAMPLES, settings=SETTINGS, options=OPTIONS))

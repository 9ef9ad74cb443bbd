"""spark-submit jobs/stream_update.py --config conf/local.yaml [key.sub=value ...]"""

import sys

from recsys.cli import run_job
from recsys.config import Settings
from recsys.words import count

EXAMPLES = {
    "process what has arrived since the last run, then end": "--config my.yaml",
    "keep running": "--config my.yaml trigger.mode=processing_time",
    "JSON lines with the standard column names; no settings file needed": "source.path=/data/events",
}
SETTINGS = (
    "source.format",
    "source.path",
    "source.columns.event_id",
    "source.max_records_per_batch",
    "trigger.mode",
    "weights",
    "storage.root",
    "model.kind",
    "register.every_batches",
    "mlflow.tracking_uri",
)


def stream_update(settings: Settings) -> None:
    """Read events as they come and keep the interaction tables and the model up to date.

    Each micro-batch is evaluated, then learned, and versions are registered in MLflow. After a stop or a kill, the next
    run continues where this one ended. For a long history, run jobs/backfill.py first: it is faster.
    """
    # Imported here, so that neither help nor a wrong setting waits for Spark and torch, nor one for the other.
    from recsys.tables.source import begin_events, refuse_unusable

    refuse_unusable(settings)
    opening = begin_events(settings)
    from recsys.stream.job import run_stream

    summary = run_stream(settings, opening=opening)
    duplicates = f", {summary.duplicates:,} duplicates dropped" if summary.duplicates else ""
    print(f"{count(summary.batches, 'batch', 'batches')}, {count(summary.events, 'event')} learned{duplicates}")
    print(f"champion: version {summary.champion_version or '– (none is registered yet)'}")
    if summary.plot is not None:
        print(f"quality over the batches: {summary.plot}")


if __name__ == "__main__":
    sys.exit(run_job(stream_update, examples=EXAMPLES, settings=SETTINGS))

"""spark-submit jobs/backfill.py --config conf/local.yaml [key.sub=value ...]"""

import sys

from recsys.cli import run_job
from recsys.config import Settings
from recsys.words import count

EXAMPLES = {
    "a folder of JSON lines with the standard column names": "source.path=/data/history",
    "a CSV file of ratings with other column names": (
        "source.format=csv source.path=/data/ratings.csv source.columns.user_id=userId source.columns.item_id=movieId "
        "source.columns.event_time=timestamp source.default_event_type=rating"
    ),
    "batches of about 5,000 events": "--config my.yaml source.max_records_per_batch=5000",
}
SETTINGS = (
    "source.format",
    "source.path",
    "source.columns.user_id",
    "source.columns.event_type",
    "source.columns.event_id",
    "source.default_event_type",
    "source.max_records_per_batch",
    "weights",
    "storage.root",
    "model.kind",
)


def backfill_history(settings: Settings) -> None:
    """Load a history in bulk as if it had streamed.

    It is cut by time into about a hundred batches, fewer for a short history. They are evaluated and learned in
    order, and a first version is registered. The storage has to be empty. After a stop or a kill, run the same command
    again to continue. Afterward jobs/stream_update.py reads new events.
    """
    # Imported here, so that neither help nor a wrong setting waits for Spark and torch, nor one for the other.
    from recsys.tables.session import begin_session
    from recsys.tables.source import refuse_unusable

    refuse_unusable(settings)
    begin_session(settings)
    from recsys.stream.backfill import backfill

    summary = backfill(settings)
    if not summary.finished:
        print(f"stopped after {summary.learned:,} batches: run the same command again to continue")
        return
    if not summary.learned:
        print(f"nothing to do: all {summary.batches:,} batches of the history are learned already")
    else:
        duplicates = f", {summary.duplicates:,} duplicates dropped" if summary.duplicates else ""
        print(f"{count(summary.learned, 'batch', 'batches')}, {count(summary.events, 'event')} learned{duplicates}")
        for reason, records in summary.quarantined.items():
            print(f"quarantined, {reason}: {records:,}")
        print(f"champion: version {summary.champion_version or '– (none is registered yet)'}")
        print(f"quality over the batches: {summary.plot}")
    print("next: jobs/batch_score.py recommends items to every user; jobs/stream_update.py reads new events")


if __name__ == "__main__":
    sys.exit(run_job(backfill_history, examples=EXAMPLES, settings=SETTINGS))

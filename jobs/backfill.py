"""spark-submit jobs/backfill.py --config conf/local.yaml [key.sub=value ...]"""

import sys

from recsys.cli import run_job
from recsys.config import Settings
from recsys.stream.backfill import backfill

EXAMPLES = {
    "a history in the columns of the event contract, JSON lines in a folder": "source.path=/data/history",
    "a CSV of ratings whose columns have other names": (
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
    """Take a history in bulk as if it had streamed.

    It is cut by time into about a hundred batches of at least 1,000 events each, which are evaluated and learned in
    order, up to a first registered version. The storage has to be empty. Stopped or killed, it goes on when the same
    command runs again. jobs/stream_update.py then reads what is new.
    """
    summary = backfill(settings)
    if not summary.finished:
        print(f"stopped after {summary.learned:,} batches: run the same command again to go on")
        return
    if not summary.learned:
        print(f"nothing to do: the history is in, as {summary.batches:,} batches")
    else:
        duplicates = f", {summary.duplicates:,} duplicates dropped" if summary.duplicates else ""
        print(f"{summary.learned:,} batches, {summary.events:,} events learned{duplicates}")
        for reason, count in summary.quarantined.items():
            print(f"quarantined: {count:,} records, {reason}")
        print(f"champion: version {summary.champion_version or '– (none is registered yet)'}")
        print(f"quality over the batches: {summary.plot}")
    print("next: jobs/batch_score.py recommends to every user, jobs/stream_update.py goes on with new events")


if __name__ == "__main__":
    sys.exit(run_job(backfill_history, examples=EXAMPLES, settings=SETTINGS))

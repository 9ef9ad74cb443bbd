"""spark-submit jobs/requeue.py --config conf/local.yaml [--dry-run] [key.sub=value ...]"""

import sys

from recsys.cli import run_job
from recsys.config import Settings

EXAMPLES = {
    "how many records would come back, after a correction of my.yaml": "--config my.yaml --dry-run",
    "those of two batches": "--config my.yaml requeue.batches=[17,18]",
    "batches that could not be learned": "--config my.yaml --set-aside",
    "into another folder, because the source is not a folder of JSON lines": "--config my.yaml requeue.path=corrected",
}
SETTINGS = (
    "requeue.source",
    "requeue.reasons",
    "requeue.batches",
    "requeue.event_types",
    "requeue.columns",
    "requeue.path",
    "source.path",
    "source.columns.event_id",
    "weights",
    "storage.root",
)
OPTIONS = {
    "--dry-run": {"action": "store_true", "help": "count what would come back, and change nothing"},
    "--set-aside": {
        "action": "store_true",
        "help": "bring back whole batches that could not be learned, instead of records",
    },
}


def requeue_records(settings: Settings, dry_run: bool, set_aside: bool) -> None:
    """Bring quarantined records back that are good under the present settings, each of them once.

    They are written to the source as a file of events, which the stream reads as any other. Records that are still bad
    stay in the quarantine. It may run beside the stream.
    """
    # Imported here, so that neither help nor a wrong setting waits for Spark and torch.
    from recsys.stream.requeue import requeue, requeue_batches

    if set_aside:
        steps = requeue_batches(settings, dry_run)
        print(f"{len(steps):,} batches {'would come' if dry_run else 'come'} back: {', '.join(map(str, steps))}")
        if steps:
            print("next: restart jobs/stream_update.py, which learns them together with its next batch")
        return
    summary = requeue(settings, dry_run)
    print(f"{summary.records:,} records {'would come' if dry_run else 'have come'} back")
    for file in summary.files:
        print(f"  in {file}")
    for reason, count in summary.remaining.items():
        print(f"still bad: {count:,} records, {reason}")
    if summary.files:
        print("next: jobs/stream_update.py reads them, or the running stream does")


if __name__ == "__main__":
    sys.exit(run_job(requeue_records, examples=EXAMPLES, settings=SETTINGS, options=OPTIONS))

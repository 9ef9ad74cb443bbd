"""spark-submit jobs/maintain.py --config conf/local.yaml [--dry-run] [key.sub=value ...]"""

import sys

from recsys.cli import run_job
from recsys.config import Settings

EXAMPLES = {
    "say what would go, and change nothing": "--config my.yaml --dry-run",
    "keep few versions, and rejected records for a month": (
        "--config my.yaml maintain.versions_kept=5 maintain.quarantine_days=30"
    ),
}
SETTINGS = (
    "maintain.versions_kept",
    "maintain.quarantine_days",
    "storage.root",
    "storage.catalog",
    "mlflow.tracking_uri",
    "mlflow.model_name",
)
OPTIONS = {"--dry-run": {"action": "store_true", "help": "say what would be done, and change nothing"}}


def maintain_storage(settings: Settings, dry_run: bool) -> None:
    """Compact the tables and delete what is no longer needed, while the stream runs.

    That is: files of old table versions, old rejected records, and snapshots, adapters and registered versions that
    nothing uses. Each deletion is logged.
    """
    # Imported here, so that neither help nor a wrong setting waits for Spark and torch.
    from recsys.stream.maintenance import maintain

    lines = maintain(settings, dry_run)
    if not lines:
        print("nothing to do")


if __name__ == "__main__":
    sys.exit(run_job(maintain_storage, examples=EXAMPLES, settings=SETTINGS, options=OPTIONS))

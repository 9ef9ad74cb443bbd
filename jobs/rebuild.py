"""spark-submit jobs/rebuild.py --config conf/local.yaml [key.sub=value ...]"""

import sys

from recsys.cli import run_job
from recsys.config import Settings
from recsys.rebuild import rebuild


def rebuild_model(settings: Settings) -> None:
    """Train the model anew from the whole interaction log, and begin a new epoch with it."""
    rebuilt = rebuild(settings)
    print(f"epoch {rebuilt.epoch} begins: {rebuilt.users:,} users, {rebuilt.items:,} items, trained in {rebuilt.seconds:.1f} s")
    print(f"registered as version {rebuilt.version.version}{'' if not rebuilt.promoted else ', champion'}")
    print("the stream goes on from here: run jobs/stream_update.py with the same settings")


if __name__ == "__main__":
    sys.exit(run_job(rebuild_model))

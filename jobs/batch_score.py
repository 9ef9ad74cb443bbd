"""spark-submit jobs/batch_score.py --config conf/local.yaml [key.sub=value ...]"""

import sys

from recsys.batch_scoring import score
from recsys.cli import run_job
from recsys.config import Settings
from recsys.contracts import RECOMMENDATIONS
from recsys.registry.client import connect
from recsys.tables.delta import Tables
from recsys.tables.session import build_session


def batch_score(settings: Settings) -> None:
    """Let the champion (or `recommend.model`) recommend items to every user it knows."""
    client = connect(settings)
    tables = Tables(build_session(settings), settings.storage)
    tables.create_missing()
    scored = score(tables.spark, tables, client, settings)
    print(f"{scored.users:,} users scored by version {scored.version.version} of {scored.version.name}")
    print(f"recommendations: {tables.location(RECOMMENDATIONS)}")


if __name__ == "__main__":
    sys.exit(run_job(batch_score))

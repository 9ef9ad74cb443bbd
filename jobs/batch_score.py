"""spark-submit jobs/batch_score.py --config conf/local.yaml [key.sub=value ...]"""

import sys

from recsys.cli import run_job
from recsys.config import Settings
from recsys.contracts import ITEM, RECOMMENDATIONS, USER

EXAMPLES = {
    "the champion's lists for every user": "--config my.yaml",
    "longer lists that may contain seen items": "--config my.yaml recommend.k=50 recommend.exclude_seen=false",
    "a version other than the champion": "--config my.yaml recommend.model=models:/recsys/3",
}
SETTINGS = (
    "recommend.k",
    "recommend.exclude_seen",
    "recommend.model",
    "storage.root",
    "storage.catalog",
    "mlflow.tracking_uri",
    "mlflow.model_name",
    "spark",
)
USERS_SHOWN, ITEMS_SHOWN = 3, 5


def batch_score(settings: Settings) -> None:
    """Let the champion (or `recommend.model`) recommend items to every user it knows.

    The lists that have changed are written to the table `recommendations`, in one commit.
    """
    # Imported here, so that neither help nor a wrong setting waits for Spark and torch.
    from recsys.batch_scoring import chosen_version, score
    from recsys.tables.delta import Tables
    from recsys.tables.session import build_session

    version = chosen_version(settings)
    tables = Tables(build_session(settings), settings.storage)
    tables.create_missing()
    scored = score(tables, version, settings)
    print(
        f"{scored.users:,} users have recommendations of {version.name}, version {version.version}, "
        f"{scored.changed:,} of them another list than before; the first of them:"
    )
    for row in tables.read(RECOMMENDATIONS).orderBy(USER).limit(USERS_SHOWN).collect():
        print(f"  {row[USER]}: {', '.join(item[ITEM] for item in row['items'][:ITEMS_SHOWN])}")
    print(f"recommendations: {tables.location(RECOMMENDATIONS)}")


if __name__ == "__main__":
    sys.exit(run_job(batch_score, examples=EXAMPLES, settings=SETTINGS))

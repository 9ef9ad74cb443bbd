"""spark-submit jobs/batch_score.py --config conf/local.yaml [key.sub=value ...]"""

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from recsys.cli import run_job
from recsys.config import Settings
from recsys.contracts import ITEM, RECOMMENDATIONS, USER

if TYPE_CHECKING:
    from recsys.tables.scoring_runs import ScoringRun

EXAMPLES = {
    "the champion's lists for every user": "--config my.yaml",
    "longer lists that may contain seen items": "--config my.yaml recommend.k=50 recommend.exclude_seen=false",
    "a version other than the champion": "--config my.yaml recommend.model=models:/recsys/3",
    "some users only, from items in stock": "--config my.yaml batch_score.users=/data/users "
    "batch_score.allowed_items=/data/in_stock",
}
SETTINGS = (
    "recommend.k",
    "recommend.exclude_seen",
    "recommend.model",
    "batch_score.users",
    "batch_score.allowed_items",
    "batch_score.category_cap",
    "batch_score.diversity",
    "experiment.arms",
    "storage.root",
    "storage.catalog",
)
USERS_SHOWN, ITEMS_SHOWN = 3, 5


def batch_score(settings: Settings) -> None:
    """Let the champion (or `recommend.model`) recommend items to every user it knows, or to `batch_score.users`.

    The lists that have changed are written to the table `recommendations`, in one commit; what the run did and how its
    lists are, to `scoring_runs`. With `experiment.arms`, each user gets the list of the version of their arm.
    """
    # Imported here, so that neither help nor a wrong setting waits for Spark and torch.
    from recsys.batch_scoring import chosen_version, score, score_arms
    from recsys.scoring.inputs import Inputs
    from recsys.tables import lease
    from recsys.tables.delta import Tables
    from recsys.tables.session import build_session

    version = None if settings.experiment.arms else chosen_version(settings)
    tables = Tables(build_session(settings), settings.storage)
    inputs = Inputs().completed(tables.spark, settings.batch_score)  # Refused before a table is made.
    tables.create_missing()
    with lease.upkeep(tables, settings.storage, "batch_score") if tables.one_committer else nullcontext():
        if version is None:
            for name, scored in score_arms(tables, settings, inputs).items():
                print(f"arm {name}:")
                _tell(scored.run)
        else:
            scored = score(tables, version, settings, inputs)
            _tell(scored.run)
            for name, written in scored.vectors.items():
                print(f"{name}: {written:,} other vectors than before; {tables.location(name)}")
    for row in tables.read(RECOMMENDATIONS).orderBy(USER).limit(USERS_SHOWN).collect():
        listed = ", ".join(item[ITEM] for item in row["items"][:ITEMS_SHOWN])
        print(f"  user {row[USER]}: {listed or 'no item is left'}")
    print(f"recommendations: {tables.location(RECOMMENDATIONS)}")


def _tell(run: "ScoringRun") -> None:
    """Print what a run did."""
    print(
        f"{run.users:,} users have recommendations of {run.model_name}, version {run.model_version}; "
        f"{run.changed:,} of these lists are new or changed"
    )
    odd = {
        f"users that the version does not know, who get popular items: {run.unknown_users:,}": run.unknown_users,
        f"rows without a user_id, which are passed over: {run.users_without_id:,}": run.users_without_id,
        f"lists with fewer items than recommend.k: {run.short_lists:,}": run.short_lists,
    }
    for line in (line for line, count in odd.items() if count):
        print(line)
    figures = {name: getattr(run, name) for name in ("coverage", "gini", "popularity_bias", "diversity")}
    print(", ".join(f"{name} {value:.3f}" for name, value in figures.items() if value is not None) or "no lists")


if __name__ == "__main__":
    sys.exit(run_job(batch_score, examples=EXAMPLES, settings=SETTINGS))

"""The whole path on real purchases: `make demo`, or python jobs/demo.py --config conf/demo.yaml."""

import sys
from pathlib import Path

from pyspark.sql import functions as F

from recsys.batch_scoring import chosen_version, score
from recsys.cli import run_job
from recsys.config import Settings
from recsys.contracts import (
    EVENTS,
    INTERACTION_LOG,
    INTERACTIONS,
    ITEM,
    LAST_TIME,
    MODEL_UPDATES,
    QUARANTINE,
    RECOMMENDATIONS,
    USER,
)
from recsys.stream.job import run_stream
from recsys.stream.replay import product_names, replay
from recsys.tables.delta import Tables
from recsys.tables.session import begin_session, build_session

EXAMPLES = {
    "as `make demo` runs it": "--config conf/demo.yaml",
    "two months of purchases, and lists of ten": "--config conf/demo.yaml replay.until=2017-03-01 recommend.k=10",
    "incremental ALS alone": "--config conf/demo.yaml model.kind=als",
}
SETTINGS = (
    "replay.dataset",
    "replay.until",
    "replay.events_per_file",
    "source.path",
    "storage.root",
    "model.kind",
    "decay.half_life_days",
    "register.every_batches",
    "recommend.k",
    "recommend.exclude_seen",
)
HOUSEHOLDS_SHOWN = 3
PRODUCTS_SHOWN = 5


def demo(settings: Settings) -> None:
    """Replay half a year of grocery purchases, learn from them batch by batch, and recommend products."""
    begin_session(settings)
    replayed = replay(settings)
    summary = run_stream(settings, batches=replayed.files)
    tables = Tables(build_session(settings), settings.storage)
    scored = score(tables, chosen_version(settings), settings)

    learned = f"{summary.events:,} events learned in {summary.batches} batches"
    print(f"\n{learned}; recommendations for {scored.run.users:,} households")
    print(f"quality over the batches: {summary.plot}")
    print(f"registered model: {scored.version.name}, champion is version {scored.version.version}")
    show_recommendations(tables)
    print("\ntables:")
    for name in (INTERACTION_LOG, INTERACTIONS, QUARANTINE, MODEL_UPDATES, RECOMMENDATIONS):
        print(f"  {name:<16} {tables.location(name)}")
    if settings.mlflow.tracking_uri is None:
        program = Path(sys.executable).parent / "mlflow"
        print(f"\nruns and versions: {program} ui --backend-store-uri {settings.tracking_uri}")


def show_recommendations(tables: Tables) -> None:
    """Print the recommendations of a few households: product names, and how often the household has bought them.

    Scores have no unit and only rank, so the rank is printed instead.
    """
    names = product_names()
    lists = tables.read(RECOMMENDATIONS).orderBy(USER).limit(HOUSEHOLDS_SHOWN).collect()
    shown = [item.item_id for row in lists for item in row["items"][:PRODUCTS_SHOWN]]
    bought = tables.read(INTERACTIONS).filter(F.col(ITEM).isin(shown))
    buyers = {row[ITEM]: row.buyers for row in bought.groupBy(ITEM).agg(F.count("*").alias("buyers")).collect()}
    own = {
        (row[USER], row[ITEM]): row for row in bought.filter(F.col(USER).isin([row[USER] for row in lists])).collect()
    }
    for row in lists:
        print(f"\nhousehold {row[USER]}")
        for place, item in enumerate(row["items"][:PRODUCTS_SHOWN], start=1):
            before = own.get((row[USER], item.item_id))
            if before is None:
                why = f"not bought before; bought by {buyers.get(item.item_id, 0):,} households"
            else:
                why = f"bought {before[EVENTS]:,} times, last on {before[LAST_TIME]:%Y-%m-%d}"
            print(f"  {place}. {names.get(item.item_id, item.item_id)}: {why}")


if __name__ == "__main__":
    sys.exit(run_job(demo, examples=EXAMPLES, settings=SETTINGS))

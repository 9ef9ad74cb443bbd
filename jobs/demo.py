"""The whole path on real purchases: `make demo`, or python jobs/demo.py --config conf/demo.yaml."""

import sys
from pathlib import Path

from recsys.batch_scoring import score
from recsys.cli import run_job
from recsys.config import Settings
from recsys.contracts import INTERACTION_LOG, INTERACTIONS, MODEL_UPDATES, QUARANTINE, RECOMMENDATIONS, USER
from recsys.registry.client import connect
from recsys.stream.job import run_stream
from recsys.stream.replay import product_names, replay
from recsys.tables.delta import Tables
from recsys.tables.session import build_session

HOUSEHOLDS_SHOWN = 3
PRODUCTS_SHOWN = 5


def demo(settings: Settings) -> None:
    """Replay half a year of grocery purchases, learn from them batch by batch, and recommend products."""
    replayed = replay(settings)
    summary = run_stream(settings, batches=replayed.files)
    tables = Tables(build_session(settings), settings.storage)
    scored = score(tables.spark, tables, connect(settings), settings)

    print(f"\n{summary.events:,} events learned in {summary.batches} batches; {scored.users:,} households scored")
    print(f"quality over the batches: {summary.plot}")
    print(f"registered model: {scored.version.name}, champion is version {scored.version.version}")
    show_recommendations(tables)
    print("\ntables:")
    for name in (INTERACTION_LOG, INTERACTIONS, QUARANTINE, MODEL_UPDATES, RECOMMENDATIONS):
        print(f"  {name:<16} {tables.location(name)}")
    print(
        f"\nruns and versions: {Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {settings.tracking_uri}"
    )


def show_recommendations(tables: Tables) -> None:
    """Print what a few households are recommended, by product name."""
    names = product_names()
    for row in tables.read(RECOMMENDATIONS).orderBy(USER).limit(HOUSEHOLDS_SHOWN).collect():
        print(f"\nhousehold {row[USER]}")
        for item in row["items"][:PRODUCTS_SHOWN]:
            print(f"  {item.score:6.3f}  {names.get(item.item_id, item.item_id)}")


if __name__ == "__main__":
    sys.exit(run_job(demo))

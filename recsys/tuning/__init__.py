"""Chooses settings of the model on a log: a small search on its first part, and a comparison on the rest.

Nothing here knows of Spark, Delta or MLflow: `recsys.stream.tune` brings the log and the runs.
"""

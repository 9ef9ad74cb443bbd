"""Spark and Delta: events in, clean batches and tables out. Nothing here imports torch or MLflow."""

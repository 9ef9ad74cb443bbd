"""Spark and Delta: events in, cleaned batches and tables out. Nothing here knows torch or MLflow."""

"""Reads the metadata of a streaming checkpoint."""

import json

from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession


def query_id(spark: SparkSession, checkpoint: str) -> str | None:
    """Id of the streaming query that a checkpoint belongs to. It survives restarts.

    Args:
        spark: Any session. Spark reads the file, so any file system that it supports will do.
        checkpoint: Folder of the checkpoint.

    Returns:
        The id; None if there is no checkpoint.
    """
    try:
        lines = spark.read.text(f"{checkpoint.rstrip('/')}/metadata").collect()
    except AnalysisException as error:
        if error.getCondition() == "PATH_NOT_FOUND":
            return None
        raise
    return str(json.loads("".join(line.value for line in lines))["id"])

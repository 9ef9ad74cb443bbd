"""Tables in a folder of their own for each test."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.tables.delta import Tables


@pytest.fixture
def tables(
    spark: SparkSession, settings: Callable[..., Settings], empty_tables: Callable[[str], None], tmp_path: Path
) -> Tables:
    storage = settings(tmp_path).storage
    empty_tables(storage.root)
    return Tables(spark, storage)

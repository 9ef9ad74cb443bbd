"""Tables in a folder of their own for each test."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.tables.delta import Tables


@pytest.fixture
def tables(spark: SparkSession, settings: Callable[..., Settings], tmp_path: Path) -> Tables:
    made = Tables(spark, settings(tmp_path).storage)
    made.create_missing()
    return made

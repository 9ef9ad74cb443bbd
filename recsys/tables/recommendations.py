"""The table `recommendations`."""

from pyspark.sql import DataFrame

from recsys.contracts import RECOMMENDATIONS, USER
from recsys.tables.delta import Tables


def write(tables: Tables, frame: DataFrame) -> int:
    """Replace all rows in one commit: a reader sees the old lists or the new ones, never a mix.

    Args:
        tables: The tables.
        frame: One row per user, with the columns of the table.

    Returns:
        Delta version of the commit.
    """
    rows = frame.select(USER, "items", "model_name", "model_version", "scored_at")
    return tables.overwrite(RECOMMENDATIONS, rows)

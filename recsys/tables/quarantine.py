"""The table `quarantine`: rejected records with their raw text and every reason."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.contracts import BATCH, GENERATION, INGESTED_AT, QUARANTINE, RAW, REASONS, StepId
from recsys.tables.clean import is_good
from recsys.tables.delta import Tables


def quarantined(tagged: DataFrame, step: StepId) -> DataFrame:
    """Select the rejected records of a tagged batch, with the columns of `quarantine`."""
    rejected = tagged.filter(~is_good())
    return rejected.select(
        F.lit(step.generation).cast("bigint").alias(GENERATION),
        F.lit(step.batch_id).cast("bigint").alias(BATCH),
        RAW,
        REASONS,
        INGESTED_AT,
    )


def count(tables: Tables, step: StepId) -> int:
    """Number of rejected records of a batch."""
    rows = tables.read(QUARANTINE).filter((F.col(GENERATION) == step.generation) & (F.col(BATCH) == step.batch_id))
    return rows.count()


def append(tables: Tables, tagged: DataFrame, step: StepId, app_id: str) -> int:
    """Append a batch's rejected records once.

    This computes the batch a second time, so skip it if `log.collect` counted no such records.

    Returns:
        Delta version of `quarantine` that holds them.
    """
    return tables.append(QUARANTINE, quarantined(tagged, step), app_id, step.batch_id)

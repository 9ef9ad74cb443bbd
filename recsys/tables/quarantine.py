"""The table `quarantine`: rejected records with their raw text and every reason."""

import pyarrow as pa
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


def of_batch(tables: Tables, step: StepId) -> DataFrame:
    """The rejected records of a batch."""
    return tables.read(QUARANTINE).filter((F.col(GENERATION) == step.generation) & (F.col(BATCH) == step.batch_id))


def reasons(rejected: DataFrame) -> dict[str, int]:
    """Number of records per reason, the most frequent reason first."""
    counted = rejected.select(F.explode(REASONS).alias(REASONS)).groupBy(REASONS).count()
    rows: pa.Table = counted.orderBy(F.desc("count"), REASONS).toArrow()
    return dict(zip(rows[REASONS].to_pylist(), rows["count"].to_pylist(), strict=True))


def append(tables: Tables, tagged: DataFrame, step: StepId, app_id: str) -> int:
    """Append a batch's rejected records once.

    This computes the batch a second time, so skip it if `log.collect` counted no such records.

    Returns:
        Delta version of `quarantine` that holds them.
    """
    return tables.append(QUARANTINE, quarantined(tagged, step), app_id, step.batch_id)

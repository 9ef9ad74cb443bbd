"""The table `quarantine`: rejected records with their raw text and every reason."""

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.config.sections import Source
from recsys.contracts import BATCH, GENERATION, INGESTED_AT, QUARANTINE, RAW, REASONS, SOURCE, StepId
from recsys.tables import kafka
from recsys.tables.clean import is_good
from recsys.tables.conditions import of_step, to_column
from recsys.tables.delta import Tables

# Raw records may be long: more of them are left to Spark.
THROUGH_DRIVER = 10_000


def quarantined(tagged: DataFrame, step: StepId) -> DataFrame:
    """Select the rejected records of a tagged batch, with the columns of `quarantine`."""
    rejected = tagged.filter(~is_good())
    return rejected.select(
        F.lit(step.generation).cast("bigint").alias(GENERATION),
        F.lit(step.batch_id).cast("bigint").alias(BATCH),
        RAW,
        REASONS,
        INGESTED_AT,
        (F.col(SOURCE) if SOURCE in tagged.columns else F.lit(0)).cast("bigint").alias(SOURCE),
    )


def of_batch(tables: Tables, step: StepId) -> DataFrame:
    """The rejected records of a batch."""
    return tables.read(QUARANTINE).filter(to_column(of_step(step)))


def reasons(rejected: DataFrame) -> dict[str, int]:
    """Number of records per reason, the most frequent reason first."""
    counted = rejected.select(F.explode(REASONS).alias(REASONS)).groupBy(REASONS).count()
    rows: pa.Table = counted.orderBy(F.desc("count"), REASONS).toArrow()
    return dict(zip(rows[REASONS].to_pylist(), rows["count"].to_pylist(), strict=True))


def send_dead_letters(tables: Tables, source: Source, topic: str, step: StepId) -> None:
    """Send a batch's rejected records, once they are in the table, to a topic as well: each at least once.

    Args:
        tables: The tables.
        source: Its options say how to connect.
        topic: Name of the topic.
        step: Step of the batch.
    """
    header = {"reasons": F.array_join(REASONS, "\n"), "step": F.lit(str(step))}
    headers = [
        F.struct(F.lit(key).alias("key"), F.encode(text, "UTF-8").alias("value")) for key, text in header.items()
    ]
    letters = of_batch(tables, step).select(F.col(RAW).alias("value"), F.array(*headers).alias("headers"))
    kafka.write(letters, source, topic)


def append(tables: Tables, tagged: DataFrame, step: StepId, app_id: str, records: int) -> int:
    """Append a batch's rejected records once.

    This computes the batch a second time, so skip it if `log.collect` counted no such records.

    Args:
        tables: The tables.
        tagged: The batch, tagged.
        step: Step of the batch; the batch id is the transaction version.
        app_id: Identifies the stream; the same after every restart.
        records: Number of rejected records; a few come through the driver, which is faster.

    Returns:
        Delta version of `quarantine` that holds them.
    """
    rows = quarantined(tagged, step)
    few = records <= THROUGH_DRIVER
    return tables.append(QUARANTINE, rows.toArrow() if few else rows, app_id, step.batch_id)

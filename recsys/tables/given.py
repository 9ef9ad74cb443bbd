"""Frames that a setting names, or a caller hands in: checked, with ids as text."""

from collections.abc import Sequence

from delta import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ByteType, IntegerType, LongType, ShortType, StringType

from recsys.errors import InputError
from recsys.tables.failures import explain_failure, first_line

# Numbers with a fraction, or dates, would not become the text that the events have as their id.
_IDS = (StringType, ByteType, ShortType, IntegerType, LongType)


def read_given(spark: SparkSession, key: str, place: str, columns: Sequence[str]) -> DataFrame:
    """Read what a setting names.

    Args:
        spark: The session.
        key: Of the setting, for messages.
        place: A table of the catalog; or, with a slash, the path of a Delta table or of Parquet files.
        columns: Columns that it must have, all of them ids.

    Returns:
        These columns, as text.

    Raises:
        InputError: there is no such table, it cannot be read, or a column is missing or holds no ids.
        OutsideDownError: the storage does not answer.
    """
    try:
        if "/" not in place:
            frame = spark.read.table(place)
        else:
            is_delta = DeltaTable.isDeltaTable(spark, place)
            frame = spark.read.format("delta" if is_delta else "parquet").load(place)
    except (PySparkException, Py4JJavaError) as error:
        kind = "path of a Delta table or of Parquet files" if "/" in place else "table (a path has a '/')"
        raise explain_failure(error) or InputError(
            f"setting '{key}': cannot read {place} as a {kind}: {first_line(error):.150}"
        ) from error
    return checked(key, frame, columns)


def checked(key: str, frame: DataFrame, columns: Sequence[str]) -> DataFrame:
    """The columns of a frame that are needed, as text.

    Args:
        key: What the frame is called in messages: the setting that may name it.
        frame: The frame.
        columns: Columns that it must have, all of them ids.

    Raises:
        InputError: a column is missing or holds no ids.
    """
    types = {field.name: field.dataType for field in frame.schema.fields}
    missing = [column for column in columns if column not in types]
    if missing:
        raise InputError(f"setting '{key}': no column '{missing[0]}' (it has {', '.join(types) or 'none':.200})")
    for column in columns:
        if not isinstance(types[column], _IDS):
            kind = types[column].simpleString()
            raise InputError(f"setting '{key}': column '{column}' is {kind:.60}: give text or whole numbers")
    return frame.select(*(F.col(f"`{column}`").cast("string").alias(column) for column in columns))

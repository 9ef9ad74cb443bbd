"""Event sources as a streaming data frame: JSON lines, CSV or Parquet files, a Delta table, or Kafka topics."""

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import reduce
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.listener import StreamingQueryProgress

from recsys.config import Settings
from recsys.config.sections import FurtherSource, Source
from recsys.contracts import EVENT_ID, INGESTED_AT, SOURCE, SOURCE_WEIGHT
from recsys.errors import ConfigError, InputError, RecsysError
from recsys.tables import kafka
from recsys.tables.clean import has_id, tag
from recsys.tables.cluster import on_databricks
from recsys.tables.failures import explain_failure, first_line
from recsys.tables.formats import read_as_text
from recsys.tables.session import build_session

_KEY = "_deduplication_key"
# Settings with which Spark reads nothing where a file is missing or damaged.
_LENIENT = ("spark.sql.files.ignoreMissingFiles", "spark.sql.files.ignoreCorruptFiles")


def open_events(spark: SparkSession, settings: Settings) -> DataFrame:
    """Open the configured sources as a stream of tagged events, without duplicates.

    Returns:
        Streaming frame with the columns of `clean.tag`; of several sources with `source`, their number, and
        `source_weight` where one has a weight. If a source has event ids, the stream keeps state. Whether it does is
        fixed for the life of a checkpoint, as the sources are.

    Raises:
        InputError: the path or a mapped column is missing, or the first file cannot be read.
        OutsideDownError: the source does not answer.
        ConfigError: the event types or the watermark of the settings are inconsistent.
    """
    refuse_unusable(settings)
    source, dead_letters = settings.source, settings.quarantine.dead_letter_topic
    if dead_letters is not None:
        kafka.refuse_unanswered(spark, source, [dead_letters], "quarantine.dead_letter_topic")
    weighing = any(one.weight != 1 for one in settings.sources)
    frames = []
    for number, own in enumerate(settings.each_source):
        with named(number):
            frame = tag(read_events(spark, own.source), own)
        if settings.sources:
            frame = frame.withColumn(SOURCE, F.lit(number))
        weight = own.source.weight if isinstance(own.source, FurtherSource) else 1.0
        frames.append(frame.withColumn(SOURCE_WEIGHT, F.lit(weight)) if weighing else frame)
    tagged = reduce(lambda one, other: one.unionByName(other, allowMissingColumns=True), frames)
    return deduplicated(tagged, source.watermark) if EVENT_ID in tagged.columns else tagged


def begin_events(settings: Settings) -> "Future[DataFrame]":
    """Start Spark and open the sources in the background: Java works while torch and MLflow are imported."""
    opener = ThreadPoolExecutor(1, thread_name_prefix="open-events")
    opening = opener.submit(lambda: open_events(build_session(settings), settings))
    opener.shutdown(wait=False)
    return opening


def refuse_unusable(settings: Settings) -> None:
    """Refuse an unusable source early, as far as that can be checked without Spark.

    Raises:
        InputError: the path does not exist.
        ConfigError: the event types of the settings are inconsistent.
    """
    for number, own in enumerate(settings.each_source):
        with named(number):
            _refuse_unusable(own, number)


@contextmanager
def named(number: int) -> Iterator[None]:
    """Say of which source an error is, by its number, for all but the first."""
    try:
        yield
    except RecsysError as error:
        if number:
            raise type(error)(f"sources[{number - 1}]: {error}") from error
        raise


def _refuse_unusable(settings: Settings, number: int) -> None:
    source = settings.source
    if source.columns.event_type is None and source.default_event_type is None:
        raise ConfigError("source.columns.event_type is null: set source.default_event_type")
    if source.default_event_type is not None and source.default_event_type not in settings.weights:
        raise ConfigError(f"source.default_event_type '{source.default_event_type}' is not one of weights")
    kafka.refuse_unusable(settings, number)
    if source.format == "cloudFiles" and not on_databricks():
        raise ConfigError("source.format: cloudFiles (Auto Loader) is there on Databricks only: set it to json")
    if source.format == kafka.FORMAT or source.table is not None:
        return
    # Paths with a scheme or a pattern are left to Spark.
    if not re.search(r":/|[*?\[{]", source.path) and not Path(source.path).exists():
        raise InputError(f"source.path {source.path} does not exist: set it to a file or a folder of your events")


def read_events(spark: SparkSession, source: Source) -> DataFrame:
    """Read the source with the project's column names and all values as text.

    Returns:
        Streaming frame: the event's columns as strings (null if the source has no such column; no column `event_id` if
        the source has none), `unreadable` (why the record could not be parsed, or null), `raw` (its text) and
        `ingested_at` (when Spark planned the batch; the same when the batch is replayed).

    Raises:
        InputError: as `open_events`.
    """
    try:
        return read_as_text(spark, source).withColumn(INGESTED_AT, F.current_timestamp())
    except (PySparkException, Py4JJavaError) as error:
        raise explain_failure(error) or InputError(f"cannot read {source.place}: {first_line(error)}") from error


def deduplicated(tagged: DataFrame, watermark: str) -> DataFrame:
    """Keep the first of the good records with the same event id.

    The clock is arrival time, not event time, so no event is dropped for being late. An id is remembered for at least
    `watermark` after its first arrival. Bad records and records without an id always pass.

    Raises:
        ConfigError: the watermark is not a duration.
    """
    # Records that must pass get a unique key. Spark reseeds uuid() for each batch, and repeats it in a replay.
    keyed = tagged.withColumn(_KEY, F.when(has_id(), F.col(EVENT_ID)).otherwise(F.uuid()))
    try:
        timed = keyed.withWatermark(INGESTED_AT, watermark)
    except PySparkException as error:
        raise ConfigError(f"source.watermark '{watermark}' is not a duration such as '1 hour'") from error
    return timed.dropDuplicatesWithinWatermark([_KEY]).drop(_KEY)


def dropped_duplicates(progress: StreamingQueryProgress) -> int:
    """Count the duplicates that one micro-batch dropped."""
    return sum(int(state.customMetrics.get("numDroppedDuplicateRows", 0)) for state in progress.stateOperators)


@contextmanager
def computed_once(events: DataFrame) -> Iterator[DataFrame]:
    """Cache a batch while it is processed, if it was de-duplicated.

    Computing it again would report its duplicates once more.
    """
    if EVENT_ID not in events.columns:
        yield events
        return
    events.persist()
    try:
        yield events
    finally:
        events.unpersist()


class SourceLostError(Exception):
    """A batch that the log holds cannot be read again, and its de-duplication needs it."""


def run_through(events: DataFrame) -> None:
    """Compute a batch whose rows are not needed, because the state of the de-duplication is complete only then.

    Raises:
        SourceLostError: the batch cannot be read. Start the query again with `read_what_is_left`.
    """
    if EVENT_ID not in events.columns:
        return
    try:
        events.write.format("noop").mode("overwrite").save()
    except (PySparkException, Py4JJavaError) as error:
        raise SourceLostError(first_line(error)) from error


def read_what_is_left(spark: SparkSession, lenient: bool) -> None:
    """Read a file that is missing or damaged as one without rows, or fail on it, in queries that start from now on.

    A running query has a session of its own; what is set there applies from its next batch on.
    """
    for option in _LENIENT:
        if lenient:
            spark.conf.set(option, "true")
        else:
            spark.conf.unset(option)

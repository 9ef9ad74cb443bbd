"""Event sources as one streaming frame: files of JSON lines, CSV or Parquet, or a Delta table."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from delta import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.listener import StreamingQueryProgress
from pyspark.sql.types import ArrayType, StringType, StructField, StructType

from recsys.config import Settings
from recsys.config.sections import Columns, Source
from recsys.contracts import EVENT_ID, EVENT_TYPE, INGESTED_AT, RAW, VALUE
from recsys.errors import ConfigError, InputError
from recsys.tables.clean import UNREADABLE, has_id, tag
from recsys.tables.failures import explain_failure, first_line

NOT_JSON, MALFORMED = "not JSON", "malformed record"
_KEY, _CORRUPT = "_deduplication_key", "_corrupt_record"
# Bounds a batch while there is no file yet on which the size of a record could be measured.
_BYTES_PER_RECORD = 200
# Spark skips, without a word, files a week older than the newest it has seen: events would be lost.
_EVERY_FILE = {"maxfileage": "36500d"}
_RATE_LIMITS = ("maxfilespertrigger", "maxbytespertrigger")


def open_events(spark: SparkSession, settings: Settings) -> DataFrame:
    """Open the configured source as a stream of judged events, without duplicates.

    Returns:
        Streaming frame in the columns of `clean.tag`. Where the source has event ids the stream keeps state; whether
        it does is fixed for the life of a checkpoint.

    Raises:
        InputError: the path or a mapped column is missing, or the first file cannot be read.
        ConfigError: the event types or the watermark of the settings make no sense.
    """
    refuse_unusable(settings)
    source = settings.source
    tagged = tag(read_events(spark, source), settings)
    return deduplicated(tagged, source.watermark) if EVENT_ID in tagged.columns else tagged


def refuse_unusable(settings: Settings) -> None:
    """Refuse a source that cannot work, as far as that can be told in no time, without Spark.

    Raises:
        InputError: the path does not exist.
        ConfigError: the event types of the settings make no sense.
    """
    source = settings.source
    if source.columns.event_type is None and source.default_event_type is None:
        raise ConfigError("source.columns.event_type is null: set source.default_event_type")
    if source.default_event_type is not None and source.default_event_type not in settings.weights:
        raise ConfigError(f"source.default_event_type '{source.default_event_type}' is not one of weights")
    # A scheme is Spark's to look up, and so is a pattern.
    if not re.search(r":/|[*?\[{]", source.path) and not Path(source.path).exists():
        raise InputError(f"source.path {source.path} does not exist: set it to a file or a folder of your events")


def read_events(spark: SparkSession, source: Source) -> DataFrame:
    """Read the source with the project's column names, everything still as text.

    Returns:
        Streaming frame: the event's columns as strings (null where the source has none; no `event_id` at all if the
        source has none), `unreadable` (why the record could not be taken apart, or null), `raw` (its text) and
        `ingested_at` (when Spark planned the batch: the same when the batch is replayed).

    Raises:
        InputError: as `open_events`.
    """
    readers = {"json": _read_json, "csv": _read_csv, "parquet": _read_parquet, "delta": _read_delta}
    try:
        return readers[source.format](spark, source).withColumn(INGESTED_AT, F.current_timestamp())
    except (PySparkException, Py4JJavaError) as error:
        raise explain_failure(error) or InputError(f"cannot read source.path: {first_line(error)}") from error


def deduplicated(tagged: DataFrame, watermark: str) -> DataFrame:
    """Keep the first of the good records that carry the same event id.

    The clock is the arrival, not the event: no event is dropped for being late. An id is remembered for at least
    `watermark` after its first arrival. Bad records and records without an id always pass.

    Raises:
        ConfigError: the watermark is no duration.
    """
    # A key of its own for what must pass. Spark seeds uuid() anew for each batch, and repeats it in a replay.
    keyed = tagged.withColumn(_KEY, F.when(has_id(), F.col(EVENT_ID)).otherwise(F.uuid()))
    try:
        timed = keyed.withWatermark(INGESTED_AT, watermark)
    except PySparkException as error:
        raise ConfigError(f"source.watermark '{watermark}' is no duration such as '1 hour'") from error
    return timed.dropDuplicatesWithinWatermark([_KEY]).drop(_KEY)


def dropped_duplicates(progress: StreamingQueryProgress) -> int:
    """Count the duplicates that one micro-batch dropped."""
    return sum(int(state.customMetrics.get("numDroppedDuplicateRows", 0)) for state in progress.stateOperators)


@contextmanager
def computed_once(events: DataFrame) -> Iterator[DataFrame]:
    """Keep a batch of the stream for as long as it is worked on, if it was de-duplicated.

    Each further pass through the state would report the batch's duplicates once more.
    """
    if EVENT_ID not in events.columns:
        yield events
        return
    events.persist()
    try:
        yield events
    finally:
        events.unpersist()


def run_through(events: DataFrame) -> None:
    """Run a batch whose rows nobody needs again: the state of the de-duplication is complete only when it has run."""
    events.write.format("noop").mode("overwrite").save()


def _read_json(spark: SparkSession, source: Source) -> DataFrame:
    options = _merged(source.options)
    if "true" in (options.get("multiline"), options.get("wholetext")):
        raise InputError("source.options: multiLine is not supported, events must be one JSON object per line")
    first = _first_file(spark, source.path)
    lines = spark.readStream.options(**_stream_options(spark, source, first)).text(_streamed(source.path))
    mapped = source.columns.model_dump()
    record = StructType([StructField(name, StringType()) for name in sorted(filter(None, set(mapped.values())))])
    # Parsed as a list: two objects in one line, or text after an object, are then seen to be broken, where the parser
    # of a single object would stop after the first without a word.
    as_list = F.concat(F.lit("["), F.col(RAW), F.lit("]"))
    events = (
        lines.select(F.make_valid_utf8("value").alias(RAW))
        .filter(F.col(RAW).rlike(r"\S"))
        .withColumn("events", F.from_json(as_list, ArrayType(record), _merged(options, {"mode": "PERMISSIVE"})))
        .select(RAW, F.when(F.size("events") == 1, F.get("events", F.lit(0))).alias("event"))
    )
    unreadable = F.when(F.isnull("event"), F.lit(NOT_JSON)).alias(UNREADABLE)
    fields = events.select(*_named(mapped, lambda name: F.col("event").getField(name)), unreadable, RAW)
    # A bare NaN, Infinity or 1e999 reaches a text field with quotes around it.
    return fields.withColumn(VALUE, F.btrim(VALUE, F.lit('"')))


def _read_csv(spark: SparkSession, source: Source) -> DataFrame:
    first = _needed_file(spark, source)
    # Quotes are doubled inside quotes, as RFC 4180 and the spreadsheets have it.
    defaults = {"header": "true", "enforceSchema": "false", "escape": '"', "maxColumns": "1000000"}
    forced = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": _CORRUPT, "maxCharsPerColumn": "-1"}
    options = _merged(defaults, source.options, forced)
    names = spark.read.options(**options).csv(source.path).columns
    mapped = _present(source, names)
    schema = StructType([StructField(name, StringType()) for name in [*names, _CORRUPT]])
    options = _merged(options, _stream_options(spark, source, first))
    rows = spark.readStream.schema(schema).options(**options).csv(_streamed(source.path))
    unreadable = F.when(F.isnotnull(_CORRUPT), F.lit(MALFORMED)).alias(UNREADABLE)
    raw = F.coalesce(_CORRUPT, F.to_json(F.struct(*map(_column, names)))).alias(RAW)
    return rows.select(*_named(mapped, _column), unreadable, raw)


def _read_parquet(spark: SparkSession, source: Source) -> DataFrame:
    first = _needed_file(spark, source)
    schema = spark.read.options(**source.options).parquet(source.path).schema
    options = _stream_options(spark, source, first)
    rows = spark.readStream.schema(schema).options(**options).parquet(_streamed(source.path))
    return _typed(source, rows)


def _read_delta(spark: SparkSession, source: Source) -> DataFrame:
    if not DeltaTable.isDeltaTable(spark, source.path):
        raise InputError(f"source.path {source.path} is no Delta table")
    options = _merged(source.options)
    if _is_bounded_by_us(source):
        size = DeltaTable.forPath(spark, source.path).detail().select("sizeInBytes").collect()[0][0]
        records = spark.read.format("delta").load(source.path).count()
        options["maxbytespertrigger"] = _byte_limit(source, int(size), records)
    return _typed(source, spark.readStream.format("delta").options(**options).load(source.path))


def _typed(source: Source, rows: DataFrame) -> DataFrame:
    """Turn typed records into text, so that one set of rules judges every source."""
    names = rows.columns
    mapped = _present(source, names)
    raw = F.to_json(F.struct(*map(_column, names))).alias(RAW)
    columns = _named(mapped, lambda name: _column(name).cast("string"))
    return rows.select(*columns, F.lit(None).cast("string").alias(UNREADABLE), raw)


def _named(mapped: Mapping[str, str | None], column_of: Callable[[str], Column]) -> list[Column]:
    """Columns of an event under the project's names: null without a mapping, but no `event_id` at all then."""
    return [
        (F.lit(None).cast("string") if name is None else column_of(name)).alias(column)
        for column, name in mapped.items()
        if not (column == EVENT_ID and name is None)
    ]


def _column(name: str) -> Column:
    return F.col(f"`{name.replace('`', '``')}`")


def _present(source: Source, names: Iterable[str]) -> dict[str, str | None]:
    """The column mapping, without the optional columns that nobody named and the source does not have."""
    mapped, unnamed = source.columns.model_dump(), Columns().model_dump()
    optional = {VALUE, EVENT_ID} | ({EVENT_TYPE} if source.default_event_type else set())
    names = list(names)
    for column, name in mapped.items():
        if name is None or name in names:
            continue
        if column not in optional or name != unnamed[column]:
            raise InputError(
                f"source.path {source.path} has no column '{name}' for source.columns.{column}; "
                f"it has {', '.join(names):.300}"
            )
        mapped[column] = None
    return mapped


def _first_file(spark: SparkSession, path: str) -> tuple[str, int] | None:
    """Path and bytes of a file of the source, if there is one yet."""
    files = spark.read.format("binaryFile").load(path).select("path", "length").limit(1).collect()
    return (files[0].path, files[0].length) if files else None


def _needed_file(spark: SparkSession, source: Source) -> tuple[str, int]:
    first = _first_file(spark, source.path)
    if first is None:
        raise InputError(f"source.path {source.path} holds no file yet: one is needed to learn its columns")
    return first


def _streamed(path: str) -> str:
    """A path that Spark streams from: it takes a single file only as a pattern, here one that nothing else matches."""
    if not Path(path).is_file():
        return path
    return f"{path[:-1]}[{path[-1]}]"


def _stream_options(spark: SparkSession, source: Source, first: tuple[str, int] | None) -> dict[str, str]:
    options = _merged(_EVERY_FILE, source.options)
    if not _is_bounded_by_us(source):
        return options
    size, records = 0, 0
    if first is not None:
        file, size = first
        try:
            records = spark.read.format("parquet" if source.format == "parquet" else "text").load(file).count()
        except (PySparkException, Py4JJavaError):
            # Not to be judged here: the stream names a file it cannot read when it gets there.
            records = 0
    return options | {"maxbytespertrigger": _byte_limit(source, size, records)}


def _is_bounded_by_us(source: Source) -> bool:
    return source.max_records_per_batch is not None and not any(key in _RATE_LIMITS for key in _merged(source.options))


def _byte_limit(source: Source, size: int, records: int) -> str:
    per_record = size / records if records else _BYTES_PER_RECORD
    return str(max(1, round(per_record * (source.max_records_per_batch or 1))))


def _merged(*options: Mapping[str, str]) -> dict[str, str]:
    """Later options win, whatever the case of their names, as in Spark."""
    return {key.lower(): value for group in options for key, value in group.items()}

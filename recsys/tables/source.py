"""Event sources as a streaming data frame: JSON lines, CSV or Parquet files, or a Delta table."""

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
from recsys.contracts import EVENT_ID, EVENT_TYPE, INGESTED_AT, ITEM, LOST_BYTES, RAW, USER, VALUE
from recsys.errors import ConfigError, InputError
from recsys.tables.clean import UNREADABLE, has_id, tag
from recsys.tables.failures import explain_failure, first_line

NOT_JSON, MALFORMED = "not JSON", "malformed record"
# An escaped half of a character without its other half. Java's text has no such thing, and a `?` takes its place.
_HALF = (
    r"(?<!\\)(\\\\)*(\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    r"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F])"
)
_KEY, _CORRUPT = "_deduplication_key", "_corrupt_record"
# Bytes per record, assumed while there is no file from which the size of a record can be estimated.
_BYTES_PER_RECORD = 200
# By default Spark silently skips files that are a week older than the newest one, which would lose events.
_EVERY_FILE = {"maxfileage": "36500d"}
# Settings with which Spark reads nothing where a file is missing or damaged.
_LENIENT = ("spark.sql.files.ignoreMissingFiles", "spark.sql.files.ignoreCorruptFiles")
RATE_LIMITS = ("maxfilespertrigger", "maxbytespertrigger")


def open_events(spark: SparkSession, settings: Settings) -> DataFrame:
    """Open the configured source as a stream of tagged events, without duplicates.

    Returns:
        Streaming frame with the columns of `clean.tag`. If the source has event ids, the stream keeps state; whether it
        does is fixed for the lifetime of a checkpoint.

    Raises:
        InputError: the path or a mapped column is missing, or the first file cannot be read.
        OutsideDownError: the source does not answer.
        ConfigError: the event types or the watermark of the settings are inconsistent.
    """
    refuse_unusable(settings)
    source = settings.source
    tagged = tag(read_events(spark, source), settings)
    return deduplicated(tagged, source.watermark) if EVENT_ID in tagged.columns else tagged


def refuse_unusable(settings: Settings) -> None:
    """Refuse an unusable source early, as far as that can be checked without Spark.

    Raises:
        InputError: the path does not exist.
        ConfigError: the event types of the settings are inconsistent.
    """
    source = settings.source
    if source.columns.event_type is None and source.default_event_type is None:
        raise ConfigError("source.columns.event_type is null: set source.default_event_type")
    if source.default_event_type is not None and source.default_event_type not in settings.weights:
        raise ConfigError(f"source.default_event_type '{source.default_event_type}' is not one of weights")
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
    readers = {"json": _read_json, "csv": _read_csv, "parquet": _read_parquet, "delta": _read_delta}
    try:
        return readers[source.format](spark, source).withColumn(INGESTED_AT, F.current_timestamp())
    except (PySparkException, Py4JJavaError) as error:
        raise explain_failure(error) or InputError(f"cannot read source.path: {first_line(error)}") from error


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


def _read_json(spark: SparkSession, source: Source) -> DataFrame:
    options = _merged(source.options)
    if "true" in (options.get("multiline"), options.get("wholetext")):
        raise InputError("source.options: multiLine is not supported, events must be one JSON object per line")
    first = _first_file(spark, source.path)
    lines = spark.readStream.options(**_stream_options(spark, source, first)).text(_streamed(source.path))
    raw = lines.select(F.make_valid_utf8("value").alias(RAW)).filter(F.col(RAW).rlike(r"\S"))
    return parse_json(raw, source.columns.model_dump(), options)


def parse_json(lines: DataFrame, mapped: Mapping[str, str | None], options: Mapping[str, str]) -> DataFrame:
    """Read the fields of events from JSON text.

    Args:
        lines: With a column `raw`: one object each. Its other columns are kept.
        mapped: Name of each of the event's columns in the objects; None: it has none.
        options: For Spark's parser.

    Returns:
        The event's columns as text, and `unreadable`, as `read_events` has them.
    """
    record = StructType([StructField(name, StringType()) for name in sorted(filter(None, set(mapped.values())))])
    # Parsed as a list, so that two objects in one line, or text after an object, are errors. The parser of a single
    # object would silently stop after the first one.
    as_list = F.concat(F.lit("["), F.col(RAW), F.lit("]"))
    events = lines.withColumn(
        "events", F.from_json(as_list, ArrayType(record), _merged(options, {"mode": "PERMISSIVE"}))
    ).select(*lines.columns, F.when(F.size("events") == 1, F.get("events", F.lit(0))).alias("event"))
    unreadable = F.when(F.isnull("event"), F.lit(NOT_JSON)).alias(UNREADABLE)
    fields = events.select(*_named(mapped, lambda name: F.col("event").getField(name)), unreadable, *lines.columns)
    # A bare NaN, Infinity or 1e999 arrives in a text field with quotes around it.
    ids = {name: _whole(name) for name in (USER, ITEM, EVENT_ID) if name in fields.columns}
    return fields.withColumns({VALUE: F.btrim(VALUE, F.lit('"')), **ids})


def _whole(column: str) -> Column:
    """An id, in which a `?` that stands for half a character is marked as lost, so that a rule refuses it."""
    lost = F.contains(column, F.lit("?")) & F.col(RAW).rlike(_HALF)
    return F.when(lost, F.replace(column, F.lit("?"), F.lit(LOST_BYTES))).otherwise(F.col(column))


def _read_csv(spark: SparkSession, source: Source) -> DataFrame:
    first = _needed_file(spark, source)
    # Quotes inside quotes are doubled, as in RFC 4180 and in spreadsheets.
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
        raise InputError(f"source.path {source.path} is not a Delta table: set source.format to the format it has")
    options = _merged(source.options)
    if _is_bounded_by_us(source):
        size = DeltaTable.forPath(spark, source.path).detail().select("sizeInBytes").collect()[0][0]
        records = spark.read.format("delta").load(source.path).count()
        options["maxbytespertrigger"] = _byte_limit(source, int(size), records)
    return _typed(source, spark.readStream.format("delta").options(**options).load(source.path))


def _typed(source: Source, rows: DataFrame) -> DataFrame:
    """Convert typed records to text, so that one set of rules validates every source."""
    names = rows.columns
    mapped = _present(source, names)
    raw = F.to_json(F.struct(*map(_column, names))).alias(RAW)
    columns = _named(mapped, lambda name: _column(name).cast("string"))
    return rows.select(*columns, F.lit(None).cast("string").alias(UNREADABLE), raw)


def _named(mapped: Mapping[str, str | None], column_of: Callable[[str], Column]) -> list[Column]:
    """Columns of an event with the project's names; null without a mapping, except `event_id`, which is left out."""
    return [
        (F.lit(None).cast("string") if name is None else column_of(name)).alias(column)
        for column, name in mapped.items()
        if not (column == EVENT_ID and name is None)
    ]


def _column(name: str) -> Column:
    return F.col(f"`{name.replace('`', '``')}`")


def _present(source: Source, names: Iterable[str]) -> dict[str, str | None]:
    """The column mapping, without optional columns that are neither configured nor in the source."""
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
    """Path and size in bytes of a file of the source, or None if there is none yet."""
    files = spark.read.format("binaryFile").load(path).select("path", "length").limit(1).collect()
    return (files[0].path, files[0].length) if files else None


def _needed_file(spark: SparkSession, source: Source) -> tuple[str, int]:
    first = _first_file(spark, source.path)
    if first is None:
        raise InputError(f"source.path {source.path} has no file yet: one is needed to read its columns")
    return first


def _streamed(path: str) -> str:
    """A path that Spark can stream from: a single file is allowed only as a pattern, here one that matches only it."""
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
            # Not an error here: the stream reports an unreadable file when it gets there.
            records = 0
    return options | {"maxbytespertrigger": _byte_limit(source, size, records)}


def _is_bounded_by_us(source: Source) -> bool:
    return source.max_records_per_batch is not None and not any(key in RATE_LIMITS for key in _merged(source.options))


def _byte_limit(source: Source, size: int, records: int) -> str:
    per_record = size / records if records else _BYTES_PER_RECORD
    return str(max(1, round(per_record * (source.max_records_per_batch or 1))))


def _merged(*options: Mapping[str, str]) -> dict[str, str]:
    """Merge options; later ones win, and names are case-insensitive, as in Spark."""
    return {key.lower(): value for group in options for key, value in group.items()}

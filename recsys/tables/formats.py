"""What each format of events is read with: files, a Delta table or Kafka topics, as text by column."""

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from delta import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StringType, StructField, StructType

from recsys.config.sections import Columns, Source
from recsys.contracts import EVENT_ID, EVENT_TYPE, ITEM, LIST_ID, LOST_BYTES, RAW, USER, VALUE
from recsys.errors import InputError
from recsys.tables import kafka
from recsys.tables.clean import UNREADABLE, is_written
from recsys.tables.failures import first_line

NOT_JSON, NO_VALUE, MALFORMED = "not JSON", "no value", "malformed record"
# An escaped half of a character without its other half. Java's text has no such thing, and a `?` takes its place.
_HALF = (
    r"(?<!\\)(\\\\)*(\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    r"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F])"
)
_CORRUPT = "_corrupt_record"
# Bytes per record, assumed while there is no file from which the size of a record can be estimated.
_BYTES_PER_RECORD = 200
# By default Spark silently skips files that are a week older than the newest one, which would lose events.
_EVERY_FILE = {"maxfileage": "36500d"}
RATE_LIMITS = ("maxfilespertrigger", "maxbytespertrigger")
# A source that lacks them has no such columns: what follows from them costs nothing then.
_LEFT_OUT = (EVENT_ID, LIST_ID)


def read_as_text(spark: SparkSession, source: Source) -> DataFrame:
    """Read the source with the project's column names and all values as text.

    Returns:
        As `source.read_events`, without the time of reading.

    Raises:
        InputError: the path, the topic, the table or a mapped column is missing.
        OutsideDownError: no broker answers.
        PySparkException, Py4JJavaError: Spark cannot read it.
    """
    readers = {
        "json": _read_json,
        "csv": _read_csv,
        "parquet": _read_parquet,
        "delta": _read_delta,
        "kafka": _read_kafka,
        "cloudFiles": _read_cloud_files,
    }
    return readers[source.format](spark, source)


def _read_json(spark: SparkSession, source: Source) -> DataFrame:
    options = _merged(source.options)
    if "true" in (options.get("multiline"), options.get("wholetext")):
        raise InputError("source.options: multiLine is not supported, events must be one JSON object per line")
    lines = spark.readStream.options(**_stream_options(spark, source)).text(_streamed(source.path))
    raw = lines.select(F.make_valid_utf8("value").alias(RAW)).filter(is_written(F.col(RAW)))
    return parse_json(raw, source.columns.model_dump(), options)


def _read_cloud_files(spark: SparkSession, source: Source) -> DataFrame:
    """JSON lines by Auto Loader: as text, whose schema is fixed, so that none is inferred or stored."""
    bound = {} if source.max_records_per_batch is None else {"cloudFiles.maxBytesPerTrigger": _byte_limit(source, 0, 0)}
    options = {**bound, **source.options, "cloudFiles.format": "text"}
    texts = spark.readStream.format("cloudFiles").options(**options)
    lines = texts.schema(StructType([StructField("value", StringType())])).load(source.path)
    raw = lines.select(F.make_valid_utf8("value").alias(RAW)).filter(is_written(F.col(RAW)))
    return parse_json(raw, source.columns.model_dump(), {})


def _read_kafka(spark: SparkSession, source: Source) -> DataFrame:
    lines, beside = kafka.read(spark, source)
    return parse_json(lines, source.columns.model_dump(), {}, beside).drop(*beside)


def parse_json(
    lines: DataFrame, mapped: Mapping[str, str | None], options: Mapping[str, str], beside: Collection[str] = ()
) -> DataFrame:
    """Read the fields of events from JSON text.

    Args:
        lines: With a column `raw`: one object each, or null. Its other columns are kept.
        mapped: Name of each of the event's columns in the objects; None: it has none.
        options: For Spark's parser.
        beside: Columns of `lines` that a name in `mapped` means in place of a field of the objects.

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
    unreadable = F.when(F.isnull(RAW), F.lit(NO_VALUE)).when(F.isnull("event"), F.lit(NOT_JSON)).alias(UNREADABLE)

    def field(name: str) -> Column:
        return F.col(name) if name in beside else F.col("event").getField(name)

    fields = events.select(*_named(mapped, field), unreadable, *lines.columns)
    # A bare NaN, Infinity or 1e999 arrives in a text field with quotes around it.
    ids = {name: _whole(name) for name in (USER, ITEM, *_LEFT_OUT) if name in fields.columns}
    return fields.withColumns({VALUE: F.btrim(VALUE, F.lit('"')), **ids})


def _whole(column: str) -> Column:
    """An id, in which a `?` that stands for half a character is marked as lost, so that a rule refuses it."""
    text = F.col(column)
    marked = F.when(F.col(RAW).rlike(_HALF), F.replace(column, F.lit("?"), F.lit(LOST_BYTES))).otherwise(text)
    # One within the other: what several columns have behind an `&`, Spark computes beforehand, for every record.
    return F.when(F.contains(column, F.lit("?")), marked).otherwise(text)


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
    return typed(source, rows)


def _read_delta(spark: SparkSession, source: Source) -> DataFrame:
    table = _delta_table(spark, source)
    options = _merged(source.options)
    if _is_bounded_by_us(source):
        size = table.detail().select("sizeInBytes").collect()[0][0]
        options["maxbytespertrigger"] = _byte_limit(source, int(size), table.toDF().count())
    stream = spark.readStream.format("delta").options(**options)
    return typed(source, stream.table(source.table) if source.table else stream.load(source.path))


def _delta_table(spark: SparkSession, source: Source) -> DeltaTable:
    if source.table is None:
        if not DeltaTable.isDeltaTable(spark, source.path):
            raise InputError(f"source.path {source.path} is not a Delta table: set source.format to the format it has")
        return DeltaTable.forPath(spark, source.path)
    try:
        return DeltaTable.forName(spark, source.table)
    except PySparkException as error:
        raise InputError(
            f"source.table {source.table} is not a Delta table of the catalog ({first_line(error)}): set it to the "
            f"name of one, or source.path to its folder"
        ) from error


def typed(source: Source, rows: DataFrame) -> DataFrame:
    """Convert typed records to text, so that one set of rules validates every source."""
    names = rows.columns
    mapped = _present(source, names)
    raw = F.to_json(F.struct(*map(_column, names))).alias(RAW)
    columns = _named(mapped, lambda name: _column(name).cast("string"))
    return rows.select(*columns, F.lit(None).cast("string").alias(UNREADABLE), raw)


def _named(mapped: Mapping[str, str | None], column_of: Callable[[str], Column]) -> list[Column]:
    """Columns of an event with the project's names; without a mapping those of `_LEFT_OUT` go, others are null."""
    return [
        (F.lit(None).cast("string") if name is None else column_of(name)).alias(column)
        for column, name in mapped.items()
        if not (column in _LEFT_OUT and name is None)
    ]


def _column(name: str) -> Column:
    return F.col(f"`{name.replace('`', '``')}`")


def _present(source: Source, names: Iterable[str]) -> dict[str, str | None]:
    """The column mapping, without optional columns that are neither configured nor in the source."""
    mapped, unnamed = source.columns.model_dump(), Columns().model_dump()
    optional = {VALUE, *_LEFT_OUT} | ({EVENT_TYPE} if source.default_event_type else set())
    names = list(names)
    for column, name in mapped.items():
        if name is None or name in names:
            continue
        if column not in optional or name != unnamed[column]:
            raise InputError(
                f"{source.place} has no column '{name}' for source.columns.{column}; it has {', '.join(names):.300}"
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


def _stream_options(spark: SparkSession, source: Source, first: tuple[str, int] | None = None) -> dict[str, str]:
    options = _merged(_EVERY_FILE, source.options)
    if not _is_bounded_by_us(source):
        return options
    size, records = 0, 0
    first = first or _first_file(spark, source.path)  # Only here: Spark's first query of all takes a second.
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

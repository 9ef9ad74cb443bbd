"""Kafka as a source of events, and as a place for records: options, the record's own columns, and early refusals."""

import json
from collections.abc import Mapping

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys.config import Settings
from recsys.config.sections import Source
from recsys.contracts import RAW
from recsys.errors import ConfigError, InputError
from recsys.storage import checkpoint_folder
from recsys.tables import checkpoint
from recsys.tables.failures import explain_failure, first_line
from recsys.tables.jars import kafka_package

FORMAT = "kafka"
_SERVERS = "kafka.bootstrap.servers"
# What `source.topics` and the project say, not the options.
_OURS = ("subscribe", "subscribepattern", "assign", "includeheaders")
_RATE_LIMITS = ("maxoffsetspertrigger", "minoffsetspertrigger")
# What a Kafka record has beside its value, by the name that `source.columns` may use.
_BESIDE = {"_key": "key", "_topic": "topic", "_timestamp": "timestamp"}
# Words in the names of options whose values may be secret.
_SECRET = ("sasl", "ssl", "jaas", "password")
# The first answer decides whether the broker can be used at all; Kafka's own clients would try for minutes.
_SOON = {
    "kafka.default.api.timeout.ms": "15000",
    "kafka.request.timeout.ms": "10000",
    "fetchoffset.numretries": "1",
}


def refuse_unusable(settings: Settings, number: int = 0) -> None:
    """Refuse settings of a Kafka source, or of a dead-letter topic, that cannot work.

    Args:
        settings: the section source is used, and for the first source the dead-letter topic.
        number: of the source among those of the stream, from 0.

    Raises:
        ConfigError: they contradict one another, or something is not set.
        InputError: a topic is left out that the stream has begun to read.
    """
    source, dead_letters = settings.source, settings.quarantine.dead_letter_topic if number == 0 else None
    if source.format != FORMAT:
        if source.topics:
            raise ConfigError(f"source.topics is set, and source.format is {source.format}: set it to kafka")
        if dead_letters is not None:
            raise ConfigError("quarantine.dead_letter_topic needs source.format=kafka, for its options: set it to null")
        return
    options = _lowered(source.options)
    if not source.topics:
        raise ConfigError("source.topics is empty: name the topics of your events")
    if not options.get(_SERVERS, "").strip():
        raise ConfigError(f"source.options has no '{_SERVERS}': set it to the address of a broker, such as host:9092")
    if wrong := [key for key in source.options if key.lower() in _OURS]:
        raise ConfigError(f"source.options.{wrong[0]} cannot be set: name the topics in source.topics")
    if dead_letters in source.topics:
        raise ConfigError("quarantine.dead_letter_topic is one of source.topics: refused records would come in again")
    # Spark would plan a batch without it, and could never go on.
    begun = checkpoint.last_position(checkpoint_folder(settings.storage.root), number)
    if left_out := sorted(positions(begun).keys() - set(source.topics)):
        raise InputError(
            f"source.topics has no '{left_out[0]}', which the stream under {settings.storage.root} has begun to read: "
            f"add it, or set storage.root to a new folder"
        )


def read(spark: SparkSession, source: Source) -> tuple[DataFrame, list[str]]:
    """Open the topics as a stream of texts.

    Returns:
        Streaming frame with the columns `raw` (the value as text, null for a tombstone), `_key`, `_topic` and
        `_timestamp`; and the names of the last three, which `source.columns` may name.

    Raises:
        InputError: a topic is missing, the broker refuses the credentials, or Spark has no connector for Kafka.
        OutsideDownError: no broker answers.
    """
    given = _lowered(source.options)
    refuse_unanswered(spark, source, source.topics, "source.topics")
    options = {"startingoffsets": "earliest", **given, "subscribe": ",".join(source.topics)}
    if source.max_records_per_batch is not None and not any(key in given for key in _RATE_LIMITS):
        options["maxoffsetspertrigger"] = str(source.max_records_per_batch)
    records = spark.readStream.format(FORMAT).options(**options).load()
    beside = [F.col(column).cast("string").alias(name) for name, column in _BESIDE.items()]
    return records.select(F.make_valid_utf8(F.col("value").cast("string")).alias(RAW), *beside), list(_BESIDE)


def refuse_unanswered(spark: SparkSession, source: Source, topics: list[str], key: str) -> None:
    """Ask a broker for the partitions of topics, before anything is written.

    Args:
        spark: the session.
        source: its options say how to connect.
        topics: names of the topics.
        key: the setting that names them.

    Raises:
        InputError: a topic is missing, the broker refuses the credentials, or Spark has no connector for Kafka.
        OutsideDownError: no broker answers.
    """
    options = {**_SOON, **connection(source)}
    for topic in topics:
        try:
            # Without an action: this plans the read on the driver, and no record is fetched.
            spark.read.format(FORMAT).options(**options).option("subscribe", topic).load().rdd.getNumPartitions()
        except AnalysisException as error:
            raise InputError(
                f"Spark has no connector for Kafka: run spark-submit --packages {kafka_package()} ..., or start the "
                f"job with python"
            ) from error
        except (PySparkException, Py4JJavaError) as error:
            explained = explain_failure(error) or InputError(
                f"cannot be read with these source.options: {_without_secrets(error, source)}"
            )
            # Without the cause, whose text may have options.
            raise type(explained)(f"{key} {topic}: {explained}") from None


def write(records: DataFrame, source: Source, topic: str) -> None:
    """Send records to a topic, each at least once.

    Args:
        records: With a column `value`; `key` and `headers` are optional.
        source: its options say how to connect.
        topic: name of the topic.
    """
    # A refused record may be as large as the largest that came in; by default a producer refuses more than 1 MiB.
    large = {"kafka.max.request.size": str(2**31 - 1), "kafka.buffer.memory": str(2**28)}
    options = {**large, **connection(source)}
    records.write.format(FORMAT).options(**options).option("topic", topic).option("includeHeaders", "true").save()


def positions(offset: str | None) -> dict[str, dict[str, int]]:
    """Offset by topic and partition from a position in Spark's words; empty for other sources."""
    found = json.loads(offset) if offset else {}
    by_topic = isinstance(found, dict) and all(isinstance(partitions, dict) for partitions in found.values())
    return found if by_topic else {}


def connection(source: Source) -> dict[str, str]:
    """Those options of a source that say how to connect: Kafka's own, and no position or limit of the stream."""
    return {key: value for key, value in _lowered(source.options).items() if key.startswith("kafka.")}


def _lowered(options: Mapping[str, str]) -> dict[str, str]:
    """Spark takes names of options in any case; those of Kafka are lower case."""
    return {key.lower(): value for key, value in options.items()}


def _without_secrets(error: Exception, source: Source) -> str:
    """The cause of an error, without the values of options that it may repeat."""
    text = first_line(error)
    for key, value in source.options.items():
        if value and any(word in key.lower() for word in _SECRET):
            text = text.replace(value, f"<{key}>")
    return text

"""Turns Spark's exceptions into messages for the person who runs a job."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from deltalake.exceptions import CommitFailedError, DeltaError
from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException

from recsys.errors import InputError, OutsideDownError, RecsysError, is_outage
from recsys.remote import store_failure
from recsys.storage import place_of

# What a read or a write of a table may raise, by delta-rs or by Spark.
TABLE_FAILURES = (DeltaError, OSError, PySparkException, Py4JError, InputError, OutsideDownError)
_UNREADABLE_FILE = re.compile(r"\[FAILED_READ_FILE[^\]]*\].*?reading file (\S+?)\.?(?:\s|$)")
# A network that fails, as Java, Hadoop's and Amazon's clients report it. Spark's own sockets to Python
# workers, which fail with the worker, are not meant.
_OUTAGE = re.compile(
    r"(?:java\.net\.(?:ConnectException|NoRouteToHostException|SocketTimeoutException|UnknownHostException)"
    r"|org\.apache\.hadoop\.(?:net\.ConnectTimeoutException|ipc\.(?:StandbyException|RetriableException))"
    r"|org\.apache\.http\.conn\.\w+Exception"
    r")(?!: Accept timed out)[^\n]*"
)
_KAFKA_ERROR = r"org\.apache\.kafka\.common\.errors\."
# What a source or an executor reports that says by itself what is wrong, and what to do. The first that is found
# counts; `{}` is the text of its group.
_REPORTED: tuple[tuple[re.Pattern[str], type[RecsysError], str], ...] = (
    (
        re.compile(r"Some data may have been lost because .*? available in Kafka.*?Reason:\s+([^\n]*)", re.DOTALL),
        InputError,
        "Kafka no longer holds records that the stream has not read ({}), and they are lost to it: set "
        "source.options.failOnDataLoss=false to go on without them, and unset it after that run",
    ),
    (
        re.compile(rf"{_KAFKA_ERROR}(?:UnknownTopicOrPartition|InvalidTopic)Exception: ([^\n]*)"),
        InputError,
        "there is no such topic, or this user may not see it ({}): create it, or correct its name",
    ),
    (
        re.compile(rf"{_KAFKA_ERROR}\w*(?:Authentication|SaslState|SaslMechanism)Exception: ([^\n]*)"),
        InputError,
        "the broker refuses the connection ({}): correct kafka.security.protocol and kafka.sasl.* or kafka.ssl.* in "
        "source.options",
    ),
    (
        re.compile(rf"{_KAFKA_ERROR}\w*AuthorizationException: ([^\n]*)"),
        InputError,
        "the broker does not let this user do that ({}): grant it, or set another user in source.options",
    ),
    (
        re.compile(rf"{_KAFKA_ERROR}RecordTooLargeException: ([^\n]*)"),
        InputError,
        "a refused record is too large for quarantine.dead_letter_topic ({}): raise max.message.bytes of that topic, "
        "or set it to null",
    ),
    (
        re.compile(
            rf"({_KAFKA_ERROR}(?:Timeout|Disconnect|Retriable)Exception[^\n]*|No resolvable bootstrap urls"
            r"|java\.util\.concurrent\.TimeoutException: Cannot fetch record[^\n]*"
            r"|[^\n]*The error could be transient - restart your query)"
        ),
        OutsideDownError,
        "no broker answers ({}): start again once it does, or correct kafka.bootstrap.servers or "
        "kafka.security.protocol in source.options",
    ),
    (
        re.compile(r"ModuleNotFoundError: No module named '([^']+)'"),
        InputError,
        "Python has no module '{}' where Spark needs it: send this package as a .zip with --py-files, and install "
        "what it requires for the Python that PYSPARK_PYTHON names on all machines",
    ),
    (
        re.compile(r"(\[PYTHON_VERSION_MISMATCH\][^\n]*)"),
        InputError,
        "executors run another Python than the driver ({}): let PYSPARK_PYTHON name the same version for all",
    ),
    (
        re.compile(r"(There are \[\d+\] sources in the checkpoint offsets and now there are \[\d+\] sources)"),
        InputError,
        "the sources of a stream are fixed for its life ({}): restore source and sources as they were, or set "
        "storage.root to a new folder and read the events again",
    ),
    (
        re.compile(
            r"(Detected (?:a data update|deleted data)[^\n]*? at version \d+|Detected (?:a data update|deleted data))"
        ),
        InputError,
        "the Delta table of the source had rows changed or deleted ({}), and a stream reads what is appended: set "
        "source.options.skipChangeCommits=true to pass over such commits, with all that they add",
    ),
)
# How delta-rs and Hadoop's client of S3 begin what they report.
_OF_A_STORE = re.compile(r"Generic (?:S3|MicrosoftAzure|GCS) error|Object at location|fs\.s3a|awssdk|s3a://")
# Text of the operating system, which Java, Rust and Python pass on.
_FULL = re.compile(r"[^\n]*(?:No space left on device|Disk quota exceeded)")
_FORBIDDEN = re.compile(r"[^\n]*(?:Read-only file system|Permission denied)")
_REMEDY = "replace it with a good copy, or with an empty file to skip it, then start again"


def explain_failure(error: BaseException) -> RecsysError | None:
    """Recognize what failed: an unreadable file, what a source reports, a storage that is down, full or read-only.

    Args:
        error: Exception raised by `StreamingQuery.awaitTermination` or by a Spark action.

    Returns:
        The error to raise instead, or None if the cause is another one.
    """
    messages = list(_messages(error))
    text = "\n".join(messages)
    for pattern, kind, explanation in _REPORTED:
        if reported := pattern.search(text):
            return kind(explanation.format(" ".join(reported.group(1).split())[:300]))
    if _OF_A_STORE.search(text) and (told := store_failure(text)) is not None:
        return told
    down = _OUTAGE.search(text)
    if down is not None:
        return OutsideDownError(
            f"a source or a storage does not answer ({down.group():.300}): start again once it does, or correct its "
            "address"
        )
    found = _UNREADABLE_FILE.search(text)
    if found is None:
        return _refused_write(text)
    file = found.group(1)
    if "CSV header does not conform" in text:
        return InputError(
            f"{file}: its header differs from that of the first file; make the two equal, then start again"
        )
    cause = " ".join(messages[-1].split())
    return InputError(f"cannot read {file} ({cause:.150}): {_REMEDY}")


@contextmanager
def table_failures(path: str, reading: bool) -> Iterator[None]:
    """Turn what delta-rs and Arrow raise about a table into a line for people.

    Args:
        path: folder of the table.
        reading: whether the table is only read, so that any failure means that it is damaged.

    Raises:
        InputError: the table is damaged, or the storage is read-only.
        OutsideDownError: the storage does not answer, or is full.
    """
    try:
        yield
    except CommitFailedError:
        raise
    except (DeltaError, OSError, pa.ArrowInvalid) as error:
        explained = explain_failure(error)
        if explained is not None:
            raise explained from error
        if not reading or (isinstance(error, OSError) and is_outage(error)):
            raise
        raise InputError(
            f"table {path} cannot be read ({first_line(error)}){_damaged_commit(path)}: restore tables and checkpoint "
            f"of the same time from a backup"
        ) from error


def _damaged_commit(path: str) -> str:
    """Names the first commit of a table that is not JSON, if there is one."""
    for name in sorted(file.name for file in (place_of(path) / "_delta_log").glob("*.json")):
        file = place_of(path) / "_delta_log" / name
        try:
            for line in file.read_text("utf-8").splitlines():
                json.loads(line)
        except (OSError, ValueError):
            return f", {file} is damaged"
    return ""


def _refused_write(text: str) -> RecsysError | None:
    """The error for a storage that is full or read-only, from the text of all causes."""
    full, forbidden = _FULL.search(text), _FORBIDDEN.search(text)
    if full is not None:
        return OutsideDownError(f"the storage is full ({_end(full)}): free space under storage.root, then start again")
    if forbidden is not None:
        return InputError(
            f"the storage refuses to be written ({_end(forbidden)}): let the user that runs the job write under "
            f"storage.root, then start again"
        )
    return None


def _end(found: re.Match[str]) -> str:
    """The end of what was found: paths and causes come last."""
    return found.group().strip()[-200:]


def first_line(error: BaseException) -> str:
    """First line of the root cause, without the Java stack."""
    text = list(_messages(error))[-1].strip()
    return " ".join(text.splitlines()[0].split())[:300] if text else type(error).__name__


def _messages(error: BaseException) -> Iterator[str]:
    """Messages of an exception and of the Java causes behind it, outermost first."""
    yield str(error)
    java = error.java_exception if isinstance(error, Py4JJavaError) else getattr(error, "_origin", None)
    while java is not None:
        yield str(java.toString())
        java = java.getCause()

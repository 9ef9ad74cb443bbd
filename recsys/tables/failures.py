"""Turns Spark's exceptions into messages for the person who runs a job."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from deltalake.exceptions import CommitFailedError, DeltaError
from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException

from recsys.errors import InputError, OutsideDownError, RecsysError, is_outage

# What a read or a write of a table may raise, by delta-rs or by Spark.
TABLE_FAILURES = (DeltaError, OSError, PySparkException, Py4JError, InputError, OutsideDownError)
_UNREADABLE_FILE = re.compile(r"\[FAILED_READ_FILE[^\]]*\].*?reading file (\S+?)\.?(?:\s|$)")
# A network that fails, as Java, Hadoop's and Amazon's clients and Kafka's report it. Spark's own sockets to Python
# workers, which fail with the worker, are not meant.
_OUTAGE = re.compile(
    r"(?:java\.net\.(?:ConnectException|NoRouteToHostException|SocketTimeoutException|UnknownHostException)"
    r"|org\.apache\.hadoop\.(?:net\.ConnectTimeoutException|ipc\.(?:StandbyException|RetriableException))"
    r"|org\.apache\.http\.conn\.\w+Exception"
    r"|org\.apache\.kafka\.common\.errors\.(?:TimeoutException|DisconnectException)"
    r"|org\.apache\.kafka\.common\.config\.ConfigException: No resolvable bootstrap urls)"
    r"(?!: Accept timed out)[^\n]*"
)
# Text of the operating system, which Java, Rust and Python pass on.
_FULL = re.compile(r"[^\n]*(?:No space left on device|Disk quota exceeded)")
_FORBIDDEN = re.compile(r"[^\n]*(?:Read-only file system|Permission denied)")
_REMEDY = "replace it with a good copy, or with an empty file to skip it, then start again"


def explain_failure(error: BaseException) -> RecsysError | None:
    """Recognize what failed on an unreadable file, or on a source or a storage that is down, full or read-only.

    Args:
        error: Exception raised by `StreamingQuery.awaitTermination` or by a Spark action.

    Returns:
        The error to raise instead, or None if the cause is another one.
    """
    messages = list(_messages(error))
    text = "\n".join(messages)
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
    for file in sorted(Path(path, "_delta_log").glob("*.json")):
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

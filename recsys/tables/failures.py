"""Turns Spark's exceptions into messages for the person who runs a job."""

import re
from collections.abc import Iterator

from py4j.protocol import Py4JJavaError

from recsys.errors import InputError, OutsideDownError, RecsysError

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
_REMEDY = "replace it with a good copy, or with an empty file to skip it, then start again"


def explain_failure(error: BaseException) -> RecsysError | None:
    """Recognize what failed on an unreadable file, or because a source or a storage does not answer.

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
        return None
    file = found.group(1)
    if "CSV header does not conform" in text:
        return InputError(
            f"{file}: its header differs from that of the first file; make the two equal, then start again"
        )
    cause = " ".join(messages[-1].split())
    return InputError(f"cannot read {file} ({cause:.150}): {_REMEDY}")


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

"""Log lines with time, level and step, as text or as JSON."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from recsys.contracts import StepId

LogFormat = Literal["text", "json"]

# These log an error with its traceback and raise it, too: whoever catches it reports it.
_TWICE = ("py4j.clientserver", "py4j.java_gateway", "mlflow.store.db.utils")

_step: ContextVar[StepId | None] = ContextVar("step", default=None)


@contextmanager
def log_step(step: StepId) -> Iterator[None]:
    """Lines that this thread logs inside the context carry the step."""
    token = _step.set(step)
    try:
        yield
    finally:
        _step.reset(token)


def configure(log_format: LogFormat) -> None:
    """Send log lines to stderr: warnings of all libraries, and what this package says of its work.

    As JSON, Python's own warnings are lines of the log, too.

    Handlers that are there already, such as those of a notebook, are kept as they are.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATTERS[log_format]())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("recsys").setLevel(logging.INFO)
    logging.captureWarnings(log_format == "json")
    for name in _TWICE:
        logging.getLogger(name).setLevel(logging.CRITICAL)


class TextFormatter(logging.Formatter):
    """`2026-03-01T12:00:00.000Z WARNING [0-17] message`; the step is generation and batch, `-` outside a batch."""

    converter = time.gmtime  # type: ignore[assignment]
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s [%(step)s] %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Add the step, which a formatter knows in the thread that logs."""
        record.step = _step.get() or "-"
        return super().formatMessage(record)


class JsonFormatter(TextFormatter):
    """One JSON object per line: `time`, `level`, `step` (null outside a batch), `logger`, `message`, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record; a traceback is in it, so that one line stays one event."""
        step = _step.get()
        line = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "step": None if step is None else str(step),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


FORMATTERS = {"text": TextFormatter, "json": JsonFormatter}

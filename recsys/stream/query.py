"""The streaming query: run it to its end, or until a signal asks to stop."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame
from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
)
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from recsys.config import Settings
from recsys.config.sections import Trigger
from recsys.errors import RecsysError
from recsys.storage import checkpoint_folder
from recsys.stream.pipeline import Pipeline
from recsys.stream.watch import StreamWatch
from recsys.tables.failures import explain_failure
from recsys.tables.source import SourceLostError, dropped_duplicates, read_what_is_left

logger = logging.getLogger(__name__)

IDLE_WAIT_SECONDS = 1
LISTENER_WAIT_SECONDS = 30


class StopRequested(Exception):
    """Raised at the start of a micro-batch after a signal. The batch before it is complete, this one has not begun."""


def run_query(
    events: DataFrame,
    settings: Settings,
    handle_batch: Callable[[DataFrame, int], None],
    pipeline: Pipeline,
    stop: threading.Event,
    *watches: StreamWatch,
) -> int:
    """Run the query to its end.

    Args:
        events: the stream.
        settings: all settings.
        handle_batch: the function for `foreachBatch`.
        pipeline: its MLflow run is ended if the query fails.
        stop: once it is set, no further batch begins.
        watches: are told what Spark reports.

    Returns:
        Number of dropped duplicates.
    """
    raised: list[Exception] = []
    lost: list[Exception] = []  # the batch that could not be read again, if there was one

    def handle_unless_stopped(batch: DataFrame, batch_id: int) -> None:
        try:
            if stop.is_set():
                raise StopRequested
            handle_batch(batch, batch_id)
            if lost:
                read_what_is_left(batch.sparkSession, lenient=False)
        except Exception as error:
            raised.append(error)  # Through Java it would come back as text, behind Spark's full query plan.
            raise

    spark = events.sparkSession
    listener = DuplicateCounter(watches)
    spark.streams.addListener(listener)
    writer = (
        events.writeStream.queryName(settings.mlflow.model_name)
        .option("checkpointLocation", str(checkpoint_folder(settings.storage.root)))
        .foreachBatch(handle_unless_stopped)
    )
    try:
        try:
            wait(with_trigger(writer, settings.trigger).start(), stop)
        except StreamingQueryException:
            if not (raised and isinstance(raised[0], SourceLostError)):
                raise
            logger.warning(
                "a batch that is in the log cannot be read again (%s): the stream goes on with what the log holds, and "
                "duplicates of the lost events will not be recognized",
                raised[0],
            )
            lost.append(raised.pop())
            listener.finished.clear()
            read_what_is_left(spark, lenient=True)
            wait(with_trigger(writer, settings.trigger).start(), stop)
        listener.finished.wait(LISTENER_WAIT_SECONDS)
    except StreamingQueryException as error:
        if raised and isinstance(raised[0], StopRequested):
            logger.info("stopped between two batches")
            return listener.dropped
        pipeline.fail()
        raise_cause(error, raised)
    finally:
        if lost:
            read_what_is_left(spark, lenient=False)
        spark.streams.removeListener(listener)
    return listener.dropped


def raise_cause(error: StreamingQueryException, raised: list[Exception]) -> NoReturn:
    """Raise what made a query fail: a line for people, or what a batch raised in Python, or the error itself."""
    if raised and isinstance(raised[0], RecsysError):
        raise raised[0] from None
    explained = explain_failure(error)
    if explained is not None:
        raise explained from error
    if raised:
        raise raised[0] from None
    raise error


def with_trigger(writer: DataStreamWriter, trigger: Trigger) -> DataStreamWriter:
    """Apply the configured trigger."""
    if trigger.mode == "available_now":
        return writer.trigger(availableNow=True)
    return writer.trigger(processingTime=trigger.interval)


def wait(query: StreamingQuery, stop: threading.Event) -> None:
    """Wait until a query ends, or stop it: the current batch is finished and no further one begins.

    Raises:
        StreamingQueryException: the query failed.
    """
    while not query.awaitTermination(IDLE_WAIT_SECONDS):
        if stop.is_set() and not query.status["isTriggerActive"]:
            query.stop()


class DuplicateCounter(StreamingQueryListener):
    """Counts and logs the duplicates that Spark's de-duplication drops.

    Spark reports a batch some time after it is done, and the end of the query after the last batch.

    Args:
        watches: are told of each batch, and of Spark finding nothing new.

    Attributes:
        dropped: duplicates so far.
        finished: set when everything has been reported.
    """

    def __init__(self, watches: Sequence[StreamWatch]) -> None:
        self.watches = watches
        self.dropped = 0
        self.finished = threading.Event()

    def onQueryStarted(self, event: QueryStartedEvent) -> None:  # noqa: N802 - Spark's name
        """Nothing to do."""

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802 - Spark's name
        """Count the duplicates of one batch."""
        dropped = dropped_duplicates(event.progress)
        if dropped:
            self.dropped += dropped
            logger.info("%d duplicates dropped", dropped)
        for watch in self.watches:
            watch.progress(event.progress, dropped)

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: N802 - Spark's name
        """Pass on that nothing waits."""
        for watch in self.watches:
            watch.idle()

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: N802 - Spark's name
        """Note that everything has been reported."""
        self.finished.set()


@contextmanager
def stop_signals(stop: threading.Event | None = None) -> Iterator[threading.Event]:
    """The event, which SIGTERM and SIGINT set inside the context; a second signal ends the process at once."""
    stop = stop or threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python delivers signals to the main thread only.
        return

    def request_stop(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number)
        logger.warning("%s: finishing the current batch, then stopping", name.name)
        stop.set()
        signal.signal(name, previous[name])

    previous = {number: signal.signal(number, request_stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

"""The stream as a job: set it up, run the query, and wait for its end or for a signal to stop."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from mlflow import MlflowClient
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame
from pyspark.sql.streaming.listener import (
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
)
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from recsys.config import Settings
from recsys.config.sections import Trigger
from recsys.contracts import EVENT_ID, INTERACTION_LOG, LedgerRow
from recsys.registry.client import connect
from recsys.registry.runs import GenerationRun
from recsys.storage import checkpoint_folder, writer_lock
from recsys.stream.handover import first_batch
from recsys.stream.pipeline import Pipeline
from recsys.stream.publish import ROWS_KEPT, Observer, Publisher, log_stage
from recsys.stream.recovery import current_generation, recover_model, refuse_lost_checkpoint
from recsys.stream.report import StreamReport
from recsys.tables import checkpoint, ledger, log
from recsys.tables.delta import Tables
from recsys.tables.failures import explain_failure
from recsys.tables.session import build_session
from recsys.tables.source import dropped_duplicates, open_events, refuse_unusable

logger = logging.getLogger(__name__)

IDLE_WAIT_SECONDS = 1
LISTENER_WAIT_SECONDS = 30


class StopRequested(Exception):
    """Raised at the start of a micro-batch after a signal. The batch before it is complete, this one has not begun."""


@dataclass(frozen=True)
class StreamSummary:
    """Result of one run of the stream.

    Attributes:
        batches: learned micro-batches; events: events in them; duplicates: records dropped as duplicates.
        champion_version: registered version of the champion at the end, or None.
        plot: plot of quality and cost, or None if nothing was learned.
    """

    batches: int
    events: int
    duplicates: int
    champion_version: str | None
    plot: Path | None


def run_stream(settings: Settings, observe: Observer = log_stage, batches: int | None = None) -> StreamSummary:
    """Read events and keep tables and model up to date until the source is exhausted or a signal comes.

    Args:
        settings: all settings.
        observe: called after every completed stage of a batch.
        batches: expected number of micro-batches, for the progress bar.

    Raises:
        InputError: the source, the storage or the checkpoint cannot be used.
        RegistryError: the tracking server does not answer at the start.
    """
    with writer_lock(settings.storage.root), stop_signals() as stop:
        refuse_unusable(settings)
        client = connect(settings)
        spark = build_session(settings)
        events = open_events(spark, settings)
        tables = Tables(spark, settings.storage)
        tables.create_missing()
        first = first_batch(settings, has_ids=EVENT_ID in events.columns)
        with StreamReport(settings.recommend.k, batches) as report:
            pipeline = open_pipeline(settings, client, tables, report, observe, first)

            def handle_batch(batch: DataFrame, batch_id: int) -> None:
                pipeline.handle_batch(batch, first + batch_id)

            duplicates = run_query(events, settings, handle_batch, pipeline, stop)
        plot = close(pipeline)
        return StreamSummary(report.batches, report.events, duplicates, pipeline.publisher.champion_version, plot)


def open_pipeline(
    settings: Settings,
    client: MlflowClient,
    tables: Tables,
    report: Callable[[LedgerRow], None],
    observe: Observer,
    first_batch: int = 0,
) -> Pipeline:
    """Restore the model and the MLflow run of the current generation from the tables.

    Args:
        settings: all settings.
        client: from `registry.client.connect`.
        tables: the Delta tables.
        report: called with the ledger row of every learned batch.
        observe: called after every completed stage of a batch.
        first_batch: batch id in the ledger of the checkpoint's batch 0.

    Raises:
        InputError: the checkpoint is gone, or a snapshot was made with other settings.
        RegistryError: MLflow failed.
    """
    generation = current_generation(tables)
    logged = log.last_step(tables, generation.number)
    query_id = checkpoint.query_id(tables.spark, str(checkpoint_folder(settings.storage.root)))
    refuse_lost_checkpoint(settings, query_id, generation, logged, first_batch)
    model = recover_model(settings, tables, generation)
    run = GenerationRun.open(client, settings, generation.number, tables.identity(INTERACTION_LOG))
    oldest = min(run.last_sent, generation.last_batch - ROWS_KEPT)
    publisher = Publisher(
        client,
        settings,
        run,
        tables.location(INTERACTION_LOG),
        ledger.read(tables, generation.number, after=oldest),
    )
    return Pipeline(
        settings,
        tables,
        model,
        generation,
        logged_through=-1 if logged is None else logged.batch_id,
        publisher=publisher,
        report=report,
        observe=observe,
    )


def close(pipeline: Pipeline) -> Path | None:
    """Bring tables and MLflow up to date after the last complete batch; return the plot if anything was learned."""
    pipeline.close()
    plot = pipeline.publisher.plot() if pipeline.publisher.rows else None
    pipeline.publisher.close(failed=False)
    return plot


def run_query(
    events: DataFrame,
    settings: Settings,
    handle_batch: Callable[[DataFrame, int], None],
    pipeline: Pipeline,
    stop: threading.Event,
) -> int:
    """Run the query to its end.

    Args:
        events: the stream.
        settings: all settings.
        handle_batch: the function for `foreachBatch`.
        pipeline: its MLflow run is ended if the query fails.
        stop: once it is set, no further batch begins.

    Returns:
        Number of dropped duplicates.
    """
    raised: list[Exception] = []

    def handle_unless_stopped(batch: DataFrame, batch_id: int) -> None:
        try:
            if stop.is_set():
                raise StopRequested
            handle_batch(batch, batch_id)
        except Exception as error:
            raised.append(error)  # Through Java it would come back as text, behind Spark's full query plan.
            raise

    spark = events.sparkSession
    listener = DuplicateCounter()
    spark.streams.addListener(listener)
    try:
        writer = (
            events.writeStream.queryName(settings.mlflow.model_name)
            .option("checkpointLocation", str(checkpoint_folder(settings.storage.root)))
            .foreachBatch(handle_unless_stopped)
        )
        query = with_trigger(writer, settings.trigger).start()
        wait(query, stop)
        listener.finished.wait(LISTENER_WAIT_SECONDS)
    except StreamingQueryException as error:
        if raised and isinstance(raised[0], StopRequested):
            logger.info("stopped between two batches")
            return listener.dropped
        pipeline.publisher.close(failed=True)
        explained = explain_failure(error)
        if explained is not None:
            raise explained from error
        if raised:
            raise raised[0] from None
        raise
    finally:
        spark.streams.removeListener(listener)
    return listener.dropped


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

    Attributes:
        dropped: duplicates so far.
        finished: set when everything has been reported.
    """

    def __init__(self) -> None:
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

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: N802 - Spark's name
        """Note that everything has been reported."""
        self.finished.set()


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set inside the context; a second signal ends the process at once."""
    stop = threading.Event()
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

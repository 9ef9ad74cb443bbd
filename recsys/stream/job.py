"""The stream as a job: set it up, run the query, and wait for its end or for a signal to stop."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import ParamSpec

from pyspark.sql import DataFrame, SparkSession

from recsys.config import Settings
from recsys.contracts import EVENT_ID, LedgerRow, StepId
from recsys.errors import RegistryDownError
from recsys.logs import log_step
from recsys.registry.client import connect, sqlite_file
from recsys.storage import Place, checkpoint_folder, snapshot_folder, writer_lock
from recsys.stream.background import Background
from recsys.stream.feed import FeedWatch
from recsys.stream.handover import first_batch
from recsys.stream.monitoring import watched
from recsys.stream.pipeline import Pipeline
from recsys.stream.publish import ROWS_KEPT, Observer, Publisher, log_stage
from recsys.stream.query import run_query, stop_signals
from recsys.stream.recovery import (
    current_generation,
    logged_so_far,
    recover_model,
    refuse_other_checkpoint,
    refuse_other_settings,
)
from recsys.stream.report import StreamReport
from recsys.tables import checkpoint, lease, ledger
from recsys.tables.checkpoint import Plan
from recsys.tables.delta import Tables
from recsys.tables.session import build_session
from recsys.tables.source import open_events, refuse_unusable

Given = ParamSpec("Given")


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
    plot: Place | None


def run_stream(
    settings: Settings,
    observe: Observer = log_stage,
    batches: int | None = None,
    spark: SparkSession | None = None,
    stop: threading.Event | None = None,
    opening: "Future[DataFrame] | None" = None,
) -> StreamSummary:
    """Read events and keep tables and model up to date until the source is exhausted or a signal comes.

    Args:
        settings: all settings.
        observe: called after every completed stage of a batch.
        batches: expected number of micro-batches, for the progress bar.
        spark: session to use; None: that of `build_session`.
        stop: once it is set, the current batch is finished and no further one begins, as after a signal.
        opening: the sources, from `begin_events`; None: they are opened here.

    Raises:
        InputError: the source, the storage, the checkpoint or the port of the figures cannot be used.
        LeaseError: another job writes the tables, or has taken them over.
        BrokenFeedError: an alert of `feed.stop_on`; everything up to it is learned.
        RegistryError: the tracking server refuses, or does not answer at the first start of all.
    """
    with (
        writer_lock(settings.storage.root),
        stop_signals(stop) as stop,
        watched(settings) as watch,
        ExitStack() as holding,
    ):
        refuse_unusable(settings)
        meet_mlflow(settings)
        if opening is None:
            events = open_events(build_session(settings) if spark is None else spark, settings)
        else:
            events = opening.result()
        tables = Tables(events.sparkSession, settings.storage)
        tables.create_missing()
        holding.enter_context(lease.held(tables, "stream_update", settings.storage.lease_seconds))
        first = first_batch(settings, has_ids=EVENT_ID in events.columns)
        with StreamReport(settings.recommend.k, batches, settings.logging.format) as report:
            reports, observers = both(watch.report, report), both(watch.observe, observe)
            background = holding.enter_context(Background())
            pipeline = open_pipeline(settings, tables, background, reports, observers, first)

            feed = FeedWatch(settings, tables, pipeline, first, watch, stop)

            def handle_batch(batch: DataFrame, batch_id: int) -> None:
                watch.begins()
                with log_step(StepId(pipeline.generation.number, first + batch_id)):
                    pipeline.handle_batch(batch, first + batch_id, planned(settings, batch_id))
                    feed.judge()
                watch.committed(pipeline.publisher.waiting)

            duplicates = run_query(events, settings, handle_batch, pipeline, stop, watch, feed)
        if not stop.is_set():
            feed.idle()
        plot = close(pipeline)
        feed.refuse_broken()
        return StreamSummary(report.batches, report.events, duplicates, pipeline.publisher.champion_version, plot)


def meet_mlflow(settings: Settings) -> None:
    """Ask MLflow while Spark takes its time to start, if the storage is new; any other start can wait for a server.

    A database in a file lets nobody wait, and what it takes to open it is then imported already.

    Raises:
        RegistryError: MLflow refuses, or does not answer, and the storage is new.
    """
    root = settings.storage.root
    if not (checkpoint_folder(root).exists() or snapshot_folder(root).exists()):
        connect(settings)
    elif sqlite_file(settings.tracking_uri) is not None:
        with suppress(RegistryDownError):  # The publisher tries again, and tells of it.
            connect(settings)


def open_pipeline(
    settings: Settings,
    tables: Tables,
    background: Background,
    report: Callable[[LedgerRow], None],
    observe: Observer,
    first_batch: int | None = None,
) -> Pipeline:
    """Restore the model and the MLflow run of the current generation from the tables.

    A version that an interruption has kept from being registered is registered now, in the background.

    Args:
        settings: all settings.
        tables: the Delta tables.
        background: see `Pipeline`.
        report: called with the ledger row of every learned batch.
        observe: called after every completed stage of a batch.
        first_batch: batch id in the ledger of the checkpoint's batch 0; None: the caller has checked the checkpoint.

    Raises:
        InputError: the checkpoint is not the one of the tables, or the settings have changed.
        RegistryError: MLflow refuses, or does not answer and the ledger is empty.
    """
    generation = current_generation(tables)
    logged = logged_so_far(tables, generation)
    if first_batch is not None:
        refuse_other_checkpoint(settings, generation, logged, first_batch)
    refuse_other_settings(settings, generation)
    model = recover_model(settings, tables, generation)
    rows = ledger.read(tables, generation.number, after=generation.last_batch - ROWS_KEPT)
    publisher = Publisher(settings, tables, generation.number, rows)
    publisher.start(may_wait=bool(rows))
    pipeline = Pipeline(
        settings,
        tables,
        model,
        generation,
        logged=logged,
        publisher=publisher,
        background=background,
        report=report,
        observe=observe,
    )
    last = StepId(generation.number, generation.last_batch)
    if publisher.owes(last):
        pipeline.begin_version(last)
    return pipeline


def both(first: Callable[Given, object], second: Callable[Given, object]) -> Callable[Given, None]:
    """A function that hands what it is given to two others, one after the other."""

    def call(*given: Given.args, **named: Given.kwargs) -> None:
        first(*given, **named)
        second(*given, **named)

    return call


def planned(settings: Settings, batch_id: int) -> Plan:
    """What Spark planned for a batch that it hands over; it is in the checkpoint before the batch begins."""
    plan = checkpoint.plan(checkpoint_folder(settings.storage.root), batch_id)
    assert plan is not None, "Spark writes the plan first"
    return plan


def close(pipeline: Pipeline) -> Place | None:
    """Bring tables and MLflow up to date after the last complete batch; return the plot if anything was learned."""
    pipeline.close()
    plot = pipeline.publisher.plot() if pipeline.publisher.rows else None
    pipeline.publisher.close(failed=False)
    return plot

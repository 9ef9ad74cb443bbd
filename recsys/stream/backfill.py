"""Backfills a history: reads it in bulk, cuts it by time into batches, and runs them through the stages of the stream.

    count -> cut -> quarantine -> log -> (evaluate -> learn -> snapshot -> ledger -> MLflow) for each batch -> totals

Spark's streaming source reads the history as one micro-batch, batch 0 of the checkpoint. So files, duplicates and the
clock are treated as in the stream, and a stream of the same source can continue after it. After a crash Spark delivers
the same micro-batch again. The log takes the whole history in one commit; from then on, log and ledger determine what
is left to do. Ledger rows are written for several batches at a time, always before a version of them is registered.
"""

import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from pyspark.sql import DataFrame

from recsys.batches import batch_starts, events_per_batch
from recsys.config import Settings
from recsys.config.sections import Source
from recsys.contracts import EVENT_ID, INTERACTION_LOG, MODEL_UPDATES, QUARANTINE, LedgerRow, StepId
from recsys.errors import ConfigError, InputError, SolveError
from recsys.frames import listed
from recsys.logs import log_step
from recsys.storage import Place, writer_lock
from recsys.stream import handover
from recsys.stream.background import Background
from recsys.stream.handover import Handover
from recsys.stream.job import close, meet_mlflow, open_pipeline, planned
from recsys.stream.pipeline import Pipeline, application_id
from recsys.stream.publish import Observer, log_stage
from recsys.stream.query import StopRequested, run_query, stop_signals
from recsys.stream.recovery import Logged
from recsys.stream.report import StreamReport
from recsys.stream.stored import StoredBatch
from recsys.tables import exposures, history, lease, log, quarantine
from recsys.tables.delta import Tables
from recsys.tables.formats import RATE_LIMITS
from recsys.tables.history import HistoryCounts
from recsys.tables.session import build_session
from recsys.tables.source import open_events, refuse_unusable

# More files than any source has, so that the whole history is one micro-batch.
_ALL_FILES = str(2**31 - 1)


@dataclass(frozen=True)
class BackfillSummary:
    """Result of a backfill.

    Attributes:
        batches: batches of the history in the ledger.
        learned: batches learned by this run; 0 if an earlier run had finished.
        events: events in these batches; duplicates: records dropped as duplicates.
        quarantined: number of quarantined records by reason; a record may have several reasons.
        finished: False if a signal stopped it early.
        champion_version: registered version of the champion at the end, or None.
        plot: plot of quality and cost, or None if nothing was learned.
    """

    batches: int
    learned: int = 0
    events: int = 0
    duplicates: int = 0
    quarantined: Mapping[str, int] = field(default_factory=dict)
    finished: bool = True
    champion_version: str | None = None
    plot: Place | None = None


def backfill(settings: Settings, observe: Observer = log_stage) -> BackfillSummary:
    """Load a history into an empty storage as if it had streamed. After a kill or a stop, call it again to continue.

    Args:
        settings: all settings; the source is that of the stream.
        observe: called after every completed stage of a batch.

    Raises:
        ConfigError: the source is Kafka or Auto Loader, which the stream reads in bounded batches anyway.
        InputError: the source cannot be used or has no good event, or the storage has batches already.
        LeaseError: another job writes the tables.
        RegistryError: the tracking server refuses, or does not answer before the first batch is learned.
    """
    root = settings.storage.root
    if any(one.source.format == "kafka" for one in settings.each_source):
        raise ConfigError(
            "a backfill reads files or a Delta table, and source.format is kafka: let jobs/stream_update.py read them"
        )
    if any(one.source.format == "cloudFiles" for one in settings.each_source):
        raise ConfigError(
            "a backfill reads files without Auto Loader (source.format is cloudFiles), and a stream with it would read "
            "them again: set source.format to json for both, or let jobs/stream_update.py read the old files"
        )
    settings = _in_bulk(settings)
    with writer_lock(root), stop_signals() as stop, ExitStack() as holding:
        held = handover.load(root)
        if held is not None and held.finished:
            _refuse_another(settings, held)
            return BackfillSummary(held.batches or 0)
        refuse_unusable(settings)
        meet_mlflow(settings)
        tables = Tables(build_session(settings), settings.storage)
        tables.create_missing()
        holding.enter_context(lease.held(tables, "backfill", settings.storage.lease_seconds))
        events = open_events(tables.spark, settings)
        held = _begin(settings, tables, EVENT_ID in events.columns, held)
        with StreamReport(settings.recommend.k, log_format=settings.logging.format) as report:
            background = holding.enter_context(Background())
            pipeline = open_pipeline(settings, tables, background, report, observe)
            reading = _Reading(pipeline, report, held, stop)
            duplicates = run_query(events, settings, reading.handle, pipeline, stop)
        batches = reading.held.batches
        if batches is None and not stop.is_set():
            raise InputError(f"{settings.source.place} has no records: set it to where your events are")
        finished = batches is not None and pipeline.learned_through >= batches - 1
        plot = None
        if finished:
            plot = close(pipeline)
            observe("end", StepId(0, pipeline.learned_through))
            handover.save(root, replace(reading.held, finished=True))
        else:
            pipeline.finish()
            pipeline.publisher.close(failed=False)
        version = pipeline.publisher.champion_version
        counts = (report.batches, report.events, duplicates)
        return BackfillSummary(batches or 0, *counts, reading.rejected, finished, version, plot)


class _Reading:
    """Reads the history from Spark and runs it through the stages.

    Args:
        pipeline: pipeline of generation 0, restored.
        report: receives the expected number of batches, and the row of each batch.
        held: state of the backfill; kept up to date.
        stop: set when a signal asks to stop.

    Attributes:
        rejected: number of bad records by reason.
    """

    def __init__(self, pipeline: Pipeline, report: StreamReport, held: Handover, stop: threading.Event) -> None:
        self.pipeline = pipeline
        self.report = report
        self.held = held
        self.rejected: dict[str, int] = {}
        self._stop = stop

    def handle(self, events: DataFrame, batch_id: int) -> None:
        """Process one micro-batch; the function for `foreachBatch`.

        Raises:
            InputError: the history has no good event.
            StopRequested: a signal came; the learned batches are in the ledger.
        """
        if batch_id > 0:  # Events that arrived while the backfill was stopped: an ordinary batch of the stream.
            plan = planned(self.pipeline.settings, batch_id)
            self.pipeline.handle_batch(events, self.held.first_batch + batch_id, plan)
            return
        application = application_id(events)
        started = time.perf_counter()
        events.persist()  # It is read several times, and duplicates must be counted once.
        try:
            counts = history.count(events)
            self.rejected = quarantine.reasons(events) if counts.quarantined else {}
            if not len(counts.times):
                raise InputError(f"no record of the source can be learned from: {listed(self.rejected)}")
            if self.pipeline.logged.through < 0:
                self._log(events, counts, application)
        finally:
            events.unpersist()
        batches = self.pipeline.logged.through + 1
        self.held = handover.save(self.pipeline.settings.storage.root, replace(self.held, batches=batches))
        self._learn(counts, application, (time.perf_counter() - started) / batches)

    def _log(self, events: DataFrame, counts: HistoryCounts, application: str) -> None:
        """Cut the history by time, and write it to quarantine and log. Bad records and exposures belong to batch 0."""
        pipeline, settings = self.pipeline, self.pipeline.settings
        size = events_per_batch(int(counts.events.sum()), settings.source.max_records_per_batch)
        starts = batch_starts(counts.times, size, counts.events)
        if counts.quarantined:
            quarantine.append(pipeline.tables, events, StepId(0, 0), application, counts.quarantined)
        pipeline.observe("quarantine", StepId(0, 0))
        if counts.listed:
            exposures.append(pipeline.tables, events, settings.weights, StepId(0, 0), application, in_bulk=True)
            pipeline.observe("exposures", StepId(0, 0))
        history.append(pipeline.tables, events, settings.weights, counts, starts, application)
        pipeline.logged = Logged(len(starts) - 1)
        pipeline.observe("log", StepId(0, pipeline.logged.through))

    def _learn(self, counts: HistoryCounts, application: str, seconds: float) -> None:
        """Evaluate and learn the batches that are in the log but not in the ledger.

        Args:
            counts: counts of the history.
            application: the transaction application id.
            seconds: time that Spark took for the history, per batch.
        """
        pipeline = self.pipeline
        last = StepId(0, pipeline.logged.through)
        self.report.expect(last.batch_id - pipeline.learned_through)
        log_version, plan = pipeline.tables.version(INTERACTION_LOG), planned(pipeline.settings, 0)
        if pipeline.learned_through >= 0:
            self._publish(StepId(0, pipeline.learned_through))  # A kill may have left it undone, as in the stream.
        rows: list[LedgerRow] = []
        for step, batch in log.batches(pipeline.tables, StepId(0, pipeline.learned_through), last):
            began = time.perf_counter() - seconds
            batch = pipeline.contents.bring(batch, pipeline.model, step, application)
            first = step.batch_id == 0
            quarantined, reasons = (counts.quarantined, self.rejected) if first else (0, {})
            exposure = (
                exposures.figures(pipeline.tables, step, pipeline.settings.experiment)
                if first and counts.listed
                else {}
            )
            records = batch.records + quarantined
            stored = StoredBatch(batch, log_version, records, quarantined, reasons, exposure, plan, began, seconds)
            with log_step(step):
                try:
                    row = pipeline.learn(stored, step)
                except SolveError as error:
                    if rows:
                        pipeline.record(rows, application)
                    rows, row = [], pipeline.set_aside(stored, step, error)
                rows.append(row)
                self.report(row)
            stopping = self._stop.is_set() and step != last
            if stopping or step == last or rows[-1].state_uri or pipeline.publisher.is_due(step):
                pipeline.record(rows, application)
                self._publish(step)
                rows = []
            if stopping:
                raise StopRequested

    def _publish(self, step: StepId) -> None:
        self.pipeline.publish(step)
        self.pipeline.observe("batch", step)


def _begin(settings: Settings, tables: Tables, has_ids: bool, held: Handover | None) -> Handover:
    """Check that a backfill may begin or continue, and record that it does.

    Raises:
        InputError: the storage has batches of a stream, or of another history.
    """
    root = settings.storage.root
    if any(log.last_step(tables, name=name) for name in (INTERACTION_LOG, QUARANTINE, MODEL_UPDATES)):
        if held is None:
            raise InputError(
                f"the tables under {root} have batches already, and a backfill comes first: set storage.root to a new "
                f"folder, or let jobs/stream_update.py read the old events"
            )
        _refuse_another(settings, held)
        return held
    # Nothing depends on what Spark may have planned, and files or settings may have been corrected since.
    handover.empty_checkpoint(root)
    return handover.save(root, handover.described(settings, has_ids))


def _refuse_another(settings: Settings, held: Handover) -> None:
    if handover.source_path(settings) != held.path:
        done = "has been backfilled" if held.finished else "is being backfilled"
        raise InputError(
            f"storage.root {settings.storage.root} holds another history: {held.path} {done}; set source.path to it, "
            f"or storage.root to a new folder"
        )


def _in_bulk(settings: Settings) -> Settings:
    """Settings with which Spark reads the whole source as one micro-batch, and ends."""
    once = settings.trigger.model_copy(update={"mode": "available_now"})
    further = [_whole(source) for source in settings.sources]
    return settings.model_copy(update={"source": _whole(settings.source), "sources": further, "trigger": once})


def _whole(source: Source) -> Source:
    options = {key: value for key, value in source.options.items() if key.lower() not in RATE_LIMITS}
    return source.model_copy(update={"options": {**options, "maxFilesPerTrigger": _ALL_FILES}})

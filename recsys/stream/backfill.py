"""A history in bulk: the stream's first reading, taken whole, cut by time and taken through the stream's stages.

    count -> cut -> quarantine -> log -> (evaluate -> learn -> snapshot -> ledger -> MLflow) for each batch -> totals

Spark's streaming source reads it as one micro-batch, batch 0 of the checkpoint, so that files, duplicates and the clock
are treated as in the stream, and a stream of the same source goes on behind it. What Spark has planned it delivers
again after a crash; the log takes the whole history in one commit; from then on log and ledger say what is left to do.
The ledger's rows are written some batches at a time, always before a version is made of them.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pyspark.sql import DataFrame

from recsys.batches import batch_starts, events_per_batch
from recsys.config import Settings
from recsys.contracts import EVENT_ID, INTERACTION_LOG, MODEL_UPDATES, QUARANTINE, LedgerRow, StepId
from recsys.errors import InputError
from recsys.registry.client import connect
from recsys.storage import writer_lock
from recsys.stream import handover
from recsys.stream.handover import Handover
from recsys.stream.job import StopRequested, close, open_pipeline, run_query, stop_signals
from recsys.stream.pipeline import Pipeline, StoredBatch, application_id
from recsys.stream.publish import Observer, log_stage
from recsys.stream.report import StreamReport
from recsys.tables import history, log, quarantine
from recsys.tables.delta import Tables
from recsys.tables.history import HistoryCounts
from recsys.tables.session import build_session
from recsys.tables.source import open_events, refuse_unusable

# More than any folder or table has: the whole history is one micro-batch.
_ALL_FILES = str(2**31 - 1)
_RATE_LIMITS = ("maxfilespertrigger", "maxbytespertrigger")


@dataclass(frozen=True)
class BackfillSummary:
    """What a backfill did.

    Attributes:
        batches: batches of the history in the ledger.
        learned: those of them that this run has learned; 0 where an earlier run had finished.
        events: events in those; duplicates: records dropped as duplicates.
        quarantined: records set aside, by reason; a record may have several.
        finished: False where a signal stopped it before its end.
        champion_version: registered champion at the end, None when there is none.
        plot: picture of quality and cost, None when nothing was learned.
    """

    batches: int
    learned: int = 0
    events: int = 0
    duplicates: int = 0
    quarantined: Mapping[str, int] = field(default_factory=dict)
    finished: bool = True
    champion_version: str | None = None
    plot: Path | None = None


def backfill(settings: Settings, observe: Observer = log_stage) -> BackfillSummary:
    """Take a history into an empty storage, as if it had streamed. Killed or stopped, it goes on when called again.

    Args:
        settings: all settings; the source is that of the stream.
        observe: told of every completed stage of every batch.

    Raises:
        InputError: the source cannot be used or holds no good event, or the storage holds batches already.
        RegistryError: the tracking server does not answer at the start.
    """
    root = settings.storage.root
    settings = _in_bulk(settings)
    with writer_lock(root), stop_signals() as stop:
        held = handover.load(root)
        if held is not None and held.finished:
            _refuse_another(settings, held)
            return BackfillSummary(held.batches or 0)
        refuse_unusable(settings)
        client = connect(settings)
        tables = Tables(build_session(settings), settings.storage)
        tables.create_missing()
        events = open_events(tables.spark, settings)
        held = _begin(settings, tables, EVENT_ID in events.columns, held)
        with StreamReport(settings.recommend.k) as report:
            pipeline = open_pipeline(settings, client, tables, report, observe)
            reading = _Reading(pipeline, report, held, stop)
            duplicates = run_query(events, settings, reading.handle, pipeline, stop)
        batches = reading.held.batches
        if batches is None and not stop.is_set():
            raise InputError(f"source.path {settings.source.path} holds no record")
        finished = batches is not None and pipeline.learned_through >= batches - 1
        plot = None
        if finished:
            plot = close(pipeline)
            observe("end", StepId(0, pipeline.learned_through))
            handover.save(root, replace(reading.held, finished=True))
        else:
            pipeline.publisher.close(failed=False)
        version = pipeline.publisher.champion_version
        counts = (report.batches, report.events, duplicates)
        return BackfillSummary(batches or 0, *counts, reading.rejected, finished, version, plot)


class _Reading:
    """Takes the history from Spark and through the stages.

    Args:
        pipeline: of generation 0, as far as it has come.
        report: told how many batches to expect, and of each batch.
        held: what is known of the backfill; kept up to date.
        stop: set when a signal asks to stop.

    Attributes:
        rejected: bad records by reason.
    """

    def __init__(self, pipeline: Pipeline, report: StreamReport, held: Handover, stop: threading.Event) -> None:
        self.pipeline = pipeline
        self.report = report
        self.held = held
        self.rejected: dict[str, int] = {}
        self._stop = stop

    def handle(self, events: DataFrame, batch_id: int) -> None:
        """Take one micro-batch: the function for `foreachBatch`.

        Raises:
            InputError: the history holds no good event.
            StopRequested: a signal came; what was learned is in the ledger.
        """
        if batch_id > 0:  # What came while a backfill was stopped: a batch of the stream like any other.
            self.pipeline.handle_batch(events, self.held.first_batch + batch_id)
            return
        application = application_id(events)
        started = time.perf_counter()
        events.persist()  # Read several times, and duplicates are to be counted once.
        try:
            counts = history.count(events)
            self.rejected = history.reasons(events) if counts.quarantined else {}
            if not len(counts.times):
                raise InputError(f"no record of the source can be learned from: {_listed(self.rejected)}")
            if self.pipeline.logged_through < 0:
                self._log(events, counts, application)
        finally:
            events.unpersist()
        batches = self.pipeline.logged_through + 1
        self.held = handover.save(self.pipeline.settings.storage.root, replace(self.held, batches=batches))
        self._learn(counts, application, (time.perf_counter() - started) / batches)

    def _log(self, events: DataFrame, counts: HistoryCounts, application: str) -> None:
        """Cut the history by time, and write it to quarantine and log; bad records count in batch 0."""
        pipeline, settings = self.pipeline, self.pipeline.settings
        size = events_per_batch(int(counts.events.sum()), settings.source.max_records_per_batch)
        starts = batch_starts(counts.times, size, counts.events)
        if counts.quarantined:
            quarantine.append(pipeline.tables, events, StepId(0, 0), application)
        pipeline.observe("quarantine", StepId(0, 0))
        history.append(pipeline.tables, events, settings.weights, counts, starts, application)
        pipeline.logged_through = len(starts) - 1
        pipeline.observe("log", StepId(0, pipeline.logged_through))

    def _learn(self, counts: HistoryCounts, application: str, seconds: float) -> None:
        """Evaluate and learn the batches that the log holds and the ledger does not.

        Args:
            counts: what the history holds.
            application: the transaction application id.
            seconds: Spark's time for the history, per batch.
        """
        pipeline = self.pipeline
        last = StepId(0, pipeline.logged_through)
        self.report.expect(last.batch_id - pipeline.learned_through)
        log_version = pipeline.tables.version(INTERACTION_LOG)
        assert counts.ingested_at is not None, "there are records"
        rows: list[LedgerRow] = []
        for step, batch in log.batches_after(pipeline.tables, StepId(0, pipeline.learned_through), last):
            quarantined = counts.quarantined if step.batch_id == 0 else 0
            records = int(batch.events.sum()) + quarantined
            stored = StoredBatch(batch, log_version, records, quarantined, counts.ingested_at, seconds)
            rows.append(pipeline.learn(stored, step))
            self.report(rows[-1])
            stopping = self._stop.is_set() and step != last
            if stopping or step == last or rows[-1].state_uri or pipeline.publisher.is_due(step):
                pipeline.record(rows, application)
                pipeline.publish(step)
                pipeline.observe("batch", step)
                rows = []
            if stopping:
                raise StopRequested


def _begin(settings: Settings, tables: Tables, has_ids: bool, held: Handover | None) -> Handover:
    """See that a backfill may begin or go on, and note that it does.

    Raises:
        InputError: the storage holds batches of a stream, or of another history.
    """
    root = settings.storage.root
    if any(log.last_step(tables, name=name) for name in (INTERACTION_LOG, QUARANTINE, MODEL_UPDATES)):
        if held is None:
            raise InputError(
                f"the tables under {root} hold batches already, and a history comes first: set storage.root to a new "
                f"folder, or let jobs/stream_update.py read the old events as they are"
            )
        _refuse_another(settings, held)
        return held
    # Nothing depends on what Spark may have planned: files and settings may have been put right since then.
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
    """Settings with which Spark reads everything that is there as one micro-batch, and ends."""
    source = settings.source
    options = {key: value for key, value in source.options.items() if key.lower() not in _RATE_LIMITS}
    whole = source.model_copy(update={"options": {**options, "maxFilesPerTrigger": _ALL_FILES}})
    once = settings.trigger.model_copy(update={"mode": "available_now"})
    return settings.model_copy(update={"source": whole, "trigger": once})


def _listed(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())

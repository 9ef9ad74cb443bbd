"""Watches the feed of a running stream: an alert goes to the log, the metrics and the table `alerts`, and may stop it.

Batches are judged after they are complete and before Spark marks them as done, so a replay judges them again and finds
what it has written. Spark reports duplicates a moment after a batch is done: a kill in that moment loses that alert.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable

from pyspark.sql.streaming.listener import StreamingQueryProgress

from recsys.config import Settings
from recsys.contracts import Alert, StepId
from recsys.errors import BrokenFeedError
from recsys.storage import checkpoint_folder
from recsys.stream.alerts import batch_alerts, duplicate_alert, silence_alert
from recsys.stream.pipeline import Pipeline
from recsys.stream.publish import ROWS_KEPT
from recsys.stream.watch import StreamWatch
from recsys.tables import alerts, checkpoint
from recsys.tables.delta import Tables
from recsys.tables.failures import TABLE_FAILURES

logger = logging.getLogger(__name__)


class FeedWatch(StreamWatch):
    """Judges the feed of one stream.

    Args:
        settings: all settings.
        tables: the Delta tables.
        pipeline: the stream; its publisher has the rows of the ledger.
        first_batch: batch id in the ledger of the checkpoint's batch 0.
        watch: is told of alerts.
        stop: is set by an alert of `feed.stop_on`.
        clock: gives the seconds since 1970.
    """

    def __init__(
        self,
        settings: Settings,
        tables: Tables,
        pipeline: Pipeline,
        first_batch: int,
        watch: StreamWatch,
        stop: threading.Event,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._tables = tables
        self._pipeline = pipeline
        self._first_batch = first_batch
        self._watch = watch
        self._stop = stop
        self._clock = clock
        self._lock = threading.Lock()  # Spark reports from a thread of its own.
        self._rows = tuple(pipeline.publisher.rows)
        self._dropped: dict[StepId, int] = {}
        self._broken: Alert | None = None
        came = [row.ingested_at.timestamp() for row in self._rows if row.metrics.get("records")]
        self._silent_since = came[-1] if came else clock()
        # What an earlier process has told is not told again, and stops nothing again.
        self._told = {(self._last, kind) for kind in alerts.kinds(tables, self._last)}

    @property
    def _last(self) -> StepId:
        """The last batch in the ledger."""
        generation = self._pipeline.generation
        return self._rows[-1].step if self._rows else StepId(generation.number, generation.last_batch)

    def judge(self) -> None:
        """Judge the records of the batch that is complete now."""
        with self._lock:
            self._rows = tuple(self._pipeline.publisher.rows)
            if not self._rows:
                return
            if self._rows[-1].metrics.get("records"):
                self._silent_since = self._clock()
            self._tell(batch_alerts(self._rows, self._settings))

    def progress(self, progress: StreamingQueryProgress, duplicates: int) -> None:
        """Judge the duplicates of a batch."""
        with self._lock:
            step = StepId(self._pipeline.generation.number, self._first_batch + progress.batchId)
            self._dropped[step] = duplicates
            if len(self._dropped) > ROWS_KEPT:
                del self._dropped[min(self._dropped)]
            rows = [row for row in self._rows if row.step <= step]
            if not duplicates or not rows or rows[-1].step != step:
                return
            self._silent_since = self._clock()
            self._tell_aside(duplicate_alert(rows, self._dropped, self._settings))

    def idle(self) -> None:
        """Judge the time since the last record."""
        with self._lock:
            self._tell_aside(silence_alert(self._last, self._silent_since, self._clock(), self._settings))

    def refuse_broken(self) -> None:
        """End the stream as a failure if an alert has stopped it.

        Raises:
            BrokenFeedError: it has.
        """
        if self._broken is not None:
            raise BrokenFeedError(
                f"{self._broken.message}; the stream has stopped, as feed.stop_on says, with everything up to batch "
                f"{self._last} complete: start it again to go on after it"
            )

    def _tell_aside(self, found: Alert | None) -> None:
        """Tell of an alert outside a batch: Spark's listeners have nobody who would see an error."""
        try:
            self._tell([found] if found else [])
        except TABLE_FAILURES as error:
            logger.warning("an alert did not reach its table: %s", error)

    def _tell(self, found: Iterable[Alert]) -> None:
        for alert in found:
            if (alert.step, alert.kind) in self._told:
                continue
            self._told.add((alert.step, alert.kind))
            logger.error("the feed looks broken: %s", alert.message)
            self._watch.alert(alert)
            if alert.kind in self._settings.feed.stop_on:
                self._broken = self._broken or alert
                self._stop.set()
            query = checkpoint.query_id(checkpoint_folder(self._settings.storage.root))
            alerts.append(self._tables, alert, f"recsys:{query}:{alert.kind}")

"""Figures of a running stream in the terms of Prometheus. Each stream has a registry of its own, not the global one."""

import math
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from pyspark.sql.streaming.listener import StreamingQueryProgress

from recsys.config import Settings
from recsys.config.feed import AlertKind
from recsys.contracts import Alert, LedgerRow, StepId
from recsys.stream.watch import StreamWatch
from recsys.tables import kafka

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
_FRESHNESS = {"0.5": "freshness_p50_seconds", "0.95": "freshness_p95_seconds"}


@dataclass(frozen=True)
class Health:
    """Whether a stream makes progress.

    Attributes:
        since_commit: seconds since the last commit; None before the first one.
        seconds: the same, or since Spark last found nothing to read, whichever is less; before either, since the start.
        expected: seconds that are still healthy.
    """

    since_commit: float | None
    seconds: float
    expected: float

    @property
    def healthy(self) -> bool:
        """Whether the last progress is recent enough."""
        return self.seconds <= self.expected


def records_behind(end: str | None, latest: str | None) -> float:
    """Records of Kafka between a position in Spark's words and the latest one; not a number for other sources."""
    try:
        read, there = kafka.positions(end), kafka.positions(latest)
    except ValueError:  # Other sources need not speak JSON.
        return math.nan
    if not there:
        return math.nan
    return float(
        sum(
            last - read.get(topic, {}).get(partition, 0)
            for topic, partitions in there.items()
            for partition, last in partitions.items()
        )
    )


class Metrics(StreamWatch):
    """Keeps the figures of one stream.

    Args:
        settings: all settings.
        clock: gives the seconds since 1970.

    Attributes:
        registry: the figures; documented in docs/how-to/operate.md.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._expected = settings.monitoring.unhealthy_after_seconds
        self._ranker = re.compile(rf"(\w+)/ndcg_at_{settings.recommend.k}")
        self._up_to_date = clock()
        self._committed: float | None = None
        self._began = self._stage_began = math.nan  # Not a number outside a batch.
        self._thread: int | None = None
        self._make_counters()
        self._make_gauges()

    def _make_counters(self) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"recsys_{name}", text, labels, registry=self.registry)

        self._batches = counter("batches", "Micro-batches with records")
        self._events = counter("events", "Events learned")
        self._records = counter("records", "Records read, duplicates not counted")
        self._duplicates = counter("duplicates", "Records dropped as duplicates")
        self._quarantined = counter("quarantined_records", "Records in quarantine")
        self._reasons = counter("quarantined_reasons", "Reasons of the records in quarantine", "reason")
        self._set_aside = counter("set_aside_batches", "Batches that could not be learned")
        self._alerts = counter("alerts", "Alerts about the feed", "kind")
        for kind in get_args(AlertKind):
            self._alerts.labels(kind)  # 0 from the start, so that the first one is an increase.
        texts = {"batch": "Seconds that a batch took, MLflow included", "stage": "Seconds that a stage of a batch took"}
        self._batch, self._stage = (
            Histogram(f"recsys_{name}_seconds", text, labels, registry=self.registry, buckets=_SECONDS)
            for (name, text), labels in zip(texts.items(), ((), ("stage",)), strict=True)
        )

    def _make_gauges(self) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            made = Gauge(f"recsys_{name}", text, labels, registry=self.registry)
            if not labels:
                made.set(math.nan)  # Not measured yet.
            return made

        self._commit = gauge("last_commit_timestamp_seconds", "When the last batch was complete, since 1970")
        gauge("healthy", "1 if /healthz answers 200, else 0").set_function(lambda: self.health().healthy)
        self._lag = gauge("source_lag_seconds", "Age of the last batch's newest event when Spark planned the batch")
        self._behind = gauge("source_behind", "What Spark says of the source, such as offsets", "source", "measure")
        self._records_behind = gauge("source_lag_records", "Records of Kafka that wait after the last batch")
        self._state_rows = gauge("state_rows", "Event ids that the de-duplication remembers")
        self._state_bytes = gauge("state_memory_bytes", "Memory of the state of the de-duplication")
        self._ndcg = gauge("ndcg", "NDCG of a ranker on the last batch, before it was learned", "ranker")
        self._regret = gauge("regret", "Bound on the NDCG that the mixture has lost against the best expert")
        self._staleness = gauge("staleness", "Relative distance of factors from a full solve", "of")
        self._freshness = gauge("freshness_seconds", "Seconds from an event to the end of learning", "quantile")
        self._waiting = gauge("mlflow_backlog_rows", "Rows of the ledger that MLflow lacks")

    def begins(self) -> None:
        """Take the time."""
        self._thread = threading.get_ident()
        self._began = self._stage_began = time.perf_counter()

    def observe(self, stage: str, step: StepId) -> None:
        """Count the seconds of a stage: since the one before it, or since the batch began.

        What goes on beside the batches takes none of their time.
        """
        if threading.get_ident() != self._thread:
            return
        now = time.perf_counter()
        if not math.isnan(self._stage_began) and stage != "batch":
            self._stage.labels(stage).observe(now - self._stage_began)
            self._stage_began = now

    def report(self, row: LedgerRow) -> None:
        """Take over what the ledger says of a batch."""
        figures = row.metrics
        self._batches.inc()
        self._events.inc(row.events)
        self._records.inc(figures["records"])
        self._quarantined.inc(figures["quarantined"])
        self._set_aside.inc(figures.get("set_aside", 0.0))
        self._ndcg.clear()
        for name, value in figures.items():
            group, _, rest = name.partition("/")
            if group == "quarantined" and rest:
                self._reasons.labels(rest).inc(value)
            elif found := self._ranker.fullmatch(name):
                self._ndcg.labels(found[1]).set(value)
        self._lag.set(figures.get("source_lag_seconds", math.nan))
        self._regret.set(figures.get("mixture/regret", math.nan))
        for kind in ("user", "item"):
            self._staleness.labels(f"{kind}s").set(figures.get(f"{kind}_staleness", math.nan))
        for quantile, name in _FRESHNESS.items():
            self._freshness.labels(quantile).set(figures.get(name, math.nan))

    def committed(self, waiting: int) -> None:
        """Take the time, and what MLflow lacks."""
        self._batch.observe(time.perf_counter() - self._began)
        self._began = self._stage_began = math.nan
        self._waiting.set(waiting)
        self._committed = self._up_to_date = self._clock()
        self._commit.set(self._committed)

    def progress(self, progress: StreamingQueryProgress, duplicates: int) -> None:
        """Take over what Spark says of state and source."""
        self._duplicates.inc(duplicates)
        if progress.stateOperators:
            self._state_rows.set(sum(state.numRowsTotal for state in progress.stateOperators))
            self._state_bytes.set(sum(state.memoryUsedBytes for state in progress.stateOperators))
        behind = [records_behind(source.endOffset, source.latestOffset) for source in progress.sources]
        self._records_behind.set(sum(behind) if behind else math.nan)
        for number, source in enumerate(progress.sources):
            for measure, text in (source.metrics or {}).items():
                with suppress(ValueError):  # A source may report a text.
                    figure = float(text)
                    self._behind.labels(number, measure).set(figure)

    def idle(self) -> None:
        """Nothing waits, so nothing is late."""
        self._up_to_date = self._clock()

    def alert(self, alert: Alert) -> None:
        """Count it."""
        self._alerts.labels(alert.kind).inc()

    def health(self) -> Health:
        """Whether the stream makes progress now."""
        now = self._clock()
        since = None if self._committed is None else now - self._committed
        return Health(since, now - self._up_to_date, self._expected)

"""Figures of the server in the terms of Prometheus, in a registry of its own."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class ServerFigures:
    """What a server counts.

    Attributes:
        registry: the figures; documented in docs/how-to/serve.md.
        version, up_to_date, stored_lists: what is served, `version` by arm; whoever serves it says where that is read.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "recsys_serve_request_seconds",
            "Seconds from the head of a request to the end of its answer",
            ("endpoint", "status"),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._lists = Counter("recsys_serve_lists", "Lists given", ("source",), registry=self.registry)
        for source in ("live", "table"):
            self._lists.labels(source)  # 0 from the start, so that the first one is an increase.
        self._swaps = Counter("recsys_serve_swaps", "Times that another version took over", registry=self.registry)
        # Prometheus takes an empty label for none.
        self.version = self._gauge("version", "Number of the version that answers; of the users of an arm", ("arm",))
        self.up_to_date = self._gauge(
            "up_to_date", "1 if what answers was what the aliases named at the last look, else 0"
        )
        self.stored_lists = self._gauge("stored_lists", "Lists of the table that can be given")

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(f"recsys_serve_{name}", text, labels, registry=self.registry)

    def answered(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._seconds.labels(endpoint, status).observe(seconds)

    def given(self, source: str, lists: int) -> None:
        """Count lists."""
        self._lists.labels(source).inc(lists)

    def swapped(self) -> None:
        """Count a swap."""
        self._swaps.inc()

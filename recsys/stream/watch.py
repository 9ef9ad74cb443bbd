"""What may be told of a running stream; `metrics` turns it into figures for Prometheus."""

from pyspark.sql.streaming.listener import StreamingQueryProgress

from recsys.contracts import Alert, LedgerRow, StepId


class StreamWatch:
    """Is told what a stream does. This one does nothing with it."""

    def begins(self) -> None:
        """A micro-batch begins."""

    def observe(self, stage: str, step: StepId) -> None:
        """A stage is complete."""

    def report(self, row: LedgerRow) -> None:
        """A batch with records is in the ledger."""

    def committed(self, waiting: int) -> None:
        """A micro-batch is complete; MLflow lacks so many rows of the ledger."""

    def progress(self, progress: StreamingQueryProgress, duplicates: int) -> None:
        """Spark reports a micro-batch, some time after its end, and how many duplicates it has dropped."""

    def idle(self) -> None:
        """Spark found nothing new in the source."""

    def alert(self, alert: Alert) -> None:
        """The feed is broken."""

"""Console output of a running stream: a progress bar and, per micro-batch, one line and its decisions."""

import logging
import math
from types import TracebackType
from typing import Self

from tqdm import tqdm

from recsys.contracts import LedgerRow
from recsys.logs import LogFormat

logger = logging.getLogger(__name__)


class StreamReport:
    """Prints one line per batch above a progress bar, or logs it where the log is JSON.

    Args:
        k: cutoff of NDCG.
        batches: expected number of batches, if known.
        log_format: of the settings.
    """

    def __init__(self, k: int, batches: int | None = None, log_format: LogFormat = "text") -> None:
        self._k = k
        self._log_format = log_format
        # Without a terminal, a bar would fill a log file with its own repetitions.
        self._bar = tqdm(total=batches, unit=" batch", desc="stream", dynamic_ncols=True, smoothing=0.1, disable=None)
        self.events = 0
        self.batches = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def expect(self, batches: int) -> None:
        """Set the expected number of batches."""
        self._bar.total = batches
        self._bar.refresh()

    def __call__(self, row: LedgerRow) -> None:
        """Print or log the line of one batch."""
        self.events += row.events
        self.batches += 1
        line = batch_line(row, self._k)
        if self._log_format == "json":
            logger.info("%s", line)
        else:
            self._bar.write(line)
        self._bar.update()


def batch_line(row: LedgerRow, k: int) -> str:
    """One line about a batch: its events, NDCG@k before it was learned, and the seconds that it took.

    Its decisions follow, one per line.
    """
    figures = row.metrics

    def ndcg(ranker: str) -> str:
        value = figures.get(f"{ranker}/ndcg_at_{k}", math.nan)
        return "  –  " if math.isnan(value) else f"{value:.3f}"

    quarantined = f", {figures['quarantined']:,.0f} quarantined" if figures["quarantined"] else ""
    begin = f"batch {row.step.batch_id:>4}: {row.events:>7,} events{quarantined}"
    if figures.get("set_aside"):
        return f"{begin}, {'; '.join(row.decisions)}"
    swept = ", full sweep" if figures.get("full_sweep") else ""
    return (
        f"{begin}  +{figures['new_users']:,.0f} users +{figures['new_items']:,.0f} items"
        f" | NDCG@{k} model {ndcg('model')}  popularity {ndcg('popularity')}  first {ndcg('first')}"
        f" | Spark {figures['spark_seconds']:.2f} s, evaluation {figures['evaluate_seconds']:.2f} s,"
        f" learning {figures['learn_seconds']:.2f} s{swept}"
        + "".join(f"\n            {decision}" for decision in row.decisions)
    )

"""A stream in the background of a notebook."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from recsys.config import Settings, load_settings
from recsys.config.settings import with_values
from recsys.contracts import LedgerRow, StepId
from recsys.errors import ConfigError, RecsysError
from recsys.frames import to_frame
from recsys.words import count

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from pyspark.sql import SparkSession

    from recsys.stream.job import StreamSummary
    from recsys.tables.delta import Tables

State = Literal["running", "finished", "stopped", "failed"]
NEWEST = 5_000  # Batches that `quality` and `plot` show.
_RANKERS = ("model", "champion", "previous", "challenger", "first", "popularity")


def stream(settings: Settings | str | Path | None = None, **overrides: Any) -> "StreamHandle":
    """Run the stream in the background, as `jobs/stream_update.py` runs it.

    It runs in a thread of this process, in a Spark session of its own beside that of the notebook, whose settings stay
    as they are. MLflow's tracking server of the process becomes that of the settings.

    Args:
        settings: A `Settings`, or the path of a YAML file; None: the defaults.
        overrides: Settings by dotted key: `**{"trigger.mode": "processing_time"}`.

    Returns:
        A handle. As a context manager, it stops the stream at the end of the block.

    Raises:
        ConfigError: a setting is unknown or wrong, or Spark or MLflow are not installed.

    Examples:
        >>> with stream("my.yaml", **{"source.path": "events"}) as running:  # doctest: +SKIP
        ...     running.wait()
        ...     running.quality()
    """
    return StreamHandle(_settings(settings, overrides))


@dataclass(frozen=True)
class StreamStatus:
    """How a stream does.

    Attributes:
        state: `running`; `finished`, because the source is exhausted; `stopped`, because `stop` was called; `failed`.
        batches: Batches that were completed since the start.
        last: The last of them; None before it.
        error: Why it failed, in one line; None if it did not.
    """

    state: State
    batches: int
    last: StepId | None
    error: str | None

    def __str__(self) -> str:
        after = "" if self.last is None else f", the last is {self.last}"
        problem = f"; {self.error}" if self.error else ""
        return f"{self.state}: {count(self.batches, 'batch', 'batches')}{after}{problem}"


class StreamHandle:
    """A stream that runs in the background. Created by `recsys.stream`.

    Examples:
        >>> running = stream("my.yaml")  # doctest: +SKIP
        >>> print(running.status())  # doctest: +SKIP
        running: 3 batches, the last is 0-2
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stop = threading.Event()
        self._steps: list[StepId] = []
        self._spark: SparkSession | None = None
        self._summary: StreamSummary | None = None
        self._error: BaseException | None = None
        # A daemon: a notebook may be closed at any time, and a stream may be killed at any time.
        self._thread = threading.Thread(target=self._run, name="recsys stream", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if error is None:
            self.stop()

    def __repr__(self) -> str:
        return f"StreamHandle({self.status()})"

    def status(self) -> StreamStatus:
        """How the stream does; this never raises.

        Examples:
            >>> running.status().state  # doctest: +SKIP
            'running'
        """
        state: State = "running"
        if not self._thread.is_alive():
            state = "failed" if self._error else "stopped" if self._stop.is_set() else "finished"
        steps, error = self._steps, self._error
        # Errors of this package are one line; of others, the first says most.
        told = None if error is None else (str(error).strip().splitlines() or [""])[0]
        if error is not None and not isinstance(error, RecsysError):
            told = f"{type(error).__name__}: {told}"
        return StreamStatus(state, len(steps), steps[-1] if steps else None, told)

    def wait(self, seconds: float | None = None) -> StreamStatus:
        """Wait until the stream ends, which only one with `trigger.mode: available_now` does by itself.

        Args:
            seconds: Wait no longer than this; None: as long as it takes.

        Examples:
            >>> running.wait().state  # doctest: +SKIP
            'finished'
        """
        self._thread.join(seconds)
        return self.status()

    def stop(self) -> "StreamSummary":
        """Finish the current batch and stop.

        Returns:
            What the run did.

        Raises:
            Exception: what made the stream fail.

        Examples:
            >>> running.stop().batches  # doctest: +SKIP
            3
        """
        self._end()
        if self._error is not None:
            raise self._error
        assert self._summary is not None
        return self._summary

    def quality(self) -> "pd.DataFrame":
        """NDCG of each ranker on each batch, before the batch was learned: the latest 5,000 batches of the ledger.

        Returns:
            `generation`, `batch_id`, `ingested_at`, `events`, `seconds`, and NDCG at `recommend.k` of `model`,
            `champion`, `previous`, `challenger`, `first` and `popularity`, NaN where it was not measured.

        Examples:
            >>> running.quality().plot(x="batch_id", y=["model", "popularity"])  # doctest: +SKIP
        """
        rows = self._rows()
        columns: dict[str, list[Any]] = {
            "generation": [row.step.generation for row in rows],
            "batch_id": [row.step.batch_id for row in rows],
            "ingested_at": [row.ingested_at for row in rows],
            "events": [row.events for row in rows],
            "seconds": [row.duration_ms / 1000 for row in rows],
        }
        k = self.settings.recommend.k
        columns |= {name: [row.metrics.get(f"{name}/ndcg_at_{k}", float("nan")) for row in rows] for name in _RANKERS}
        frame: pd.DataFrame = to_frame(columns)
        return frame

    def plot(self) -> "Figure":
        """Plot NDCG and the seconds of each batch of the current generation.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        try:
            from recsys.stream.plots import quality_figure
        except ModuleNotFoundError as error:
            raise ConfigError(f"a plot needs {error.name}: pip install 'recsys-stream[plots]'") from error
        rows = self._rows()
        return quality_figure(
            [row for row in rows if row.step.generation == rows[-1].step.generation], self.settings.recommend.k
        )

    def recommend(self, user_ids: str | int | Iterable[str | int], k: int | None = None) -> "pd.DataFrame":
        """Rank items for users with the champion that the stream has registered, with titles where `items.path` is set.

        Args:
            user_ids: Ids, or a single id.
            k: Items per list; None: as many as were registered with the version.

        Returns:
            `user_id`, `rank`, `item_id`, `title` if there are any, `score`.

        Raises:
            RegistryError: there is no champion yet, or the registry does not answer.
            InputError: something is not an id, or the catalog cannot be read.

        Examples:
            >>> running.recommend("u1", k=5)  # doctest: +SKIP
        """
        from recsys.champion import Champion
        from recsys.item_texts import read_titles
        from recsys.registry.served import ServedVersion

        served = ServedVersion.champion(self.settings.mlflow.model_name, self.settings.tracking_uri)
        return Champion(served, read_titles(self.settings.items)).recommend(user_ids, k)

    def _run(self) -> None:
        try:
            from recsys.stream.job import run_stream
            from recsys.tables.session import separate_session

            self._spark = separate_session(self.settings)
            self._summary = run_stream(self.settings, self._observe, spark=self._spark, stop=self._stop)
        except BaseException as error:  # Whatever it is: the caller learns of it.
            self._error = error

    def _observe(self, stage: str, step: StepId) -> None:
        if stage == "batch":
            self._steps.append(step)

    def _end(self) -> None:
        self._stop.set()
        self._thread.join()

    def _rows(self) -> list[LedgerRow]:
        """The newest rows of the ledger; none while there is no ledger."""
        from recsys.contracts import MODEL_UPDATES
        from recsys.tables import ledger

        tables = self._tables()
        if tables is None or not tables.exists(MODEL_UPDATES):
            return []
        return ledger.newest(tables, sorted(ledger.events(tables, None, None))[-NEWEST:])

    def _tables(self) -> "Tables | None":
        """Tables to read; None while Spark is not there yet and they need it."""
        from recsys.tables.delta import Tables, read_on_driver

        on_driver = read_on_driver(self.settings.storage)
        return Tables(self._spark, self.settings.storage) if on_driver or self._spark is not None else None


def _settings(given: Settings | str | Path | None, overrides: dict[str, Any]) -> Settings:
    """The settings, with some by dotted key in the place of others."""
    base = given if isinstance(given, Settings) else load_settings(given)
    return with_values(base, overrides) if overrides else base

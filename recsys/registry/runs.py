"""One MLflow run per generation of a stream, fed from the ledger."""

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.data.delta_dataset_source import DeltaDatasetSource
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag

from recsys.config import Settings
from recsys.contracts import INTERACTION_LOG, LedgerRow
from recsys.registry.attempts import Attempts
from recsys.registry.client import experiment_id, registry_errors

GENERATION_TAG = "generation"
STREAM_TAG = "stream_id"
LAST_SENT_TAG = "last_batch_id"
PUBLISHED_TAG = "published_batch_id"
DUE_TAG = "due_batch_id"
_LOG_BEGIN_TAG, _LOG_END_TAG = f"{INTERACTION_LOG}.from_version", f"{INTERACTION_LOG}.to_version"

NOTHING_SENT = -1
METRICS_PER_CALL = 999  # MLflow takes 1,000 entries; one is the tag
PARAMETERS_PER_CALL = 100

# So many times `mlflow.all_metrics_every_batches` batches have all metrics.
_ALL_AT_FIRST = 10
# What every batch has: quality of the rankings, size and cost of the batch, and what tells that something is wrong.
_TO_WATCH = re.compile(
    r"(model|popularity|champion|challenger|previous|first)/ndcg_at_\d+|(gate|watch)/\w+|mixture/regret|events|records|quarantined|"
    r"batch_seconds|freshness_p95_seconds|surprise|set_aside|rebuild_seconds"
)


class GenerationRun:
    """The MLflow run of one generation. An outage of MLflow raises nothing here: rows wait for a later call.

    Waiting rows are kept in memory (a few kilobytes each). They are in the ledger, too, so a restart loses none: the
    caller that opens the run sends it the ledger rows after `last_sent`.

    Attributes:
        run_id: MLflow's id of the run.
        last_sent: batch id of the last row that MLflow has, -1 if it has none.
        log_begin: first version of the interaction log that the run has learned from; None before `log_lineage`.
        published_through: batch id of the last version that was registered and judged by the gate, -1 if there is none.
        due: batch id of the last version that was due, registered or not, -1 if there was none.
        pending: rows that MLflow does not have yet, oldest first.
    """

    def __init__(self, client: MlflowClient, generation: int, run: Run, all_metrics_every: int) -> None:
        self.run_id: str = run.info.run_id
        self.last_sent = int(run.data.tags.get(LAST_SENT_TAG, NOTHING_SENT))
        self.published_through = int(run.data.tags.get(PUBLISHED_TAG, NOTHING_SENT))
        self.due = int(run.data.tags.get(DUE_TAG, NOTHING_SENT))
        begin = run.data.tags.get(_LOG_BEGIN_TAG)
        self.log_begin = None if begin is None else int(begin)
        self.pending: list[LedgerRow] = []
        self._all_metrics_every = all_metrics_every
        self._client = client
        self.generation = generation
        self._attempts, self._plots = Attempts(), Attempts()

    @property
    def error(self) -> str | None:
        """One line that says why the last call failed; None if it succeeded."""
        return None if self._attempts.failure is None else str(self._attempts.failure)

    @classmethod
    def open(cls, client: MlflowClient, settings: Settings, generation: int, stream_id: str) -> "GenerationRun":
        """Find or create the run of a generation, and log the settings that it lacks.

        Args:
            client: from `connect`.
            settings: logged as parameters, except those that may hold secrets.
            generation: the generation.
            stream_id: id of the stream, because several streams may share an experiment.

        Raises:
            RegistryError: MLflow failed.
        """
        experiment = experiment_id(client, settings)
        with registry_errors("cannot open the MLflow run"):
            run = _find(client, experiment, generation, stream_id)
            if run is not None:
                client.update_run(run.info.run_id, status="RUNNING")
            else:
                tags = {GENERATION_TAG: str(generation), STREAM_TAG: stream_id}
                run = client.create_run(
                    experiment, tags=tags, run_name=f"{settings.mlflow.model_name}-generation-{generation}"
                )
            wanted = {_parameter_key(key): value for key, value in settings.public_parameters().items()}
            missing = [Param(key, value) for key, value in wanted.items() if key not in run.data.params]
            for start in range(0, len(missing), PARAMETERS_PER_CALL):
                client.log_batch(run.info.run_id, params=missing[start : start + PARAMETERS_PER_CALL])
        return cls(client, generation, run, settings.mlflow.all_metrics_every_batches)

    def send(self, rows: Sequence[LedgerRow] = ()) -> bool:
        """Log the metrics of rows, after those that still wait. The step of a metric is its batch id.

        The same call records which batch was the last, and MLflow drops a metric that it already has for a step. So
        nothing is lost or counted twice, wherever the process dies.

        Args:
            rows: rows of this generation in order; those that were sent or are waiting are skipped.

        Returns:
            Whether MLflow has every row. If not, the next attempt is made only after a while, so that a hanging server
            does not slow down the stream.
        """
        newest = self.pending[-1].step.batch_id if self.pending else self.last_sent
        for row in rows:
            if row.step.generation != self.generation:
                raise ValueError(
                    f"a row of generation {row.step.generation} was handed to the run of generation {self.generation}"
                )
            if row.step.batch_id > newest:
                self.pending.append(row)
                newest = row.step.batch_id
        return not self.pending or self._attempts.make(self._send_pending)

    def mark_due(self, batch_id: int) -> None:
        """Record that a version of a batch is due, before it is registered, so that an interruption does not lose it.

        Raises:
            RegistryError: MLflow failed.
        """
        self._mark(DUE_TAG, batch_id)
        self.due = batch_id

    def mark_published(self, batch_id: int) -> None:
        """Record that the version of a batch is registered and has its aliases, so that it is not made again.

        Raises:
            RegistryError: MLflow failed.
        """
        self._mark(PUBLISHED_TAG, batch_id)
        self.published_through = batch_id

    def log_plot(self, path: Path) -> None:
        """Store a plot with the run, replacing the one of that name. If MLflow fails, the next plot makes up for it.

        Any thread may call it, one at a time.
        """
        self._plots.make(lambda: self._client.log_artifact(self.run_id, str(path), "plots"))

    def log_lineage(self, log_location: str, from_version: int, to_version: int) -> None:
        """Record which versions of the interaction log the run has learned from.

        Args:
            log_location: path, or `catalog.schema.table`.
            from_version: first Delta version of the generation.
            to_version: last Delta version that was learned.

        Raises:
            RegistryError: MLflow failed. Calling again is safe.
        """
        if "/" not in log_location:
            source = DeltaDatasetSource(delta_table_name=log_location, delta_table_version=to_version)
        else:
            is_local = ":" not in log_location
            path = str(Path(log_location).absolute()) if is_local else log_location
            source = DeltaDatasetSource(path=path, delta_table_version=to_version)
        # MLflow stores an input once per name and digest, however often it is logged.
        digest = hashlib.sha256(source.to_json().encode()).hexdigest()[:16]
        dataset = Dataset(INTERACTION_LOG, digest, source_type="delta_table", source=source.to_json())
        versions = {"from_version": str(from_version), "to_version": str(to_version)}
        tags = [InputTag(key, value) for key, value in {"mlflow.data.context": "training", **versions}.items()]
        ends = {_LOG_BEGIN_TAG: from_version, _LOG_END_TAG: to_version}
        with registry_errors("cannot record what the run has learned from"):
            self._client.log_inputs(self.run_id, [DatasetInput(dataset, tags)])
            self._client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in ends.items()])
        self.log_begin = from_version

    def close(self, failed: bool = False) -> bool:
        """Send all waiting rows at once and end the run; returns whether MLflow has everything."""
        self._attempts.hurry()
        sent = self.send()
        ended = self._attempts.make(
            lambda: self._client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")
        )
        return sent and ended

    def _mark(self, tag: str, batch_id: int) -> None:
        with registry_errors(f"cannot set the tag '{tag}' of the run"):
            self._client.set_tag(self.run_id, tag, str(batch_id))

    def _send_pending(self) -> None:
        while self.pending:
            count, metrics = 0, self._metrics(self.pending[0])
            # As many rows as one call takes, but at least one.
            while (count := count + 1) < len(self.pending):
                more = self._metrics(self.pending[count])
                if len(metrics) + len(more) > METRICS_PER_CALL:
                    break
                metrics += more
            last = self.pending[count - 1].step.batch_id
            self._client.log_batch(self.run_id, metrics=metrics, tags=[RunTag(LAST_SENT_TAG, str(last))])
            self.last_sent = last
            del self.pending[:count]

    def _metrics(self, row: LedgerRow) -> list[Metric]:
        """Metrics of a batch for MLflow: all, or the ones to watch, see `mlflow.all_metrics_every_batches`.

        With all of them, a stream of a batch every ten seconds would write a million rows a day.
        """
        figures = {
            **row.metrics,
            "events": row.events,
            "users": row.users,
            "items": row.items,
            "batch_seconds": row.duration_ms / 1000,
        }
        batch, every = row.step.batch_id, self._all_metrics_every
        if batch >= _ALL_AT_FIRST * every and batch % every:
            figures = {name: value for name, value in figures.items() if _TO_WATCH.fullmatch(name)}
        milliseconds = round(row.ingested_at.timestamp() * 1000)
        return [
            Metric(name, float(value), milliseconds, batch)
            for name, value in figures.items()
            if math.isfinite(value)  # NaN: not measured
        ]


def _find(client: MlflowClient, experiment: str, generation: int, stream_id: str) -> Run | None:
    where = f"tags.{GENERATION_TAG} = '{generation}' and tags.{STREAM_TAG} = '{stream_id}'"
    return next(iter(client.search_runs([experiment], where, max_results=1)), None)


def runs_of(client: MlflowClient, settings: Settings, stream_id: str) -> dict[int, str]:
    """Ids of the runs of a stream, by generation; none if there is no experiment yet.

    Raises:
        RegistryError: MLflow failed.
    """
    with registry_errors("cannot list the MLflow runs"):
        experiment = client.get_experiment_by_name(settings.mlflow.experiment)
        found, token = dict[int, str](), None
        while experiment is not None:
            where = f"tags.{STREAM_TAG} = '{stream_id}'"
            page = client.search_runs([experiment.experiment_id], where, page_token=token)
            found |= {int(run.data.tags[GENERATION_TAG]): run.info.run_id for run in page}
            token = page.token
            if not token:
                break
        return found


def _parameter_key(key: str) -> str:
    """Event types are free text; MLflow's parameter names are not."""
    return re.sub(r"[^\w.\- ]", "_", key)[:250]

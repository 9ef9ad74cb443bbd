"""MLflow runs of a search for settings: one for the search, and under it one for each trial."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from recsys.config import Settings
from recsys.registry.attempts import Attempts
from recsys.registry.client import experiment_id, registry_errors
from recsys.registry.runs import METRICS_PER_CALL

logger = logging.getLogger(__name__)

# A value, or one for each batch that was evaluated.
Measured = float | Sequence[float]
JOB_TAG, STATE_TAG = "job", "state"


@dataclass
class _TrialToSend:
    """A trial that MLflow does not have yet.

    Attributes:
        name: Of its run.
        parameters: Of its run.
        metrics: Of its run.
        state: How it ended.
        run_id: Of its run, once that is begun.
    """

    name: str
    parameters: dict[str, str]
    metrics: list[Metric]
    state: str
    run_id: str | None = None


class TuningRuns:
    """The runs of one search; a context that ends the run of the search.

    An outage of MLflow while trials run raises nothing: they wait, and go with the next one, or at the end. The run of
    a generation is found by its tags, which these runs do not have, so a stream may share the experiment.

    Args:
        client: From `connect`.
        settings: The configured settings; `tune.*` and the seed are logged.
        tags: Of the run of the search, such as what it has read.

    Attributes:
        run_id: MLflow's id of the run of the search.

    Raises:
        RegistryError: MLflow failed.
    """

    def __init__(self, client: MlflowClient, settings: Settings, tags: Mapping[str, str]) -> None:
        self._client, self._experiment = client, experiment_id(client, settings)
        self._waiting: list[_TrialToSend] = []
        self._outcome: tuple[list[Param], list[Metric]] = [], []
        self._attempts = Attempts()
        logged = {
            key: value
            for key, value in settings.public_parameters().items()
            if key.startswith("tune.") or key in ("seed", "model.kind")
        }
        with registry_errors("cannot open the MLflow run"):
            name = f"{settings.mlflow.model_name}-tune"
            run = client.create_run(self._experiment, tags={JOB_TAG: "tune", **tags}, run_name=name)
            self.run_id: str = run.info.run_id
            client.log_batch(self.run_id, params=[Param(key, value) for key, value in logged.items()])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._attempts.hurry()
        sent = self._attempts.make(self._send)
        ended = "FINISHED" if kind is None else "KILLED" if kind is KeyboardInterrupt else "FAILED"
        if not (sent and self._attempts.make(lambda: self._client.set_terminated(self.run_id, ended))):
            logger.warning("MLflow lacks a part of what was measured: %s", self._attempts.failure)

    def trial(self, number: int, values: Mapping[str, object], state: str, metrics: Mapping[str, Measured]) -> None:
        """Log a trial.

        Args:
            number: 0 for that of the configured settings.
            values: Of the searched settings, by dotted key.
            state: How it ended.
            metrics: By name.
        """
        parameters = {key: str(value) for key, value in values.items()}
        self._waiting.append(_TrialToSend(f"trial-{number}", parameters, _metrics(metrics), state))
        self._attempts.make(self._send)

    def outcome(self, metrics: Mapping[str, Measured], values: Mapping[str, object]) -> None:
        """Log, at the end, the comparison on the rest of the log, and the values that are not the configured ones."""
        self._outcome = [Param(f"tuned.{key}", str(value)) for key, value in values.items()], _metrics(metrics)

    def _send(self) -> None:
        while self._waiting:
            trial = self._waiting[0]
            if trial.run_id is None:
                tags = {MLFLOW_PARENT_RUN_ID: self.run_id, JOB_TAG: "tune"}
                trial.run_id = self._client.create_run(self._experiment, tags=tags, run_name=trial.name).info.run_id
            parameters = [Param(key, value) for key, value in trial.parameters.items()]
            self._client.log_batch(trial.run_id, params=parameters, tags=[RunTag(STATE_TAG, trial.state)])
            self._log(trial.run_id, trial.metrics)
            self._client.set_terminated(trial.run_id)
            del self._waiting[0]
        parameters, metrics = self._outcome
        self._client.log_batch(self.run_id, params=parameters)
        self._log(self.run_id, metrics)

    def _log(self, run_id: str, metrics: Sequence[Metric]) -> None:
        for begin in range(0, len(metrics), METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=metrics[begin : begin + METRICS_PER_CALL])


def _metrics(metrics: Mapping[str, Measured]) -> list[Metric]:
    """Metrics for MLflow, without NaN: not measured."""
    now = round(time.time() * 1000)
    found = []
    for name, given in metrics.items():
        values = given if isinstance(given, Sequence) else [given]
        found += [Metric(name, float(value), now, step) for step, value in enumerate(values) if math.isfinite(value)]
    return found

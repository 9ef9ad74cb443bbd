"""From a learned batch to MLflow: metrics at once, versions on a cadence, the champion only through the gate.

The ledger is the only record: rows that MLflow has not got are sent again from it. A server that is down delays
metrics and versions; it never stops the stream.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
from mlflow.tracking import MlflowClient

from recsys.catalogue import NewItems
from recsys.config import Settings
from recsys.contracts import LedgerRow, StepId
from recsys.errors import RegistryError
from recsys.model.evaluation.gate import GateResult, judge
from recsys.model.frozen import FrozenModel
from recsys.model.recommender import OnlineModel
from recsys.registry import versions
from recsys.registry.runs import GenerationRun
from recsys.registry.versions import Version
from recsys.storage import plot_file
from recsys.stream import plots

logger = logging.getLogger(__name__)

ROWS_KEPT = 5_000  # For the plot and the gate: a week of batches, two a minute.


class Publisher:
    """The stream's side of the registry, for one generation.

    Args:
        client: a client that `registry.client.connect` has tried.
        settings: all settings.
        run: the generation's run.
        log_location: where the interaction log lies, for the lineage.
        rows: ledger rows of this generation, oldest first: those that MLflow has not got, and a few thousand before.

    Attributes:
        frozen: models scored beside the learning one: `first` and `champion`, as far as they exist.
        champion_version: registered version of the champion.
    """

    def __init__(
        self, client: MlflowClient, settings: Settings, run: GenerationRun, log_location: str, rows: Iterable[LedgerRow]
    ) -> None:
        self.client = client
        self.settings = settings
        self.run = run
        self.log_location = log_location
        self.rows = deque(rows, maxlen=ROWS_KEPT)
        self.new_items = NewItems(settings, run.generation)
        self.log_begin = self.rows[0].log_version if self.rows else 0
        self.frozen: dict[str, FrozenModel] = {}
        self.champion_version: str | None = None
        self._outage: str | None = None
        self._load_frozen()
        run.send(list(self.rows))

    def _load_frozen(self) -> None:
        name = self.settings.mlflow.model_name
        first = versions.first(self.client, name, self.run.run_id)
        champion = versions.champion(self.client, name)
        if first is not None:
            self.frozen["first"] = FrozenModel(versions.load_arrays(first))
        if champion is not None:
            self.champion_version = champion.version
            same = first is not None and champion.version == first.version
            self.frozen["champion"] = self.frozen["first"] if same else FrozenModel(versions.load_arrays(champion))

    def add(self, rows: Sequence[LedgerRow]) -> None:
        """Take in the ledger rows of batches just learned; `publish` sends what cannot be sent now."""
        self.rows.extend(rows)
        self.run.send(rows)

    def is_due(self, step: StepId) -> bool:
        """Whether a version of this batch is to be registered."""
        return step.batch_id - self.run.published_through >= self.settings.register_.every_batches

    def publish(self, model: OnlineModel, step: StepId, observe: Callable[[str, StepId], None]) -> None:
        """Bring MLflow up to a step: its metrics, and a version when one is due.

        Args:
            model: the model as of `step`.
            step: a batch in the ledger.
            observe: told when metrics, version and alias are done.
        """
        delivered = self.run.send()
        self._tell_outage()
        observe("metrics", step)
        if not (delivered and self.is_due(step)):
            return
        try:
            self._publish_version(model, step, observe)
        except RegistryError as error:
            logger.warning("no version of batch %s yet, trying again with the next batch: %s", step, error)

    def _tell_outage(self) -> None:
        if self.run.error and not self._outage:
            logger.warning("MLflow does not answer, metrics wait and are sent later: %s", self.run.error)
        if self._outage and not self.run.error:
            logger.warning("MLflow answers again, all waiting metrics were sent")
        self._outage = self.run.error

    def _publish_version(self, model: OnlineModel, step: StepId, observe: Callable[[str, StepId], None]) -> None:
        verdict = self.judge_candidate()
        arrays = self.new_items.join(model.served())
        log_version = next(row.log_version for row in reversed(self.rows) if row.step <= step)
        version = self.register(arrays, step, log_version, verdict)
        observe("version", step)
        frozen = FrozenModel(arrays)
        self.frozen.setdefault("first", frozen)
        if verdict.passed:
            versions.promote(self.client, version)
            self.frozen["champion"] = frozen
            self.champion_version = version.version
        observe("alias", step)
        self.run.mark_published(step.batch_id)
        self.plot()

    def judge_candidate(self) -> GateResult:
        """Compare the learning model with the champion on the last batches, each scored before it was learned."""
        live, frozen = (f"{ranker}/ndcg_at_{self.settings.recommend.k}" for ranker in ("model", "champion"))
        of_champion = [row for row in self.rows if row.model_version == self.champion_version]
        candidate = {row.step.batch_id: row.metrics[live] for row in self.rows if live in row.metrics}
        champion = {row.step.batch_id: row.metrics[frozen] for row in of_champion if frozen in row.metrics}
        return judge(
            candidate,
            champion if self.champion_version else None,
            tolerance=self.settings.gate.tolerance,
            batches=self.settings.gate.batches,
        )

    def register(
        self, arrays: Mapping[str, npt.NDArray[Any]], step: StepId, log_version: int, verdict: GateResult
    ) -> Version:
        """Register a version with its lineage and the gate's figures."""
        tags = versions.gate_tags(verdict.passed, verdict.reasons, verdict.figures)
        tags["interaction_log_version"] = str(log_version)
        version = versions.register(self.client, self.settings, self.run.run_id, arrays, step, tags)
        self.run.log_lineage(self.log_location, self.log_begin, log_version)
        return version

    def plot(self) -> Path:
        """Draw quality and cost over the batches, and hang the picture into the run."""
        path = plot_file(self.settings.storage.root)
        plots.quality(self.rows, path, self.settings.recommend.k)
        self.run.log_plot(path)
        return path

    def close(self, failed: bool) -> None:
        """Send what is left and close the run."""
        if not self.run.close(failed=failed):
            logger.warning(
                "%d batches could not be sent to MLflow; they are in the ledger and are sent by the next start",
                len(self.run.pending),
            )

"""From learned batches to MLflow: metrics at once, versions every few batches, champions only through the gate.

The ledger is the only record: rows that MLflow lacks are sent again from it. A server that is down delays metrics and
versions; it never stops the stream.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.tracking import MlflowClient

from recsys.catalogue import NewItems
from recsys.config import Settings
from recsys.contracts import LedgerRow, StepId
from recsys.errors import RegistryError
from recsys.model.evaluation.gate import GateResult, judge
from recsys.model.recommender import OnlineModel
from recsys.registry import artifacts, versions
from recsys.registry.runs import GenerationRun
from recsys.registry.versions import Version
from recsys.serving import Served
from recsys.storage import plot_file

logger = logging.getLogger(__name__)

Observer = Callable[[str, StepId], None]
ROWS_KEPT = 5_000  # For the plot and the gate: a week of batches, two a minute.
FIRST, CHAMPION = "first", "champion"


def log_stage(stage: str, step: StepId) -> None:
    """The default observer of stages: writes a line to the debug log."""
    logger.debug("batch %s: %s done", step, stage)


@dataclass(frozen=True)
class Published:
    """A registered version, and the verdict of the gate.

    Attributes:
        version: the registered version; promoted: whether it became champion.
    """

    version: Version
    promoted: bool


class Publisher:
    """Publishes metrics and versions of one generation to MLflow.

    Args:
        client: from `registry.client.connect`.
        settings: all settings.
        run: the generation's run.
        log_location: location of the interaction log, for the lineage.
        rows: ledger rows of this generation, oldest first: those that MLflow lacks, and a few thousand before.

    Attributes:
        champion_version: registered version of the champion, or None.

    Raises:
        RegistryError: MLflow failed.
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
        self._outage: str | None = None
        name = settings.mlflow.model_name
        found = {FIRST: versions.first(client, name, run.run_id), CHAMPION: _own_champion(client, name)}
        self._named: dict[str, Version] = {alias: version for alias, version in found.items() if version is not None}
        self._new_rivals: dict[str, Served] = {}
        run.send(list(self.rows))

    @property
    def champion_version(self) -> str | None:
        """Registered version of the champion, or None if there is none."""
        return self._named[CHAMPION].version if CHAMPION in self._named else None

    def load_rivals(self) -> dict[str, Served]:
        """The first version of this generation and the champion as they are served, as far as they exist.

        Raises:
            RegistryError: MLflow failed.
        """
        loaded = {version.version: artifacts.load_served(version.uri) for version in self._named.values()}
        return {name: loaded[version.version] for name, version in self._named.items()}

    def add(self, rows: Sequence[LedgerRow]) -> None:
        """Send the ledger rows of newly learned batches; `publish_due` sends those that fail now."""
        self.rows.extend(rows)
        self.run.send(rows)

    def is_due(self, step: StepId) -> bool:
        """Whether a version is due after this batch."""
        return step.batch_id - self.run.published_through >= self.settings.register_.every_batches

    def publish_due(self, model: OnlineModel, step: StepId, observe: Observer) -> dict[str, Served]:
        """Send the metrics up to a step to MLflow, and register a version if one is due.

        Args:
            model: the model as of `step`.
            step: a batch in the ledger.
            observe: called when metrics, version and alias are done.

        Returns:
            New rivals by name: `first` for the first version of this generation, `champion` for a
            version that was promoted; empty if there is none.
        """
        delivered = self._deliver()
        observe("metrics", step)
        if delivered and self.is_due(step):
            self._publish_or_wait(model, step, observe)
        new_rivals, self._new_rivals = self._new_rivals, {}
        return new_rivals

    def publish_first(self, model: OnlineModel, step: StepId, observe: Observer) -> None:
        """Register a version at the clean end of a stream without a champion, even if none is due.

        A stream of few batches, such as a single file, would otherwise end without a model to recommend with.

        Args:
            model: the model as of `step`; a model without items is not registered.
            step: the last batch in the ledger.
            observe: called when version and alias are done.
        """
        if self.champion_version is None and len(model.items) and self._deliver():
            self._publish_or_wait(model, step, observe)

    def publish(self, model: OnlineModel, step: StepId, observe: Observer = log_stage) -> Published:
        """Judge a model, register it as a version, and promote it if it passes. Calling again is safe.

        Args:
            model: the model as of `step`.
            step: a step in the ledger; it identifies the version.
            observe: called when version and alias are done.

        Raises:
            RegistryError: MLflow failed.
        """
        verdict = self.judge_candidate()
        served = self.new_items.join(model.served())
        log_version = next(row.log_version for row in reversed(self.rows) if row.step <= step)
        tags = versions.gate_tags(verdict.passed, verdict.reasons, verdict.figures)
        tags["interaction_log_version"] = str(log_version)
        version = versions.register(self.client, self.settings, self.run.run_id, served, step, tags)
        # The oldest rows may have gone; until the first version they are all here.
        log_begin = self.rows[0].log_version if self.run.log_begin is None else self.run.log_begin
        self.run.log_lineage(self.log_location, log_begin, log_version)
        observe("version", step)
        if FIRST not in self._named:
            self._named[FIRST], self._new_rivals[FIRST] = version, served
        if verdict.passed:
            versions.promote(self.client, version)
            self._named[CHAMPION], self._new_rivals[CHAMPION] = version, served
        observe("alias", step)
        self.run.mark_published(step.batch_id)
        return Published(version, verdict.passed)

    def judge_candidate(self) -> GateResult:
        """Compare the live model with the champion on the last batches, each evaluated before it was learned."""
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

    def plot(self) -> Path:
        """Plot quality and cost over the batches, and log the plot to the run."""
        from recsys.stream import plots  # matplotlib is not waited for at the start

        path = plot_file(self.settings.storage.root)
        plots.quality(self.rows, path, self.settings.recommend.k)
        self.run.log_plot(path)
        return path

    def close(self, failed: bool) -> None:
        """Send all waiting rows and end the run."""
        if self.run.close(failed=failed):
            return
        if self.run.pending:
            logger.warning(
                "metrics of %d batches did not reach MLflow; they are in the ledger, and the next start sends them",
                len(self.run.pending),
            )
        else:
            logger.warning("MLflow shows the run as still running: %s", self.run.error)

    def _deliver(self) -> bool:
        """Send waiting rows, and report an outage once; returns whether MLflow has every row."""
        delivered = self.run.send()
        if self.run.error and not self._outage:
            logger.warning("MLflow does not answer; the stream goes on and sends its metrics later: %s", self.run.error)
        if self._outage and not self.run.error:
            logger.warning("MLflow answers again; all waiting metrics are sent")
        self._outage = self.run.error
        return delivered

    def _publish_or_wait(self, model: OnlineModel, step: StepId, observe: Observer) -> None:
        """Publish and plot; a registry failure only delays the version."""
        try:
            self.publish(model, step, observe)
        except RegistryError as error:
            logger.warning("no version registered for batch %s; the next batch tries again: %s", step, error)
        else:
            self.plot()


def _own_champion(client: MlflowClient, name: str) -> Version | None:
    """The champion, unless another release has registered it: this one might read its arrays wrongly."""
    champion = versions.champion(client, name)
    if champion is None or champion.step is not None:
        return champion
    logger.warning(
        "%s is champion, but this release did not register it (it has no tag 'generation') and cannot compare with it: "
        "the first version that is registered now takes its place; to keep it, set mlflow.model_name to another name",
        champion.uri,
    )
    return None

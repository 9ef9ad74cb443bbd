"""From learned batches to MLflow: metrics at once, versions every few batches, champions only through the gate.

The ledger is the only record: rows that MLflow lacks are sent again from it. A server that is down, even at the start,
delays metrics and versions; it never stops the stream.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from recsys.catalogue import NewItems
from recsys.config import Settings
from recsys.contracts import INTERACTION_LOG, LedgerRow, StepId
from recsys.errors import RegistryDownError
from recsys.model.evaluation.gate import GateResult, judge
from recsys.model.recommender import OnlineModel
from recsys.registry import artifacts, decisions, versions
from recsys.registry.attempts import Attempts
from recsys.registry.decisions import RegistryDecision
from recsys.registry.versions import Version
from recsys.serving import Served
from recsys.storage import plot_file
from recsys.stream.connection import CHAMPION, FIRST, Connection, own_champion
from recsys.tables import ledger
from recsys.tables.delta import Tables

logger = logging.getLogger(__name__)

Observer = Callable[[str, StepId], None]
ROWS_KEPT = 5_000  # For the plot and the gate: a week of batches, two a minute.


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
        settings: all settings.
        tables: the Delta tables.
        generation: number of the generation.
        rows: its last ledger rows, oldest first: a few thousand, for the gate and the plot.

    Attributes:
        connection: MLflow; None until it has answered.
    """

    def __init__(self, settings: Settings, tables: Tables, generation: int, rows: Iterable[LedgerRow]) -> None:
        self.settings = settings
        self.tables = tables
        self.generation = generation
        self.rows = deque(rows, maxlen=ROWS_KEPT)
        self.new_items = NewItems(settings, generation)
        self.connection: Connection | None = None
        self._stream_id = tables.identity(INTERACTION_LOG)
        self._attempts = Attempts()
        self._registrations = Attempts()
        self._outage: str | None = None
        self._added = 0
        self._new_rivals: dict[str, Served] = {}

    def start(self, may_wait: bool) -> None:
        """Connect to MLflow, and send it the rows of the ledger that it lacks.

        Args:
            may_wait: while MLflow does not answer, go on without it, and connect after a later batch.

        Raises:
            RegistryError: MLflow refuses, or does not answer and may not wait.
        """
        self._connect()
        failure = self._attempts.failure
        if failure is not None and not (may_wait and isinstance(failure, RegistryDownError)):
            raise failure
        self._deliver()

    @property
    def champion_version(self) -> str | None:
        """Registered version of the champion; None if there is none, or MLflow has not answered yet."""
        return None if self.connection is None else self.connection.champion_version

    @property
    def waiting(self) -> int:
        """Number of ledger rows that MLflow lacks; until it has answered, those of this start."""
        return self._added if self.connection is None else len(self.connection.run.pending)

    def take_new_rivals(self) -> dict[str, Served]:
        """Served versions that the live model is to be compared with from now on, by name; each is returned once."""
        new_rivals, self._new_rivals = self._new_rivals, {}
        return new_rivals

    def add(self, rows: Sequence[LedgerRow]) -> None:
        """Send the ledger rows of newly learned batches; `publish_due` sends those that fail now."""
        self.rows.extend(rows)
        self._added += len(rows)
        if self.connection is not None:
            self.connection.run.send(rows)

    def is_due(self, step: StepId) -> bool:
        """Whether a version is due after this batch."""
        if self.connection is None:
            return False
        return step.batch_id - self.connection.run.published_through >= self.settings.register_.every_batches

    def publish_due(self, model: OnlineModel, step: StepId, observe: Observer) -> dict[str, Served]:
        """Send the metrics up to a step to MLflow, and register a version if one is due.

        Args:
            model: the model as of `step`.
            step: a batch in the ledger.
            observe: called when metrics, version and alias are done.

        Returns:
            New rivals by name: `first` for the first version of this generation, `champion` for a version that was
            promoted, both if MLflow has answered for the first time; empty if there is none.
        """
        delivered = self._deliver()
        observe("metrics", step)
        if delivered and self.is_due(step):
            self._publish_or_wait(model, step, observe)
        return self.take_new_rivals()

    def publish_first(self, model: OnlineModel, step: StepId, observe: Observer) -> None:
        """Register a version at the clean end of a stream without a champion, even if none is due.

        A stream of few batches, such as a single file, would otherwise end without a model to recommend with.

        Args:
            model: the model as of `step`; a model without items is not registered.
            step: the last batch in the ledger.
            observe: called when version and alias are done.
        """
        if self._deliver() and self.champion_version is None and len(model.items):
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
        assert self.connection is not None, "`start` or `publish_due` has connected"
        client, run, named = self.connection.client, self.connection.run, self.connection.versions
        self._follow_champion()
        verdict = self._unless_held(self.judge_candidate())
        served = self.new_items.join(model.served())
        log_version = next(row.log_version for row in reversed(self.rows) if row.step <= step)
        tags = versions.gate_tags(verdict.passed, verdict.reasons, verdict.figures)
        tags["interaction_log_version"] = str(log_version)
        version = versions.register(client, self.settings, run.run_id, served, step, tags)
        # The oldest rows may have gone; until the first version they are all here.
        log_begin = self.rows[0].log_version if run.log_begin is None else run.log_begin
        run.log_lineage(self.tables.location(INTERACTION_LOG), log_begin, log_version)
        observe("version", step)
        if verdict.passed or FIRST not in named:
            # As the registry has it, which a restart would load: an artifact is a little less than the model.
            loaded = artifacts.load_served(version.uri)
            if FIRST not in named:
                named[FIRST], self._new_rivals[FIRST] = version, loaded
            if verdict.passed:
                decisions.promote(client, version, RegistryDecision("stream", "; ".join(verdict.reasons)))
                named[CHAMPION], self._new_rivals[CHAMPION] = version, loaded
        observe("alias", step)
        run.mark_published(step.batch_id)
        return Published(version, verdict.passed)

    def _follow_champion(self) -> None:
        """Compare with the champion that the registry names: a person may have chosen another one meanwhile."""
        assert self.connection is not None
        chosen = own_champion(self.connection.client, self.settings.mlflow.model_name)
        if chosen is None or chosen.version == self.champion_version:
            return
        logger.warning("%s has been made champion elsewhere; it is compared with from now on", chosen.uri)
        self._new_rivals[CHAMPION] = artifacts.load_served(chosen.uri)
        self.connection.versions[CHAMPION] = chosen

    def _unless_held(self, verdict: GateResult) -> GateResult:
        """The verdict, or that nothing is promoted while a person holds the registry."""
        assert self.connection is not None
        hold = decisions.held(self.connection.client, self.settings.mlflow.model_name)
        if hold is None or not verdict.passed:
            return verdict
        reason = f"promotions are on hold, by {hold.by}: {hold.reason}"
        return replace(verdict, passed=False, reasons=(*verdict.reasons, reason))

    def judge_candidate(self) -> GateResult:
        """Compare the live model with the champion on the last batches, each evaluated before it was learned."""
        live, frozen = (f"{ranker}/ndcg_at_{self.settings.recommend.k}" for ranker in ("model", "champion"))
        # Since it became champion: what was measured before a rollback does not count again.
        of_champion = list(takewhile(lambda row: row.model_version == self.champion_version, reversed(self.rows)))
        candidate = {row.step.batch_id: row.metrics[live] for row in self.rows if live in row.metrics}
        champion = {row.step.batch_id: row.metrics[frozen] for row in of_champion if frozen in row.metrics}
        return judge(
            candidate,
            champion if self.champion_version else None,
            tolerance=self.settings.gate.tolerance,
            batches=self.settings.gate.batches,
        )

    def plot(self) -> Path:
        """Plot quality and cost over the batches, and log the plot to the run if MLflow has answered."""
        from recsys.stream import plots  # matplotlib is not waited for at the start

        path = plot_file(self.settings.storage.root)
        plots.quality(self.rows, path, self.settings.recommend.k)
        if self.connection is not None:
            self.connection.run.log_plot(path)
        return path

    def close(self, failed: bool) -> None:
        """Send all waiting rows and end the run."""
        self._attempts.hurry()
        connection = self._connect()
        if connection is not None and connection.run.close(failed=failed):
            return
        if self.waiting:
            logger.warning(
                "metrics of %d batches did not reach MLflow; they are in the ledger, and the next start sends them",
                self.waiting,
            )
        elif connection is not None:
            logger.warning("MLflow shows the run as still running: %s", connection.run.error)

    def _connect(self) -> Connection | None:
        """The connection, which is made if MLflow answers now; rows that it lacks are sent, or wait for `_deliver`."""

        def call() -> None:
            self.connection = Connection.open(self.settings, self.generation, self._stream_id)

        if self.connection is None and self._attempts.pace(call):
            assert self.connection is not None
            self._new_rivals |= self.connection.served
            run, rows = self.connection.run, list(self.rows)
            if rows and rows[0].step.batch_id > run.last_sent + 1:
                rows = ledger.read(self.tables, self.generation, after=run.last_sent)
            run.send(rows)
        return self.connection

    def _deliver(self) -> bool:
        """Send waiting rows, and report an outage once; returns whether MLflow has every row."""
        connection = self._connect()
        delivered = connection is not None and connection.run.send()
        error = self._attempts.failure if connection is None else connection.run.error
        if error and not self._outage:
            logger.warning("MLflow does not answer; the stream goes on and sends its metrics later: %s", error)
        if self._outage and not error:
            logger.warning("MLflow answers again; all waiting metrics are sent")
        self._outage = None if error is None else str(error)
        return delivered

    def _publish_or_wait(self, model: OnlineModel, step: StepId, observe: Observer) -> None:
        """Publish and plot; a registry failure only delays the version, by more the longer it took to fail."""
        before = self._registrations.failure
        if self._registrations.pace(lambda: self.publish(model, step, observe)):
            self.plot()
        elif self._registrations.failure is not before:
            failure = self._registrations.failure
            logger.warning("no version registered for batch %s; a later batch tries again: %s", step, failure)

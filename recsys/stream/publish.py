"""From learned batches to MLflow: metrics at once, versions every few batches, champions only through the gate.

A version is registered as challenger and loaded back in a thread; what was registered is put on trial (`contest`,
`trials`). The ledger is the only record: rows that MLflow lacks are sent again from it. A server that is down, even at
the start, delays metrics, versions and promotions; it never stops the stream.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from recsys.catalogue import NewItems
from recsys.config import Settings
from recsys.contracts import INTERACTION_LOG, LedgerRow, StepId
from recsys.errors import RegistryDownError, RegistryError
from recsys.model.recommender import OnlineModel
from recsys.registry import artifacts, versions
from recsys.registry.attempts import Attempts
from recsys.registry.versions import CHAMPION, Version
from recsys.serving import Served
from recsys.storage import Place, at_hand, plot_file
from recsys.stream import plots
from recsys.stream.arms import Arms
from recsys.stream.connection import Connection
from recsys.stream.contest import Contest
from recsys.stream.trials import Trials
from recsys.tables import ledger
from recsys.tables.delta import Tables
from recsys.words import count

logger = logging.getLogger(__name__)

# Called with the name of a stage and its step when it is complete: in the thread of the batches, but for `version` and
# `totals`, which go on beside them.
Observer = Callable[[str, StepId], None]


class Publishable(Protocol):
    """A model that can be registered."""

    def served(self) -> Served:
        """The model as a registered version carries it."""


ROWS_KEPT = 5_000  # For the plot and the gate: a week of batches, two a minute.


@dataclass(frozen=True)
class Registered:
    """A version that has been registered for a step, and what was loaded back of it; None if it cannot be loaded."""

    version: Version
    step: StepId
    served: Served | None


def log_stage(stage: str, step: StepId) -> None:
    """The default observer of stages: writes a line to the debug log."""
    logger.debug("batch %s: %s done", step, stage)


class Publisher:
    """Publishes metrics and versions of one generation to MLflow.

    Args:
        settings: all settings.
        tables: the Delta tables.
        generation: number of the generation.
        rows: its last ledger rows, oldest first: a few thousand, for the gate and the plot.

    Attributes:
        connection: MLflow; None until it has answered.
        trials: what the challenger on trial did so far.
        contest: the versions that are measured beside the live model.
        arms: those of an experiment.
    """

    def __init__(self, settings: Settings, tables: Tables, generation: int, rows: Iterable[LedgerRow]) -> None:
        self.settings = settings
        self.tables = tables
        self.generation = generation
        self.rows = deque(rows, maxlen=ROWS_KEPT)
        self.new_items = NewItems(settings, generation)
        self.connection: Connection | None = None
        self.trials = Trials(settings, tables, self.rows)
        self.contest = Contest(settings, self.trials)
        self.arms = Arms(settings)
        self._stream_id = tables.identity(INTERACTION_LOG)
        self._attempts = Attempts()
        self._registrations = Attempts()
        self._outage: str | None = None
        self._added = 0

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
        return None if self.contest.champion is None else self.contest.champion.version

    @property
    def rivals(self) -> dict[str, Served]:
        """What the live model is compared with, by name."""
        return {name: served for name, (_, served) in self._measured.items()}

    @property
    def artifacts(self) -> dict[str, str]:
        """SHA-256 of the artifacts of what the live model is compared with, by name."""
        digests = {name: version.digest for name, (version, _) in self._measured.items()}
        return {name: digest for name, digest in digests.items() if digest is not None}

    @property
    def waiting(self) -> int:
        """Number of ledger rows that MLflow lacks; until it has answered, those of this start."""
        return self._added if self.connection is None else len(self.connection.run.pending)

    def add(self, rows: Sequence[LedgerRow]) -> None:
        """Send the ledger rows of newly learned batches; `publish_due` sends those that fail now."""
        self.rows.extend(rows)
        self._added += len(rows)
        if self.connection is not None:
            self.connection.run.send(rows)

    def is_due(self, step: StepId) -> bool:
        """Whether a version, or a verdict, is due after this batch."""
        return self.connection is not None and (self.contest.decided or self._version_is_due(step))

    def publish_due(self, step: StepId, observe: Observer) -> bool:
        """Send the metrics up to a step to MLflow, and settle a trial that has ended.

        Args:
            step: a batch in the ledger.
            observe: called when metrics and alias are done.

        Returns:
            Whether a version of this step is due. The run notes it: a start after an interruption makes up for it.
        """
        delivered = self._deliver()
        observe("metrics", step)
        if not (
            delivered and self._attempted(lambda: self._settle(step, observe), step) and self._version_is_due(step)
        ):
            return False
        assert self.connection is not None
        run = self.connection.run
        return self._attempted(lambda: run.mark_due(step.batch_id), step)

    def owes(self, step: StepId) -> bool:
        """Whether a version of this step was due in an earlier process, which has not seen it registered."""
        run = None if self.connection is None else self.connection.run
        return run is not None and run.published_through < run.due == step.batch_id

    def registration(self, model: Publishable, step: StepId, observe: Observer) -> Callable[[], Registered | None]:
        """What registers a model, for another thread: whatever the model learns meanwhile, it is as of `step`.

        Until `meet` has its result, nothing else here may be called that asks MLflow for versions.

        Args:
            model: the model as of `step`.
            step: a batch in the ledger.
            observe: called when the version is done.

        Returns:
            A function that returns the version, or None if MLflow failed: a later batch tries again.
        """
        register = self._registration(model, step, observe)

        def attempt() -> Registered | None:
            done: list[Registered] = []
            self._attempted(lambda: done.append(register()), step)
            return done[0] if done else None

        return attempt

    def meet(self, registered: Registered, observe: Observer) -> bool:
        """Let a version that was registered be the challenger; its trial begins with the next evaluation.

        Args:
            registered: from `registration`.
            observe: called when it is done.

        Returns:
            Whether MLflow has answered; if not, a later batch finds the version there.
        """

        def call() -> None:
            self._meet(registered)
            observe("challenger", registered.step)

        return self._attempted(call, registered.step)

    def publish_first(self, model: OnlineModel, step: StepId, observe: Observer) -> None:
        """See that a clean end of a stream leaves a champion, even if no version is due or its trial has not ended.

        A stream of few batches, such as a single file, would otherwise end without a model to recommend with. A version
        that was measured below popularity stays what it is.

        Args:
            model: the model as of `step`; a model without items is not registered.
            step: the last batch in the ledger.
            observe: called when version and alias are done.
        """

        def end() -> None:
            self._settle(step, observe)
            if self.contest.lacks_version:
                self.publish(model, step, observe)
            self._settle(step, observe, at_the_end=self.contest.champion is None)

        if self._deliver() and self.champion_version is None and len(model.items):
            self._attempted(end, step)

    def publish(self, model: Publishable, step: StepId, observe: Observer = log_stage) -> Version:
        """Register a model as challenger; its trial begins with the next batch. Calling again is safe.

        Args:
            model: the model as of `step`.
            step: a step in the ledger; it identifies the version.
            observe: called when the version is done.

        Raises:
            RegistryError: MLflow failed.
        """
        assert self.connection is not None, "`start` or `publish_due` has connected"
        self.contest.expire(self.connection.client, step)
        registered = self._registration(model, step, observe)()
        self._meet(registered)
        return registered.version

    def promote_first(self, step: StepId) -> bool:
        """Let the challenger be champion if there is none and it was not measured below popularity; returns whether.

        Raises:
            RegistryError: MLflow failed.
        """
        return self.contest.champion is None and self._settle(step, log_stage, at_the_end=True)

    @property
    def _measured(self) -> dict[str, tuple[Version, Served]]:
        measured = self.contest.measured
        return measured | self.arms.measured(measured.get(CHAMPION))

    def _version_is_due(self, step: StepId) -> bool:
        """Whether it is time for another version.

        Not while one is on trial: that ends after `gate.max_batches` at the latest, and a challenger that is replaced
        before would never be judged where registrations are frequent.
        """
        assert self.connection is not None
        waited = step.batch_id - self.connection.run.published_through
        return self.contest.on_trial is None and waited >= self.settings.register_.every_batches

    def _registration(self, model: Publishable, step: StepId, observe: Observer) -> Callable[[], Registered]:
        """What registers a model, and loads back what was registered."""
        assert self.connection is not None, "`start` or `publish_due` has connected"
        client, run_id, served = self.connection.client, self.connection.run.run_id, model.served()
        log_version = next(row.log_version for row in reversed(self.rows) if row.step <= step)
        tags = {"interaction_log_version": str(log_version)}

        def register() -> Registered:
            joined = self.new_items.join(served)
            version = versions.register(client, self.settings, run_id, joined, step, tags)
            observe("version", step)
            return Registered(version, step, _loaded_back(version))

        return register

    def _meet(self, registered: Registered) -> None:
        assert self.connection is not None, "it has registered the version"
        self.connection.first = self.connection.first or registered.version
        self.contest.enter(registered.version, registered.served)
        self._look()

    def _settle(self, step: StepId, observe: Observer, at_the_end: bool = False) -> bool:
        """Look who is what, record a verdict, and move the alias; returns whether the champion is another one."""
        self._look()
        assert self.connection is not None
        moved = self.contest.settle(self.connection.client, at_the_end)
        if moved:
            observe("alias", step)
            self._look()
        return moved

    def _look(self) -> None:
        """Look who is what, and note in the run which version was registered last, unless that was done before."""
        assert self.connection is not None, "`start` or `publish_due` has connected"
        client, run = self.connection.client, self.connection.run
        self.contest.look(client, self.connection.first)
        self.arms.look(client, self.contest.served_by)
        newest = self.contest.challenger
        step = None if newest is None else newest.step
        if newest is None or step is None or step.generation != self.generation:
            return
        if step.batch_id > run.published_through:
            log_version = int(newest.tags["interaction_log_version"])
            # The oldest rows may have gone; until the first version they are all here.
            log_begin = self.rows[0].log_version if run.log_begin is None else run.log_begin
            run.log_lineage(self.tables.location(INTERACTION_LOG), log_begin, log_version)
            run.mark_published(step.batch_id)

    def plot(self) -> Place:
        """Plot quality and cost over the batches, and log the plot to the run if MLflow has answered.

        Any thread may call it, one at a time: it begins with a copy of the rows, taken in one step.
        """
        rows = list(self.rows)
        path = plot_file(self.settings.storage.root)
        plots.quality(rows, path, self.settings.recommend.k)
        if self.connection is not None:
            with at_hand(path) as file:
                self.connection.run.log_plot(file)
        return path

    def close(self, failed: bool) -> None:
        """Send all waiting rows and end the run."""
        self._attempts.hurry()
        connection = self._connect()
        if connection is not None and connection.run.close(failed=failed):
            return
        if self.waiting:
            logger.warning(
                "metrics of %s did not reach MLflow; they are in the ledger, and the next start sends them",
                count(self.waiting, "batch", "batches"),
            )
        elif connection is not None:
            logger.warning("MLflow shows the run as still running: %s", connection.run.error)

    def _connect(self) -> Connection | None:
        """The connection, which is made if MLflow answers now; rows that it lacks are sent, or wait for `_deliver`."""

        def call() -> None:
            connection = Connection.open(self.settings, self.generation, self._stream_id)
            self.contest.look(connection.client, connection.first)
            self.connection = connection
            self.arms.look(connection.client, self.contest.served_by)

        if self.connection is None and self._attempts.pace(call):
            assert self.connection is not None
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

    def _attempted(self, call: Callable[[], object], step: StepId) -> bool:
        """Make a call to the registry; one that fails is only delayed, by more the longer it took to fail."""
        before = self._registrations.failure
        done = self._registrations.pace(call)
        failure = self._registrations.failure
        if not done and failure is not before:
            logger.warning("versions wait after batch %s; a later batch tries again: %s", step, failure)
        return done


def _loaded_back(version: Version) -> Served | None:
    """What a version serves; None if it cannot be loaded, for which the next look rejects it.

    Raises:
        RegistryDownError: MLflow does not answer.
    """
    try:
        return artifacts.load_served(version.uri, version.digest)
    except RegistryDownError:
        raise
    except RegistryError as error:
        logger.debug("%s was registered and cannot be loaded: %s", version.uri, error)
        return None

"""What happens to one micro-batch, from top to bottom.

    quarantine -> exposures -> contents -> log -> evaluate -> learn -> snapshot -> trials -> ledger -> MLflow -> totals

Spark calls `Pipeline.handle_batch` and marks the batch as done only when it returns. So after a crash the same batch
comes again, and every stage either finds its mark and does nothing, or does all of its work:

* quarantine, exposures, contents, log, trials, ledger are Delta appends with the batch id as transaction version;
* a batch that is in the log is not read again, so its source may be gone;
* the model learns from the rows that the log holds, and only batches that the ledger does not hold yet;
* log and ledger say what each batch was planned to read; a batch of that number that reads anything else is refused;
* the gate's verdict is a function of log, trials and ledger;
* MLflow gets the ledger rows that it lacks; a version is looked up by its batch id; the alias moves last.

Versions are registered, totals refreshed, snapshots and plots written in threads, while Spark reads the next batch. A
version is waited for before the next evaluation. Where a kill comes first, the next start makes up for it, because the
run in MLflow says that it was due. Totals and snapshots say how far they are: a later one makes up for a lost one.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from pyspark.sql import DataFrame

from recsys.config import Settings
from recsys.contracts import InteractionBatch, LedgerRow, StepId
from recsys.errors import SolveError
from recsys.memory import give_back
from recsys.model import snapshot
from recsys.model.evaluation.prequential import BatchEvaluation, Rival, evaluate_users
from recsys.model.evaluation.rivals import Rivals
from recsys.model.recommender import OnlineModel
from recsys.model.snapshot import Snapshot
from recsys.storage import snapshot_folder
from recsys.stream import freshness
from recsys.stream.arms import intervals_of_arms
from recsys.stream.background import Background
from recsys.stream.contents import ItemContents
from recsys.stream.contest import FIRST
from recsys.stream.publish import Observer, Publisher, Registered, log_stage
from recsys.stream.recovery import (
    Generation,
    Logged,
    another_checkpoint,
    recover_model,
    returning,
    with_returned,
)
from recsys.stream.stored import StoredBatch, from_log
from recsys.tables import exposures, ledger, log, quarantine, totals
from recsys.tables.checkpoint import Plan
from recsys.tables.delta import Tables
from recsys.tables.source import computed_once, run_through

logger = logging.getLogger(__name__)

SNAPSHOTS_KEPT = 3


class Pipeline:
    """One stream: its tables, its model and its place in the registry.

    Args:
        settings: all settings.
        tables: the Delta tables.
        model: the model as of the last batch in the ledger.
        generation: the current generation and its batches.
        logged: the last batch of this generation in the log.
        publisher: the way to MLflow.
        background: registers versions, refreshes totals, and writes snapshots and plots while the stream goes on.
        report: called with the ledger row of every learned batch.
        observe: called after every completed stage of a batch, see `Observer`.
    """

    def __init__(
        self,
        settings: Settings,
        tables: Tables,
        model: OnlineModel,
        generation: Generation,
        logged: Logged,
        publisher: Publisher,
        background: Background,
        report: Callable[[LedgerRow], None],
        observe: Observer = log_stage,
    ) -> None:
        self.settings = settings
        self.shaping = settings.shaping()
        self.tables = tables
        self.beside = tables.beside()  # For what goes on in the background.
        self.model = model
        self.generation = generation
        self.logged = logged
        self.learned_through = generation.last_batch
        # Batches that were set aside and come back with the next one.
        self.returning = returning(tables, generation)
        self.publisher = publisher
        self.background = background
        self.rivals = Rivals(publisher.rivals)
        self.contents = ItemContents(settings, tables, publisher.new_items.plain, observe)
        self.plot_is_due = False  # A version has been registered since the last plot.
        self.report = report
        self.observe = observe

    def handle_batch(self, events: DataFrame, batch_id: int, plan: Plan) -> None:
        """Process one micro-batch; the function for `foreachBatch`.

        Args:
            events: validated records, as `tables.source.open_events` delivers them.
            batch_id: number of the batch in the ledger.
            plan: what Spark planned for the batch.

        Raises:
            InputError: the tables hold another batch of this number, or lack the one before it.
            OSError: a snapshot or a plot of an earlier batch could not be written.
            Exception: what else has failed in the background since the last batch.
        """
        began = time.perf_counter()
        self.background.look()
        self.refuse_another(batch_id, plan)
        if batch_id <= max(self.learned_through, self.logged.through):
            run_through(events)
        if batch_id < self.generation.first_batch:
            return  # The rebuild that began this generation has learned the batch from the log.
        step = StepId(self.generation.number, batch_id)
        if batch_id > self.learned_through:
            stored = self.stored(step, plan, began) or self.store(events, step, plan, began)
            row = self.learn_or_set_aside(stored, step)
            self.record([row], application_id(events))
            if stored.records:
                self.report(row)
        self.publish(step)
        every = self.settings.storage.refresh_totals_every_batches
        if (batch_id + 1) % every == every // 2:  # Halfway: at the end of a period versions and snapshots are due, too.
            self.background.begin("totals", partial(self.refresh_totals, step))
        self.observe("batch", step)

    def refuse_another(self, batch_id: int, plan: Plan) -> None:
        """Refuse a batch that is not the one that the tables hold under its number, or that leaves a gap.

        Raises:
            InputError: see above.
        """
        known = ((self.generation.last_batch, self.generation.last_input), (self.logged.through, self.logged.input))
        if any(batch_id == number and read not in (None, plan.input) for number, read in known):
            raise another_checkpoint(self.settings, f"batch {batch_id} reads something else than it did in the tables")
        if batch_id > self.learned_through + 1:
            raise another_checkpoint(self.settings, f"batch {batch_id} follows batch {self.learned_through}")

    def stored(self, step: StepId, plan: Plan, began: float) -> StoredBatch | None:
        """A batch that a crash left in the log but not in the ledger; None if it is not in the log."""
        if step.batch_id > self.logged.through:
            return None
        logged = from_log(self.tables, self.settings.experiment, step, plan, began)
        return replace(logged, rows=self.contents.given(logged.rows, step))

    def store(self, events: DataFrame, step: StepId, plan: Plan, began: float) -> StoredBatch:
        """Write the batch to quarantine and log exactly once, whatever was written before a crash."""
        started = time.perf_counter()
        application = application_id(events)
        with computed_once(events) as events:
            collected, counts = log.collect(events, self.settings.weights)
            if counts.quarantined:
                quarantine.append(self.tables, events, step, application, counts.quarantined)
            self.observe("quarantine", step)
            if counts.listed:
                exposures.append(self.tables, events, self.settings.weights, step, application)
                self.observe("exposures", step)
        topic = self.settings.quarantine.dead_letter_topic
        if counts.quarantined and topic is not None:
            quarantine.send_dead_letters(self.tables, self.settings.source, topic, step)
            self.observe("dead letters", step)
        rows = self.contents.bring(log.to_batch(collected), self.model, step, application)
        log_version = log.append(self.tables, collected, step, application, plan.input)
        self.observe("log", step)
        return StoredBatch(
            rows=rows,
            log_version=log_version,
            records=counts.records,
            quarantined=counts.quarantined,
            reasons=counts.reasons,
            exposure=exposures.figures(self.tables, step, self.settings.experiment) if counts.listed else {},
            plan=plan,
            began=began,
            seconds=time.perf_counter() - started,
        )

    def learn_or_set_aside(self, stored: StoredBatch, step: StepId) -> LedgerRow:
        """Learn a batch, with those that come back, or go on without it if it cannot be learned.

        The same batch would fail at every start. It stays in the log, so a rebuild learns it with the rest.

        Returns:
            The ledger row.
        """
        back = self.returning if len(stored.rows) else ()
        if back:
            self.returning = ()  # They come back once, whatever becomes of them.
        try:
            return self.learn(stored, step, back)
        except SolveError as error:
            if not back:
                return self.set_aside(stored, step, error)
            logger.error("batches %s cannot be learned yet: %s", ", ".join(map(str, back)), error)
            self.model = self.model_before(step)
            row = self.learn_or_set_aside(stored, step)
            return replace(row, metrics=row.metrics | {f"{ledger.RETURNED}{batch_id}": 0.0 for batch_id in back})

    def set_aside(self, stored: StoredBatch, step: StepId, error: SolveError) -> LedgerRow:
        """Go on without a batch that cannot be learned; all batches before it are in the ledger.

        Returns:
            The ledger row, with the reason. Recovery skips the batch because of it.
        """
        logger.error("batch %s is set aside, the stream goes on without it: %s", step, error)
        self.model = self.model_before(step)
        row = self.row_of(stored, step, {ledger.SET_ASIDE: 1.0})
        return replace(row, decisions=(f"set aside: {error}",))

    def model_before(self, step: StepId) -> OnlineModel:
        """The model as it was before a batch, of which it may have taken in a part."""
        return recover_model(self.settings, self.tables, replace(self.generation, last_batch=step.batch_id - 1))

    def learn(self, stored: StoredBatch, step: StepId, back: Sequence[int] = ()) -> LedgerRow:
        """Evaluate the model on the batch, learn the batch, and save a snapshot if one is due.

        A version that has been registered meanwhile takes its place first: which batch measures which version is a
        function of the log.

        Args:
            stored: the batch.
            step: its step.
            back: batches that were set aside and are learned with it.

        Returns:
            The ledger row.
        """
        started = time.perf_counter()
        self.meet_version()
        evaluation = self.evaluate(stored.rows, step)
        self.observe("evaluate", step)
        evaluated = time.perf_counter()
        came_back = {f"{ledger.RETURNED}{batch_id}": 1.0 for batch_id in back}
        rows = with_returned(self.settings, self.tables, stored.rows, step, back)
        update = self.model.update(rows, step) | came_back
        self.observe("learn", step)
        learned = time.perf_counter()
        age = freshness.figures(stored.rows, stored.plan.planned_at.timestamp(), time.time())
        state_uri = None
        if (step.batch_id + 1) % self.settings.storage.snapshot_every_batches == 0:
            state_uri = self.save_state()
            self.observe("snapshot", step)
        seconds = {"evaluate_seconds": evaluated - started, "learn_seconds": learned - evaluated}
        row = self.row_of(stored, step, evaluation.figures | update | seconds | age)
        row = replace(row, state_uri=state_uri, decisions=self.model.decision.reasons)
        return self.publisher.trials.judged(row, evaluation, self.rivals)

    def row_of(self, stored: StoredBatch, step: StepId, metrics: Mapping[str, float]) -> LedgerRow:
        """The ledger row of a batch, with what is the same for every batch.

        Args:
            stored: the batch.
            step: its step.
            metrics: metrics of this batch.
        """
        return LedgerRow(
            step=step,
            log_version=stored.log_version,
            events=stored.rows.records,
            users=len(set(stored.rows.user_ids)),
            items=len(set(stored.rows.item_ids)),
            duration_ms=round(1000 * (time.perf_counter() - stored.began)),
            ingested_at=stored.plan.planned_at,
            metrics={
                **metrics,
                "records": float(stored.records),
                "quarantined": float(stored.quarantined),
                **{f"quarantined/{reason}": float(number) for reason, number in stored.reasons.items()},
                **stored.exposure,
                "spark_seconds": stored.seconds,
            },
            model_version=self.publisher.champion_version,
            input=stored.plan.input,
            settings=self.shaping,
            artifacts=self.publisher.artifacts,
        )

    def record(self, rows: Sequence[LedgerRow], application: str) -> None:
        """Append what newly learned batches add to the trials, and their rows to the ledger, in one commit each."""
        step = rows[-1].step
        if self.publisher.trials.append(application, step.batch_id):
            self.observe("trials", step)
        ledger.append(self.tables, rows, application, step.batch_id)
        self.observe("ledger", step)
        self.learned_through = step.batch_id
        self.publisher.add(rows)

    def publish(self, step: StepId) -> None:
        """Bring MLflow up to date with the last learned batch, and begin to register a version if one is due.

        It is on trial from the next batch on.
        """
        self.meet_version()
        if self.publisher.publish_due(step, self.observe):
            self.begin_version(step)
        if self.plot_is_due:  # Drawn while Spark reads, which leaves Python to others.
            self.plot_is_due = False
            self.background.begin("plot", self.publisher.plot)
        self.rivals.become(self.publisher.rivals)

    def begin_version(self, step: StepId) -> None:
        """Begin to register the model as of the last learned batch."""
        self.background.begin("version", self.publisher.registration(self.model, step, self.observe))

    def meet_version(self) -> None:
        """Wait for a version that is being registered, and let it be the challenger."""
        registered = self.background.finish("version")
        if isinstance(registered, Registered) and self.publisher.meet(registered, self.observe):
            self.plot_is_due = True
            self.rivals.become(self.publisher.rivals)

    def refresh_totals(self, step: StepId) -> None:
        """Bring the totals up to date with the log, as of a batch or a later one."""
        totals.refresh(self.beside)
        self.observe("totals", step)

    def evaluate(self, batch: InteractionBatch, step: StepId) -> BatchEvaluation:
        """Evaluate the live model, its rivals that are due and, if due, a retrained shadow, on a batch to be learned.

        Returns:
            With a shadow, the figures have `shadow_gap`, too: the share of its NDCG that the live model lacks.
        """
        every = self.settings.staleness.shadow_every_batches
        first_is_due = (step.batch_id + 1) % self.settings.evaluation.first_every_batches == 0
        rivals: dict[str, Rival] = dict(self.rivals if first_is_due else self.rivals.without_alone(FIRST))
        if every and (step.batch_id + 1) % every == 0 and len(self.model.users):
            rivals["shadow"] = self.model.shadow(step)
        evaluation = evaluate_users(batch, self.model, rivals, self.settings, step)
        figures, ndcg = evaluation.figures, f"ndcg_at_{self.settings.recommend.k}"
        figures.update(intervals_of_arms(evaluation))
        if figures.get(f"shadow/{ndcg}"):
            figures["shadow_gap"] = 1 - figures[f"model/{ndcg}"] / figures[f"shadow/{ndcg}"]
        return evaluation

    def save_state(self) -> str:
        """Begin to save a snapshot of the model, and return its path.

        Until it is there, a restart takes an earlier one, and the log.

        Raises:
            OSError: the one before could not be written.
        """
        self.background.finish("snapshot")  # Before the next copy is made: the memory holds one.
        folder = snapshot_folder(self.settings.storage.root)
        taken = Snapshot.of(self.model).copied()

        def save() -> None:
            taken.save_in(folder)
            snapshot.prune(folder, taken.step.generation, keep=SNAPSHOTS_KEPT)
            give_back()

        self.background.begin("snapshot", save)
        return snapshot.path_for(folder, taken.step).as_posix()

    def close(self) -> None:
        """Bring everything up to date after the last complete batch.

        That is a snapshot for a quick start, the totals and, if there is no champion yet, a first version.
        """
        self.finish()
        step = StepId(self.generation.number, self.learned_through)
        learned = self.learned_through >= self.generation.first_batch and self.model.step is not None
        if learned:
            self.save_state()
        totals.refresh(self.tables)
        if learned:
            self.publisher.publish_first(self.model, step, self.observe)
        self.finish()

    def fail(self) -> None:
        """End the run in MLflow as a failure, once what goes on in the background has ended."""
        self.background.settle()
        self.publisher.close(failed=True)

    def finish(self) -> None:
        """Wait for what goes on in the background; raises what failed there."""
        self.meet_version()
        self.background.finish_all()


def application_id(events: DataFrame) -> str:
    """Transaction application id of the checkpoint that delivered a micro-batch.

    The id of the streaming query is stored in the checkpoint: it survives restarts, and a new checkpoint has another.
    """
    query_id = events.sparkSession.sparkContext.getLocalProperty("sql.streaming.queryId")
    return f"recsys:{query_id}"

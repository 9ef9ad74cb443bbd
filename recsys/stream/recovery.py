"""Restores a stream at its start: the current generation, and the model as of the last batch in the ledger.

A generation begins with a rebuild, whose ledger row has the last batch id that the rebuilt model has learned. The model
is a pure function of the log; a snapshot only saves the time to recompute it.
"""

import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from recsys.config import Settings
from recsys.config.settings import differences
from recsys.contracts import INTERACTION_LOG, MODEL_UPDATES, InteractionBatch, StepId
from recsys.errors import InputError
from recsys.model import snapshot
from recsys.model.interactions.described import with_vectors
from recsys.model.neural.ncf import NeuralCf
from recsys.model.recommender import OnlineModel
from recsys.storage import checkpoint_folder, snapshot_folder
from recsys.stream import distributed
from recsys.stream.contents import catalog_of
from recsys.stream.processes import Processes
from recsys.stream.scope import Scope
from recsys.tables import checkpoint, contents, ledger, log, requeue
from recsys.tables.conditions import between
from recsys.tables.delta import Tables

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Generation:
    """A generation of the model: it begins with a rebuild and ends with the next one.

    Attributes:
        number: 0 at first; every rebuild adds 1.
        first_batch: first batch id that the stream learns in this generation.
        last_batch: last batch id in the ledger; `first_batch - 1` if the stream has learned none yet.
        last_input: fingerprint of what the last batch has read; None if the ledger does not say.
        settings: `Settings.shaping` of the last batch; empty if the ledger does not say.
    """

    number: int
    first_batch: int
    last_batch: int
    last_input: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Logged:
    """The last batch of a generation in the log: its id, -1 if there is none, and the fingerprint of what it read."""

    through: int = -1
    input: str | None = None


def current_generation(tables: Tables) -> Generation:
    """Read the current generation and its last batch from the ledger."""
    last = ledger.last_row(tables)
    if last is None:
        return Generation(number=0, first_batch=0, last_batch=-1)
    number = last.step.generation
    return Generation(number, _first_batch(tables, number), last.step.batch_id, last.input, last.settings)


def _first_batch(tables: Tables, generation: int) -> int:
    """The first batch id that the stream learns in a generation."""
    return 0 if generation == 0 else ledger.first_step(tables, generation).batch_id + 1


def logged_so_far(tables: Tables, generation: Generation) -> Logged:
    """Read from the log how far it is; a crash may have left one batch in it that the ledger lacks."""
    last = log.last_step(tables, generation.number)
    if last is None:
        return Logged()
    if last.batch_id <= generation.last_batch:
        return Logged(last.batch_id)
    return Logged(last.batch_id, log.last_input(tables))


def refuse_other_checkpoint(settings: Settings, generation: Generation, logged: Logged, first_batch: int = 0) -> None:
    """Refuse a checkpoint that is not the one of the tables: events would be lost, or counted twice.

    Args:
        settings: all settings.
        generation: the current generation.
        logged: the last batch of this generation in the log.
        first_batch: batch id in the ledger of the checkpoint's batch 0.

    Raises:
        InputError: the checkpoint is gone, older or newer than the tables, or has planned their last batch otherwise.
    """
    folder = checkpoint_folder(settings.storage.root)
    last = generation.last_batch - first_batch
    if checkpoint.query_id(folder) is None:
        if max(last, logged.through - first_batch) >= 0:
            raise another_checkpoint(settings, "it is gone")
        return
    planned, finished = checkpoint.last_planned(folder), checkpoint.last_finished(folder)
    if planned < last:
        raise another_checkpoint(settings, f"it ends with batch {planned + first_batch}")
    if finished > last:
        raise another_checkpoint(settings, f"it has finished batch {finished + first_batch}")
    plan = checkpoint.plan(folder, last)
    if plan is not None and generation.last_input not in (None, plan.input):
        raise another_checkpoint(settings, f"its batch {generation.last_batch} reads something else")


def another_checkpoint(settings: Settings, why: str) -> InputError:
    """What to raise where the checkpoint does not belong to the tables."""
    root = settings.storage.root
    return InputError(
        f"the checkpoint {checkpoint_folder(root)} is not the one of the tables under {root} ({why}), and going on "
        f"would lose events or count them twice: restore tables and checkpoint of the same time, or set storage.root "
        f"to a new folder, or, if the source now holds only new events, delete the checkpoint and run "
        f"jobs/rebuild.py with the same settings to begin a new generation"
    )


def refuse_other_settings(settings: Settings, generation: Generation) -> None:
    """Refuse settings under which the same events would have given another log or another model.

    Raises:
        InputError: they differ; the message says how, and what to do.
    """
    if not generation.settings:
        return
    changed = differences(generation.settings, settings)
    weights = [change for change in changed if change.startswith("weights.")]
    if not changed:
        return
    remedy = "restore them, or run jobs/rebuild.py to train a model with the new ones"
    if weights:
        remedy = (
            "restore them, or, to re-weight old events, read the source again into a new storage.root; "
            "jobs/rebuild.py begins a generation in which old events keep their old weights"
        )
    root = settings.storage.root
    raise InputError(f"the tables under {root} were made with other settings: {', '.join(changed)}: {remedy}")


def recover_model(settings: Settings, tables: Tables, generation: Generation) -> OnlineModel:
    """The model as of the last batch in the ledger: the newest snapshot plus the batches of the log since.

    Raises:
        InputError: a snapshot was made with other model settings.
    """
    last = StepId(generation.number, generation.last_batch)
    model = _newest_snapshot(settings, last)
    if model is None and generation.number > 0:
        model = rebuilt_model(settings, tables, StepId(generation.number, generation.first_batch - 1))
    elif model is None:
        model = OnlineModel(settings)
    start = model.step or StepId(generation.number, -1)
    if start < last:
        logger.info("recovering the model from step %s to %s", start, last)
        rows = {row.step: row for row in ledger.read(tables, start.generation, start.batch_id)}
        for step, batch in tqdm(
            batches_as_learned(settings, tables, start, last),
            desc="recovering the model",
            unit=" batches",
            leave=False,
            disable=None,
        ):
            if not ledger.is_set_aside(rows[step]):
                back = [batch_id for batch_id, learned in ledger.returned(rows[step]).items() if learned]
                model.update(with_returned(settings, tables, batch, step, back), step)
        if model.step != last:  # The last batches had nothing to learn.
            model.update(log.to_batch(log.ROWS.empty_table()), last)
    else:
        for _ in complete_batches(tables, StepId(last.generation, last.batch_id - 1), last):
            pass  # A snapshot has the last batch, but the next recovery may need the log.
    return model


def with_returned(
    settings: Settings, tables: Tables, batch: InteractionBatch, step: StepId, back: Sequence[int]
) -> InteractionBatch:
    """A batch, joined with earlier ones of its generation that were set aside and are learned with it."""
    if not back:
        return batch
    steps = [StepId(step.generation, batch_id) for batch_id in back]
    earlier = [(one, log.to_batch(log.read_batch(tables, one))) for one in steps]
    if settings.uses_contents:
        earlier = [
            *contents.joined(tables, earlier, StepId(step.generation, min(back) - 1), step, settings.items.space)
        ]
    return log.joined([batch, *(one for _, one in earlier)])


def batches_as_learned(
    settings: Settings, tables: Tables, after: StepId, through: StepId
) -> Iterator[tuple[StepId, InteractionBatch]]:
    """`complete_batches`, with what the stream told the model of their items."""
    batches = complete_batches(tables, after, through)
    return contents.joined(tables, batches, after, through, settings.items.space) if settings.uses_contents else batches


def returning(tables: Tables, generation: Generation) -> tuple[int, ...]:
    """Ids of the batches that were set aside, that `requeue` has asked for since, and that have not come back yet."""
    asked = requeue.requests(tables, generation.number)
    if not asked:
        return ()
    rows = ledger.read(tables, generation.number, after=min(asked))
    tried = Counter(batch_id for row in rows for batch_id in ledger.returned(row))
    return tuple(sorted(batch_id for batch_id, times in asked.items() if times > tried[batch_id]))


def complete_batches(
    tables: Tables, after: StepId | None, through: StepId
) -> Iterator[tuple[StepId, InteractionBatch]]:
    """Batches of the log in order, as `log.batches`; none that the ledger has may be missing.

    A commit of Delta that a full disk or a power failure has left empty is read as one that adds nothing.

    Raises:
        InputError: the log lacks a batch.
    """
    expected = ledger.events(tables, after, through)
    for step, batch in log.batches(tables, after, through):
        expected.pop(step, None)
        yield step, batch
    _refuse_lost(tables, expected)


def refuse_incomplete(tables: Tables, through: StepId) -> None:
    """Refuse a log that lacks a batch up to a step, without reading its rows.

    Raises:
        InputError: see `complete_batches`.
    """
    expected = ledger.events(tables, None, through)
    for step in tables.rows_by_step(INTERACTION_LOG, between(None, through)):
        expected.pop(step, None)
    _refuse_lost(tables, expected)


def _refuse_lost(tables: Tables, expected: Mapping[StepId, int]) -> None:
    """Refuse a log without the batches that the ledger says had so many events."""
    lost = min((step for step, events in expected.items() if events), default=None)
    if lost is not None:
        raise InputError(
            f"table {tables.location(INTERACTION_LOG)} lacks batch {lost}, which has {expected[lost]} events in the "
            f"ledger: a commit of it was damaged or deleted, so restore tables and checkpoint of the same time"
        )


def _newest_snapshot(settings: Settings, last: StepId) -> OnlineModel | None:
    """The newest usable snapshot up to a step; None if there is none.

    A damaged one is passed over, and so is one that holds another step than its name says.
    """
    folder = snapshot_folder(settings.storage.root)
    for step in snapshot.steps(folder, not_after=last):
        path = snapshot.path_for(folder, step)
        try:
            model = snapshot.load(path, settings)
        except snapshot.UnusableSnapshotError as error:
            logger.warning("%s: the model is recovered from an older one, or from the log", error)
            continue
        if model.step == step:
            return model
        logger.warning(
            "%s holds step %s: the model is recovered from what is older, and from the log", path, model.step
        )
    return None


def rebuilt_model(settings: Settings, tables: Tables, begin: StepId) -> OnlineModel:
    """The model that a generation begins with, again: as the ledger says that it was made.

    Args:
        settings: all settings.
        tables: the Delta tables.
        begin: the first step of the generation.
    """
    (row,) = ledger.read(tables, begin.generation, after=begin.batch_id - 1)[:1]
    distributed.refuse_too_long(row.metrics)
    return new_model(settings, tables, begin, Scope.of_decisions(row.decisions))


def new_model(settings: Settings, tables: Tables, begin: StepId, scope: Scope) -> OnlineModel:
    """A model to begin a generation with: trained from what was in the log before, or as an earlier one was.

    Args:
        settings: all settings.
        tables: the Delta tables.
        begin: step of the model: its generation, and the last batch id that the generation does not learn itself.
        scope: what it learns.

    Raises:
        InputError: it is to go back to a batch that its generation does not have.
    """
    if scope.as_of is not None:
        number, batch_id = scope.as_of.generation, scope.as_of.batch_id
        first, last = _first_batch(tables, number), log.last_step(tables, number, MODEL_UPDATES)
        if last is None or not first - 1 <= batch_id <= last.batch_id:
            has = "none" if last is None else f"{max(first - 1, 0)} to {last.batch_id}"
            raise InputError(f"rebuild.as_of_batch: generation {number} has no batch {batch_id}; it has {has}")
        model = recover_model(settings, tables, Generation(number, first, batch_id))
        model.step = begin
        return model
    model = OnlineModel(settings)
    if settings.rebuild.processes > 1 and isinstance(model.learner, NeuralCf):
        model.learner.elsewhere = Processes(tables.spark, settings)
    chosen = scope.of(complete_batches(tables, None, before(begin)))
    batches = with_vectors(catalog_of(settings, tables, begin), chosen)
    logged = tqdm(batches, desc="reading the log", unit=" batches", leave=False, disable=None)
    solved = distributed.Factors.load(settings, begin)
    if solved is None:
        model.rebuild(logged, begin)
    else:
        for step, batch in logged:
            model.absorb(batch, step)
        model.adopt(solved.learner, begin)
    return model


def before(begin: StepId) -> StepId:
    """The last step that can be in the log before a generation begins."""
    return StepId(begin.generation - 1, sys.maxsize)

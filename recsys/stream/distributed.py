"""Trains the factors of the whole log on executors: they read the log, hold its pairs in blocks, and solve these.

    log -> weighed by batch -> ids with their codes -> blocks of users, blocks of items -> half-steps

The driver holds the ids, the factors and a few numbers for each user and item, but no pair. Executors run the code of
the stream: the same rows are weighed, added up and solved in the same order, so the factors have the same bits as those
of a rebuild on one machine, whatever the blocks and however many executors there are (on one kind of processor).
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys import memory
from recsys.config import Settings
from recsys.contracts import BATCH, GENERATION, INTERACTION_LOG, ITEM, USER, StepId
from recsys.errors import ConfigError, InputError
from recsys.model import snapshot
from recsys.model.als.blocks import BlockStart, cut
from recsys.model.als.conjugate_gradient import Work
from recsys.model.als.conjugate_gradient_kernel import Vector
from recsys.model.als.incremental_als import IncrementalAls
from recsys.model.als.selection import Selection
from recsys.model.als.side import SideName
from recsys.model.common.arrays import FloatArray, IntArray
from recsys.model.common.device import one_thread
from recsys.model.interactions.adjacency import RaggedRows
from recsys.model.interactions.decay import SECONDS_PER_DAY
from recsys.model.interactions.history import BYTES_PER_PAIR
from recsys.model.interactions.timeline import DecayTimeline
from recsys.model.snapshot import Snapshot
from recsys.serving import Served
from recsys.serving.arrays import part, prefixed
from recsys.storage import Place, snapshot_folder
from recsys.stream import block_workers as workers
from recsys.stream.block_workers import BLOCK, PLACE, STEP, TIME
from recsys.stream.scope import Scope
from recsys.tables.clean import TOTALS
from recsys.tables.conditions import between, to_column
from recsys.tables.delta import Tables

logger = logging.getLogger(__name__)

# Metric of the ledger: the pairs of a history that no process has in memory.
PAIRS = "rebuild_pairs"
# Rows of the log in a block, at most, but for longer users or items: about 100 MB while a block is made.
ROWS_PER_BLOCK = 2_000_000
# Blocks for each core of the cluster, at least, so that all end together.
_BLOCKS_PER_CORE = 4
# Of solutions that are on their way at once: they pass through the memory of the driver's Java.
_WAVE_BYTES = 1 << 28


def refuse_undistributed(settings: Settings) -> None:
    """Refuse what only a rebuild on one machine can do.

    Raises:
        ConfigError: the message names the key.
    """
    refused = {
        f"model.kind is '{settings.model.kind}', and only the factors of 'als' are solved in blocks": (
            settings.model.kind != "als"
        ),
        "model.forget_after_days forgets batch by batch": settings.model.forget_after_days is not None,
        "items.adapter.enabled trains on the driver": settings.items.path is not None
        and settings.items.adapter.enabled,
    }
    for why in (why for why, found in refused.items() if found):
        raise ConfigError(f"setting 'rebuild.distributed': {why}; set it to false, or change the other one")


def refuse_too_long(figures: Mapping[str, float]) -> None:
    """Refuse to read a history into memory that is too small for it.

    Args:
        figures: Metrics in the ledger of the rebuild that began the generation.

    Raises:
        InputError: the message says what is possible instead.
    """
    needed, there = figures.get(PAIRS, 0) * BYTES_PER_PAIR, memory.most()
    if needed > there:
        raise InputError(
            f"the stream holds its history in memory, and the {figures[PAIRS]:,.0f} pairs of this one take about "
            f"{needed / 1e9:,.0f} GB, of {there / 1e9:,.0f} GB here: start it on a larger machine; batch_score holds "
            "none, and scores with the version that the rebuild has registered"
        )


@dataclass(frozen=True)
class Factors:
    """A model of kind `als` without its history.

    Attributes:
        step: Its step.
        learner: What the stream continues from, once it has read the history.
        version: The model as a registered version carries it: without what users have interacted with, so that it
            folds nobody in.
        pairs: Distinct pairs of user and item that it was trained on.
    """

    step: StepId
    learner: IncrementalAls
    version: Served
    pairs: int

    @property
    def users(self) -> Sequence[str]:
        """Ids in the order of the rows."""
        return self.version.user_ids

    @property
    def items(self) -> Sequence[str]:
        """Ids in the order of the rows."""
        return self.version.item_ids

    def served(self) -> Served:
        """The model as a registered version carries it."""
        return self.version

    def save(self, settings: Settings) -> Place:
        """Save it among the snapshots, and return the file."""
        path = snapshot.factors_path_for(snapshot_folder(settings.storage.root), self.step)
        state = prefixed(self.learner.state(), "learner") | prefixed(self.version.packed(), "version")
        state |= {"pairs": np.array([self.pairs])}
        Snapshot(self.step, state, settings).save(path)
        return path

    @classmethod
    def load(cls, settings: Settings, step: StepId) -> "Factors | None":
        """What was saved for a step; None if there is none that can be used."""
        path = snapshot.factors_path_for(snapshot_folder(settings.storage.root), step)
        if not path.exists():
            return None
        try:
            found = snapshot.read(path, settings)
        except InputError as error:
            logger.warning("%s: the factors are solved again, on this machine", error)
            return None
        if found.step != step:
            return None
        learner = IncrementalAls.from_state(settings, part(found.state, "learner"))
        return cls(step, learner, Served.of_packed(part(found.state, "version")), int(found.state["pairs"][0]))


@one_thread()
def train(settings: Settings, tables: Tables, scope: Scope, through: StepId, step: StepId) -> Factors:
    """Train on the log up to a step.

    Args:
        settings: All settings, with `model.kind: als`.
        tables: The tables; the executors of their session do the work.
        scope: What is left out.
        through: The last step in the log.
        step: Step of the model.

    Raises:
        SolveError: the equations have no finite solution.
        InputError: nothing is left to learn. That an executor lacks this package, or what it requires, is raised by
            Spark, see `explain_failure`.
    """
    with ExitStack() as held:
        weighed = _persisted(_weighed(settings, tables, scope, through), held)
        history, popularity = _timelines(settings, weighed)
        users, items = (_Ids.of(weighed, column) for column in (USER, ITEM))
        if not users.ids:
            raise InputError("rebuild.without_users and rebuild.without_batches leave nothing to learn: shorten them")
        cores = tables.spark.sparkContext.defaultParallelism
        blocks = max(-(-int(users.rows.sum()) // ROWS_PER_BLOCK), _BLOCKS_PER_CORE * cores)
        bounds = {USER: cut(users.rows, blocks), ITEM: cut(items.rows, blocks)}
        coded = _coded(weighed, {USER: users, ITEM: items}, bounds)
        learner = IncrementalAls(settings.model_copy(update={"device": "cpu"}))
        learner.begin(len(users.ids), len(items.ids), int(history.state[1]), step)
        sides = {}
        for own, other in ((USER, ITEM), (ITEM, USER)):
            make = workers.blocking(own, other, bounds[own], history, popularity)
            rows = coded.repartitionByRange(len(bounds[own]) - 1, f"{own}_{BLOCK}")
            made = rows.groupBy(F.col(f"{own}_{BLOCK}").alias(BLOCK)).applyInArrow(make, workers.BLOCKS)
            sides[own] = BlockedRows.of(_persisted(made, held), bounds[own], history.scale, settings.model.history_cap)
        by_user, by_item = sides[USER], sides[ITEM]
        logger.info(
            "%d pairs of %d users and %d items in %d and %d blocks",
            by_user.pairs, len(users.ids), len(items.ids), len(bounds[USER]) - 1, len(bounds[ITEM]) - 1,
        )  # fmt: skip
        learner.refit_rows(by_user.sampled(learner, "user", step), by_item.sampled(learner, "item", step), step)
        # As `folded_in_users` samples long rows.
        folded_in = learner.folded_in(by_user.sampled(learner, "user", StepId(0, 0)))
        arrays = {
            "user_factors": folded_in.numpy(),
            "item_factors": learner.item_factors.numpy().copy(),
            "item_popularity": (by_item.popularity * popularity.scale).astype(np.float32),
            "seen_offsets": np.zeros(len(users.ids) + 1, dtype=np.int64),
            "seen_items": np.zeros(0, dtype=np.int32),
        }
        return Factors(step, learner, Served("als", users.ids, items.ids, arrays), by_user.pairs)


def _weighed(settings: Settings, tables: Tables, scope: Scope, through: StepId) -> DataFrame:
    """Rows of the log as the model learns them, `WEIGHED`."""
    rows = tables.read(INTERACTION_LOG, tables.version(INTERACTION_LOG)).where(to_column(between(None, through)))
    if scope.batches:
        rows = rows.where(~F.col(BATCH).isin(*scope.batches))
    if scope.users:
        rows = rows.where(~F.col(USER).isin(*scope.users))
    # No more than it takes, because it is sent to executors: settings may hold secrets.
    own = Settings(weights=settings.weights, decay=settings.decay, robustness=settings.robustness)
    batches = rows.select(GENERATION, BATCH, *TOTALS).groupBy(GENERATION, BATCH)
    return batches.applyInArrow(workers.weighing(own), workers.WEIGHED)


def _timelines(settings: Settings, weighed: DataFrame) -> tuple[DecayTimeline, DecayTimeline]:
    """The clocks of history and popularity over the batches."""
    found = weighed.groupBy(STEP).agg(F.max(TIME).alias(TIME)).toArrow().sort_by(STEP)
    days = (settings.decay.half_life_days, settings.evaluation.popularity_half_life_days)
    steps, latest = found[STEP].to_numpy(), found[TIME].to_numpy()
    history, popularity = (
        DecayTimeline.of(None if half_life is None else half_life * SECONDS_PER_DAY, steps, latest)
        for half_life in days
    )
    return history, popularity


@dataclass(frozen=True)
class _Ids:
    """Users or items in the order of their first appearance.

    Attributes:
        ids: Ids; the place is the code.
        rows: (ids,) int64 rows of the log that each has.
    """

    ids: list[str]
    rows: IntArray

    @classmethod
    def of(cls, weighed: DataFrame, column: str) -> Self:
        """The ids of a column of `WEIGHED`."""
        first = F.min(F.struct(STEP, PLACE)).alias("first")
        found = weighed.groupBy(column).agg(first, F.count("*").alias("rows")).select(column, "first.*", "rows")
        ordered = found.toArrow().sort_by([(STEP, "ascending"), (PLACE, "ascending")])
        return cls(ordered[column].to_pylist(), ordered["rows"].to_numpy())

    def table(self, column: str, bounds: IntArray) -> pa.Table:
        """Each id with its code, and with the number of its block."""
        codes = np.arange(len(self.ids))
        blocks = np.searchsorted(bounds, codes, side="right") - 1
        return pa.table({column: pa.array(self.ids, pa.string()), f"{column}_code": codes, f"{column}_{BLOCK}": blocks})


def _coded(weighed: DataFrame, ids: dict[str, _Ids], bounds: dict[str, IntArray]) -> DataFrame:
    """The rows with codes in place of ids, and with the numbers of their blocks."""
    for column, own in ids.items():
        codes = weighed.sparkSession.createDataFrame(own.table(column, bounds[column]))
        weighed = weighed.join(codes, column).drop(column).withColumnRenamed(f"{column}_code", column)
    return weighed


def _persisted(frame: DataFrame, held: ExitStack) -> DataFrame:
    """A frame that executors keep until all is done."""
    kept = frame.persist()
    held.callback(kept.unpersist)
    return kept


@dataclass(frozen=True)
class BlockedRows:
    """All rows of a side, whose pairs are with the executors; a `RowsElsewhere`.

    Attributes:
        blocks: Frame of `BLOCKS`, kept by the executors.
        bounds: Of the blocks, see `blocks.cut`.
        lengths, totals, popularity: (rows,) pairs, current sum of |weight|, stored popularity.
        scale: Factor from stored weights to current ones.
        cap: `model.history_cap`.
        phases: (rows,) int64, see `Selection`.
    """

    blocks: DataFrame
    bounds: IntArray
    lengths: IntArray
    totals: FloatArray
    popularity: FloatArray
    scale: float
    cap: int
    phases: IntArray

    @classmethod
    def of(cls, blocks: DataFrame, bounds: IntArray, scale: float, cap: int) -> Self:
        """Have the executors make the blocks."""
        found = blocks.select(BLOCK, "lengths", "totals", "popularity").toArrow().sort_by(BLOCK)
        assert found.num_rows == len(bounds) - 1, "every block has rows"
        joined = {name: b"".join(found[name].to_pylist()) for name in ("lengths", "totals", "popularity")}
        lengths = np.frombuffer(joined["lengths"], np.int64)
        totals, popularity = (np.frombuffer(joined[name], np.float64) for name in ("totals", "popularity"))
        return cls(blocks, bounds, lengths, totals * scale, popularity, scale, cap, np.zeros_like(lengths))

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return int(self.lengths.sum())

    def __len__(self) -> int:
        return len(self.lengths)

    def sampled(self, learner: IncrementalAls, side: SideName, step: StepId) -> Self:
        """The same rows, with the sample of long ones that a learner takes at a step."""
        nothing = RaggedRows(self.lengths, self.lengths, np.zeros(0, np.int32), np.zeros(0, np.float32))
        drawing = learner.sampling(side, step)
        drawn = Selection.of(nothing, np.arange(len(self)), self.totals, self.scale, self.cap, drawing)
        return replace(self, phases=drawn.phases)

    def solve(self, penalties: FloatArray, work: Work, solution: Vector) -> int:
        """See `RowsElsewhere`."""
        context, unfinished = self.blocks.sparkSession.sparkContext, 0
        with ExitStack() as held:
            shared = context.broadcast(work)
            held.callback(shared.destroy)
            for first, last in self._waves(solution[:1].nbytes):
                rows = {number: slice(*self.bounds[number : number + 2]) for number in range(first, last + 1)}
                asked = context.broadcast(
                    {number: BlockStart(self.phases[at], penalties[at], solution[at]) for number, at in rows.items()}
                )
                held.callback(asked.destroy)
                wave = self.blocks.where(F.col(BLOCK).between(first, last))
                solved = wave.mapInArrow(workers.solving(shared, asked, self.scale, self.cap), workers.SOLVED).toArrow()
                assert solved.num_rows == len(rows), "every block is solved once"
                for number, content in zip(solved[BLOCK].to_pylist(), solved["solution"], strict=True):
                    into = solution[rows[number]]
                    into[:] = np.frombuffer(content.as_buffer(), solution.dtype).reshape(into.shape)
                unfinished += sum(solved["unfinished"].to_pylist())
        return unfinished

    def _waves(self, row_bytes: int) -> Iterator[tuple[int, int]]:
        """First and last block of each wave."""
        wave = self.bounds[:-1] * row_bytes // _WAVE_BYTES
        firsts = np.flatnonzero(np.diff(wave, prepend=-1)).tolist()
        yield from zip(firsts, [first - 1 for first in [*firsts[1:], len(wave)]], strict=True)

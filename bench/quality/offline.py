"""Quality by two published protocols, beside simple and known recommenders.

    python -m bench.quality.offline [--ratings FILE] [--data DIR] [--quick]

Protocols: `ncf` (He et al. 2017) leaves out each user's last item and ranks it among 100 random unseen items;
`temporal` learns from the first 80 % of the events and ranks all items for what follows. Every rating is one
event, whatever its value. Settings are chosen by the mean NDCG@10 on parts of what may be learned: the same cut is made
again in it, and again in what that leaves. Ties are misses. Seconds are those of learning with the chosen settings.

FILE is `ratings.dat`, `u.data` or `ratings.csv` of MovieLens; without one MovieLens 100K is downloaded. DIR holds
`movietweetings_142k.parquet`.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from bench.harness import charts
from bench.harness.datasets import Dataset, download_ml100k, read_file, read_movietweetings
from bench.harness.protocols import Events, Figures, Scorer, Split, leave_last_out, measure, split_by_time
from bench.harness.recommenders import FACTORS, implicit_als, incremental_als, item_knn, neural, popularity
from recsys.model.common.device import resolve_device

Learner = Callable[..., Scorer]

PROTOCOLS: dict[str, Callable[[Events], Split]] = {"ncf": partial(leave_last_out, seed=0), "temporal": split_by_time}
TITLES = {"ncf": "last item among 100 random ones", "temporal": "last fifth of the time, all items"}
OURS = "als"
SWEEPS = 16
HALF_LIVES = {"half_life_days": [5.0, 20.0, 60.0, 365.0]}
# One cut asks too few users by time: on MovieLens 100K its choice would be chance.
CUTS = 3

# Published for MovieLens 1M: name, HR@10, NDCG@10, source.
PUBLISHED = {
    "ncf": [
        ("popularity", 0.453, 0.254, "Ferrari Dacrema et al. 2019"),
        ("item-kNN", 0.660, 0.390, "Ferrari Dacrema et al. 2019"),
        ("user-kNN", 0.671, 0.391, "Ferrari Dacrema et al. 2019"),
        ("PureSVD", 0.690, 0.429, "Ferrari Dacrema et al. 2019"),
        ("NeuMF", 0.673, 0.401, "reproduced by Ferrari Dacrema et al. 2019"),
        ("iALS, 64 factors", 0.722, 0.445, "Rendle et al. 2021, with the settings for 192 factors"),
        ("iALS, 192 factors", 0.731, 0.452, "rerun in the examples of irspack"),
    ],
    "temporal": [
        ("SLIM", 0.694, 0.271, "RePlay, only ratings of 3 and more: other events, so near but not the same"),
        ("item-kNN", 0.649, 0.258, "RePlay, as above"),
        ("implicit ALS of MLlib, 8 factors", 0.681, 0.253, "RePlay, as above"),
        ("popularity", 0.645, 0.244, "RePlay, as above"),
        ("NeuMF, tuned", 0.665, 0.239, "RePlay, as above"),
    ],
}
# Rendle et al. 2021 for MovieLens 1M: unobserved pairs weigh 0.3, so observed ones 1 / 0.3 in our terms.
PUBLISHED_SETTINGS = {"alpha": 1 / 0.3, "regularization": 0.007, "rebuild_sweeps": 12}


@dataclass(frozen=True)
class Method:
    """A recommender that is measured.

    Attributes:
        name: for people.
        learn: makes it from events and one entry of `grid`.
        grid: settings to choose from; with one entry there is nothing to choose.
        key: as it stands in the names of figures; empty: only in the table.
    """

    name: str
    learn: Learner
    grid: Sequence[dict[str, Any]] = field(default_factory=lambda: [{}])
    key: str = ""


@dataclass(frozen=True)
class Result:
    """What a method reached, with which settings, and the seconds it took to learn with them."""

    method: Method
    figures: Figures
    settings: dict[str, Any]
    seconds: float


def grid(**values: Sequence[float]) -> list[dict[str, Any]]:
    """Every combination of the values."""
    return [dict(zip(values, choice, strict=True)) for choice in product(*values.values())]


def methods(quick: bool, larger: bool) -> list[Method]:
    """All methods, those that are tuned with grids of about one size; `larger`: also the best published one."""
    if quick:
        neighbors = grid(neighbors=[50, 100, 200], shrink=[0.0, 20.0, 100.0])
        theirs = grid(alpha=[1.0, 5.0, 20.0], regularization=[1.0, 10.0, 50.0], iterations=[SWEEPS])
        ours = grid(alpha=[1.0, 5.0, 20.0], regularization=[0.003, 0.01, 0.03], rebuild_sweeps=[SWEEPS])
        ageing = grid(alpha=[5.0, 20.0], regularization=[0.02], rebuild_sweeps=[SWEEPS], **HALF_LIVES)
        taught = grid(alpha=[5.0], regularization=[0.01], rebuild_sweeps=[SWEEPS])
    else:
        neighbors = grid(neighbors=[50, 150, 400, 1000], shrink=[0.0, 10.0, 100.0, 1000.0])
        alphas = [1.0, 3.0, 10.0, 30.0]
        theirs = grid(alpha=alphas, regularization=[1.0, 10.0, 30.0, 100.0, 300.0], iterations=[SWEEPS])
        ours = grid(alpha=alphas, regularization=[0.003, 0.01, 0.03, 0.1], rebuild_sweeps=[SWEEPS])
        ageing = grid(alpha=[3.0, 20.0], regularization=[0.01, 0.03], rebuild_sweeps=[SWEEPS], **HALF_LIVES)
        taught = grid(alpha=[3.0, 10.0], regularization=[0.01, 0.03], rebuild_sweeps=[SWEEPS])
    chosen = [
        Method("popularity", popularity, key="popularity"),
        Method("popularity, ageing", popularity, grid(**HALF_LIVES), key="popularity_ageing"),
        Method("item-kNN, tuned", item_knn, neighbors, key="itemknn"),
        Method("implicit, its defaults", implicit_als),
        Method("implicit, tuned", implicit_als, theirs, key="implicit"),
        Method("als, our defaults", incremental_als),
        Method("als, published settings", incremental_als, [PUBLISHED_SETTINGS]),
        Method("als, tuned", incremental_als, ours, key=OURS),
        Method("als, tuned, ageing", incremental_als, ageing, key="als_ageing"),
    ]
    # Each of these takes minutes where the others take seconds, so little is tried.
    chosen.append(Method("neural, tuned", neural, taught, key="neural"))
    if not quick:
        chosen.append(Method("neural, without a teacher", neural, [{"teacher": False}]))
    if larger:
        settings = [{"factors": 192, **PUBLISHED_SETTINGS}]
        chosen.append(Method("als, published settings, 192 factors", incremental_als, settings))
    return chosen


def cuts(cut: Callable[[Events], Split], events: Events, count: int) -> list[Split]:
    """Cut the events, then `count` times what may be learned: the first split is the question, the others are choices.

    Raises:
        ValueError: the events do not suffice.
    """
    splits = [cut(events)]
    for _ in range(count):
        splits.append(cut(splits[-1].train))
    return splits


def run(method: Method, split: Split, choices: Sequence[Split], bar: "tqdm[Any]") -> Result:
    """Choose the settings on some splits, measure on another."""
    settings = method.grid[0]
    if len(method.grid) > 1:
        reached = np.zeros((len(method.grid), len(choices)))
        for (row, candidate), (column, choice) in product(enumerate(method.grid), enumerate(choices)):
            reached[row, column] = measure(choice, method.learn(choice.train, **candidate)).ndcg.mean()
            bar.update()
        settings = method.grid[int(reached.mean(axis=1).argmax())]
    begin = time.perf_counter()
    scorer = method.learn(split.train, **settings)
    spent = time.perf_counter() - begin
    bar.update()
    return Result(method, measure(split, scorer), settings, spent)


def compare(data: Dataset, quick: bool) -> dict[str, list[Result]]:
    """All methods by all protocols, each table printed as it is done."""
    chosen = methods(quick, larger=data.name == "ml1m")
    steps = sum(1 + CUTS * len(method.grid) * (len(method.grid) > 1) for method in chosen)
    results = {}
    for protocol, cut in PROTOCOLS.items():
        try:
            split, *choices = cuts(cut, data.events, CUTS)
        except ValueError as error:
            raise SystemExit(f"{data.title} does not suit the protocol {protocol}: {error}") from error
        with tqdm(total=steps, desc=f"{data.name} {protocol}", unit="model", dynamic_ncols=True) as bar:
            results[protocol] = [run(method, split, choices, bar) for method in chosen]
        print(
            f"\n{data.title}, {TITLES[protocol]}: {len(split.train):,} events learned, {len(split.users):,} users asked"
        )
        print(table(results[protocol]))
        if data.name == "ml1m":
            rows = pd.DataFrame(PUBLISHED[protocol], columns=["published", "HR@10", "NDCG@10", "source"])
            print(f"\n{rows.to_string(index=False, float_format='{:.3f}'.format)}")
    return results


def table(results: Sequence[Result]) -> str:
    """Means over the users; how far our tuned model's NDCG@10 is ahead, with the standard error of that difference."""
    ours = next(result for result in results if result.method.key == OURS)
    rows = []
    for result in results:
        ahead = ours.figures.ndcg - result.figures.ndcg
        error = ahead.std() / len(ahead) ** 0.5
        rows.append(
            {
                "": result.method.name,
                "HR@10": result.figures.hit.mean(),
                "NDCG@10": result.figures.ndcg.mean(),
                "Recall@20": result.figures.recall.mean(),
                "seconds": f"{result.seconds:.2f}",
                "als ahead, NDCG@10": "" if result is ours else f"{ahead.mean():+.4f} ± {error:.4f}",
                "settings": " ".join(f"{name}={value:.4g}" for name, value in result.settings.items()),
            }
        )
    return pd.DataFrame(rows).to_string(index=False, float_format="{:.4f}".format)


def figures_line(results: dict[str, dict[str, list[Result]]]) -> str:
    """The figures that are quoted, by data set, protocol and method."""
    words = []
    for data, by_protocol in results.items():
        for protocol, of_methods in by_protocol.items():
            for result in of_methods:
                if result.method.key:
                    figure = "hr10" if protocol == "ncf" else "ndcg10"
                    values = result.figures.hit if protocol == "ncf" else result.figures.ndcg
                    words.append(f"quality_{data}_{protocol}_{figure}_{result.method.key}={values.mean():.4f}")
    return " ".join(words)


def main() -> None:
    """Compare on all data sets that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", type=Path, metavar="FILE", help="ratings in a format of MovieLens")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of movietweetings_142k.parquet")
    parser.add_argument("--quick", action="store_true", help="small grids")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", default=Path("docs/quality_protocols.png"), help="picture to write"
    )
    arguments = parser.parse_args()
    if importlib.util.find_spec("implicit") is None:
        raise SystemExit("install implicit==0.7.3 for this bench; it brings scipy along")
    datasets = [read_file(arguments.ratings) if arguments.ratings else download_ml100k()]
    if arguments.data:
        datasets.append(read_movietweetings(arguments.data))
    # Some of our code is compiled when it is used first.
    incremental_als(datasets[0].events.part(np.arange(min(2_000, len(datasets[0].events)))))
    results = {data.name: compare(data, arguments.quick) for data in datasets}
    panels = {
        f"{data.title}: {TITLES[protocol]}": {
            result.method.name: (result.figures.hit, result.figures.ndcg, result.figures.recall)
            for result in of_methods
            if result.method.key
        }
        for data in datasets
        for protocol, of_methods in results[data.name].items()
    }
    print(f"\n{charts.grouped_bars(panels, ('HR@10', 'NDCG@10', 'Recall@20'), arguments.plot)}")
    packages = ", ".join(f"{package} {version(package)}" for package in ("implicit", "torch", "numpy"))
    print(f"{packages}; {FACTORS} factors, ours on {resolve_device('auto')}")
    print(figures_line(results))


if __name__ == "__main__":
    main()

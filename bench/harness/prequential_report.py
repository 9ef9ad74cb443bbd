"""What the prequential bench measured: means, ratios, a table and a plot."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bench.harness import charts, curves
from bench.harness import prequential_methods as methods
from bench.harness.prequential_methods import IMPLICIT, MIXTURE, POPULARITY, RETRAINED, STATIC
from recsys.stream.plots import INK, trailing_mean

BEST_POPULARITY = "popularity, best half-life"
# Groups of users by their interactions before the batch, in the order of `recsys.serving.scorers.GROUPS`.
GROUPS = ("cold", "< 20 interactions", ">= 20 interactions")
MEASURES = {"ndcg": "NDCG", "recall": "recall"}
AIMS = {"mixture_vs_best_member": 1.0, "mixture_vs_popularity": 1.05, "mixture_vs_static": 1.5}
COLORS = {POPULARITY: curves.THIRD, STATIC: curves.THEIRS, RETRAINED: "#74a9cf", MIXTURE: curves.OURS}
# The plot shows trailing means over this share of the batches.
BATCHES_PER_MEAN = 12


@dataclass(frozen=True)
class Outcome:
    """What was measured on one stream.

    Attributes:
        title: for people.
        figures: one row per batch, method and group of users: `batch, method, group, users, ndcg, recall`.
        seconds: what a method took to learn a batch, median over those that it did not put by.
        members: the methods that are members of the mixture.
        every: batches from one rebuild to the next.
        half_life_days: the best of the popularities.
        k: length of the lists.
    """

    title: str
    figures: pd.DataFrame
    seconds: dict[str, float]
    members: list[str]
    every: int
    half_life_days: float
    k: int

    @property
    def means(self) -> pd.DataFrame:
        """Means over the batches: index method; columns (measure, group), of which the group `all` comes first."""
        groups = {"all": by_batch(self.figures)} | {
            name: self.figures[self.figures["group"] == name].set_index(["method", "batch"]) for name in GROUPS
        }
        means = {name: rows[list(MEASURES)].groupby("method", sort=False).mean() for name, rows in groups.items()}
        return pd.concat({(title, name): means[name][key] for key, title in MEASURES.items() for name in means}, axis=1)

    @property
    def margins(self) -> pd.DataFrame:
        """NDCG of the mixture and of the member that is best in a group, by group of users, and how far apart they are.

        Means over the batches with such users; the difference has its standard error over these batches.
        """
        rows = {}
        for group, figures in self.figures.groupby("group"):
            ndcg = figures.pivot(index="batch", columns="method", values="ndcg")
            best = str(ndcg[self.members].mean().idxmax())
            apart = ndcg[MIXTURE] - ndcg[best]
            error = float(apart.std() / np.sqrt(len(apart)))
            rows[group] = [ndcg[MIXTURE].mean(), best, ndcg[best].mean(), apart.mean(), error, len(apart)]
        columns = ["mixture", "best member", "its NDCG", "difference", "standard error", "batches"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns).reindex([g for g in GROUPS if g in rows])

    @property
    def ratios(self) -> dict[str, float]:
        """NDCG of the mixture by that of others, named as the aims."""
        ndcg = self.means["NDCG", "all"]
        others = dict(zip(AIMS, (ndcg[self.members].max(), ndcg[POPULARITY], ndcg[STATIC]), strict=True))
        return {name: ndcg[MIXTURE] / other if other else float("inf") for name, other in others.items()}


def by_batch(figures: pd.DataFrame) -> pd.DataFrame:
    """Means over all users of a batch from those over groups: index (method, batch), columns ndcg, recall."""
    measures = list(MEASURES)
    weighted = figures.assign(**{name: figures[name] * figures["users"] for name in measures})
    sums = weighted.groupby(["method", "batch"], sort=False)[["users", *measures]].sum()
    return sums[measures].div(sums["users"], axis=0)


def with_best_popularity(figures: pd.DataFrame, own_half_life: float) -> tuple[pd.DataFrame, float]:
    """Leave, of the popularities, the product's own and the best of all, which may be the same; and its half-life."""
    names = {POPULARITY: own_half_life} | {methods.popularity_of(days): days for days in methods.HALF_LIVES}
    ndcg = by_batch(figures)["ndcg"].groupby("method").mean()
    best = str(ndcg[list(names)].idxmax())
    kept = figures[~figures["method"].isin(names) | (figures["method"] == POPULARITY)]
    added = figures[figures["method"] == best].assign(method=BEST_POPULARITY)
    return pd.concat([kept, added], ignore_index=True), names[best]


def table(outcome: Outcome) -> str:
    """Means over the batches, and the seconds that a batch takes to learn."""
    means = outcome.means
    means = means.rename(columns={title: f"{title}@{outcome.k}" for title in MEASURES.values()}, level=0)
    means["seconds", ""] = pd.Series(outcome.seconds)
    renamed = f"every {outcome.every} batches" if outcome.every > 1 else "every batch"
    labels = {name: f"{name} {renamed}" for name in (RETRAINED, IMPLICIT)}
    labels[BEST_POPULARITY] = f"{BEST_POPULARITY} ({outcome.half_life_days:g} days)"
    order = [MIXTURE, *outcome.members, STATIC, RETRAINED, IMPLICIT, POPULARITY, BEST_POPULARITY]
    formatted = means.loc[order].rename(index=labels).rename_axis(None)
    return formatted.to_string(float_format="{:.4f}".format, na_rep="-")


def table_of_margins(outcome: Outcome) -> str:
    """The mixture beside the best member of each group of users."""
    return outcome.margins.to_string(float_format="{:.4f}".format, na_rep="-")


def picture(outcomes: Sequence[Outcome], path: Path) -> Path:
    """Draw NDCG over the batches, trailing means, a panel for each stream, two in a row; returns the path."""
    columns = min(len(outcomes), 2)
    draws = [partial(_draw, outcome=outcome) for outcome in outcomes]
    return charts.in_rows(draws, path, size=(4.5 * columns + 1, 2.6), columns=columns)


def _draw(axes: Axes, outcome: Outcome) -> None:
    ndcg = by_batch(outcome.figures)["ndcg"]
    for name, color in COLORS.items():
        values = ndcg[name]
        window = max(1, len(values) // BATCHES_PER_MEAN)
        means = trailing_mean(values.to_numpy(np.float64), window)
        axes.plot(values.index, means, color=color, label=name, linewidth=2.0 if name == MIXTURE else 1.4)
    axes.set_title(outcome.title, loc="left", color=INK, fontsize=9, fontweight="bold")
    axes.set_ylabel(f"NDCG@{outcome.k}", color=INK, fontsize=8)
    axes.set_xlabel("batch", color=INK, fontsize=8)
    charts.plain(axes, 8)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))

"""The section about what users were shown and what they clicked, and about the arms of an experiment."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from recsys.config import Settings
from recsys.report import charts, words
from recsys.report.charts import Curve
from recsys.report.layout import MOST_ROWS, ReportPlot, ReportSection, ReportTable
from recsys.report.sources import Sources
from recsys.report.timeline import Array, Timeline
from recsys.stream.arms import DEVIATE

TOPIC = "What was shown"
_COLORS = ("var(--blue)", "var(--orange)", "var(--green)", "var(--purple)", "var(--red)", "var(--gray)")


def shown(sources: Sources, timeline: Timeline, settings: Settings) -> ReportSection:
    """Click-through rates by version and ranking; NDCG and rates by arm."""
    arms = [name for name in settings.experiment.arms if np.isfinite(_ndcg(timeline, settings, name)).any()]
    if not sources.click_rates and not arms:
        return ReportSection(
            TOPIC,
            todo="No event names the list that it answers to: set source.columns.list_id, and let the application send "
            "the list_id of the recommendations back.",
        )
    impressions, clicks = (sum(int(row[name]) for row in sources.click_rates) for name in ("impressions", "clicks"))
    told = [f"{clicks:,} clicks on {impressions:,} items shown ({words.share(clicks / impressions)})"] if clicks else []
    plots, tables = [], []
    if arms:
        means = {name: _mean_ndcg(timeline, settings, name)[0] for name in arms}
        best = max(arms, key=lambda name: -1.0 if math.isnan(means[name]) else means[name])
        told.append(f"arm {best} of {settings.experiment.name} has the highest NDCG, {words.ndcg(means[best])}")
        curves = [
            Curve(name, _COLORS[place % len(_COLORS)], _ndcg(timeline, settings, name))
            for place, name in enumerate(arms)
        ]
        plots.append(ReportPlot(f"NDCG@{settings.recommend.k} by arm", charts.lines(timeline, curves, ".3f", ".2f")))
        head = ("arm", "version", "NDCG", "users", "impressions", "clicks", "click-through rate")
        tables.append(ReportTable("Arms of the experiment", head, list(_of_arms(sources, timeline, settings))))
    if sources.click_rates:
        head = ("version", "ranking", "users", "impressions", "clicks", "rate", "rate if it served everybody")
        rows = sorted(map(_of_ranking, sources.click_rates), key=_newest_first, reverse=True)
        tables.append(ReportTable("Click-through rates, newest version first", head, rows[:MOST_ROWS]))
    return ReportSection(
        TOPIC,
        f"{'; '.join(told) or 'Nothing was clicked yet'}.",
        f"With 95% intervals; rates that fewer than 100 users' worth tell of are left out. NDCG: means of the last "
        f"{timeline.spoken}.",
        plots,
        tables,
    )


def _ndcg(timeline: Timeline, settings: Settings, arm: str) -> Array:
    return timeline.metric(f"experiment/{arm}/ndcg_at_{settings.recommend.k}")


def _of_arms(sources: Sources, timeline: Timeline, settings: Settings) -> Iterator[tuple[str, ...]]:
    rates = {row["arm"]: row for row in sources.arm_rates}
    for name, arm in settings.experiment.arms.items():
        row = rates.get(name, {"users": 0, "impressions": 0, "clicks": 0})
        counts = [f"{row[count]:,}" for count in ("users", "impressions", "clicks")]
        model = arm.model or settings.recommend.model or "champion"
        mean, error = _mean_ndcg(timeline, settings, name)
        ndcg = words.ndcg(mean) if math.isnan(mean) else f"{words.ndcg(mean)} (±{words.ndcg(DEVIATE * error)})"
        yield name, model, ndcg, *counts, _rate(row)


def _mean_ndcg(timeline: Timeline, settings: Settings, arm: str) -> tuple[float, float]:
    """Mean over the last batches that have it, and its standard error: batches are independent, as their events are."""
    names = [f"experiment/{arm}/{name}" for name in (f"ndcg_at_{settings.recommend.k}", "ndcg_lower", "ndcg_upper")]
    had = [row.metrics for row in timeline.rows if all(name in row.metrics for name in names)]
    looked = np.array([[metrics[name] for name in names] for metrics in had[-timeline.window * timeline.size :]])
    if not len(looked):
        return math.nan, math.nan
    errors = (looked[:, 2] - looked[:, 1]) / (2 * DEVIATE)
    return float(looked[:, 0].mean()), math.sqrt(float((errors**2).sum())) / len(looked)


def _of_ranking(row: Mapping[str, Any]) -> tuple[str, ...]:
    counts = [f"{row[name]:,}" for name in ("users", "impressions", "clicks")]
    return row["version"], row["ranking"], *counts, _rate(row), _rate(row, "rate_for_all")


def _rate(row: Mapping[str, Any], name: str = "rate") -> str:
    rate = row.get(name, math.nan)
    if math.isnan(rate):
        return words.share(rate)
    return f"{words.share(rate)} ({words.share(row[f'{name}_lower'])} to {words.share(row[f'{name}_upper'])})"


def _newest_first(row: tuple[str, ...]) -> tuple[Any, ...]:
    name, _, number = row[0].rpartition("/")
    return name, len(number), number, row[1]

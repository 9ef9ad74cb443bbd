"""The sections about the model: its quality, the gate, its members, drift."""

import numpy as np

from recsys.contracts import StepId
from recsys.registry import overview
from recsys.report import charts, words
from recsys.report.charts import Curve, GateLook
from recsys.report.layout import MOST_ROWS, ReportPlot, ReportSection, ReportTable
from recsys.report.sources import Sources
from recsys.report.timeline import Array, Timeline, last_mean
from recsys.words import count

# Name in the metrics, label and color.
_RANKERS = (
    ("model", "live model", "var(--blue)"),
    ("champion", "champion", "var(--green)"),
    ("first", "first, frozen", "var(--orange)"),
    ("popularity", "popularity", "var(--gray)"),
)
_EXPERTS = {
    "reranker": "var(--blue)",
    "repeat": "var(--orange)",
    "als": "var(--green)",
    "cooccurrence": "var(--purple)",
    "sessions": "var(--teal)",
    "ncf": "var(--red)",
    "trend": "var(--gray)",
}
_GROUPS = {"cold": "new users", "warm": "occasional users", "heavy": "frequent users"}
_CLEARLY = 1.1  # A ratio from which on it says more than two numbers.


def quality(timeline: Timeline, k: int) -> ReportSection:
    """NDCG of the rankers over the stream."""
    topic = "Quality over the stream"
    curves = [
        Curve(label, color, timeline.metric(f"{name}/ndcg_at_{k}"), strong=name == "model")
        for name, label, color in _RANKERS
    ]
    model, popularity = (last_mean(curve.values, timeline.window) for curve in (curves[0], curves[-1]))
    if np.isnan(model):
        return ReportSection(
            topic,
            todo=f"No batch has an NDCG@{k}. Set recommend.k to what the stream ran with, or wait for more batches.",
        )
    beside = f", beside {words.ndcg(popularity)} of recent popularity" if np.isfinite(popularity) else ""
    if popularity > 0 and model / popularity >= _CLEARLY:
        beside = f", {model / popularity:.1f} times that of recent popularity"
    return ReportSection(
        topic,
        f"The live model has an NDCG@{k} of {words.ndcg(model)}{beside}.",
        f"Each batch is ranked over the whole catalog before it is learned. Strong lines: means of {timeline.spoken}.",
        [ReportPlot(f"NDCG@{k} by micro-batch", charts.lines(timeline, curves, ".3f", ticks=".2f"))],
    )


def gate(sources: Sources, timeline: Timeline) -> ReportSection:
    """What the gate saw, and the versions."""
    topic = "Gate and versions"
    if isinstance(sources.versions, str):
        return ReportSection(topic, todo=f"{sources.versions}.")
    champion = serving(sources)
    passed = sum(row[5] == "passed" for row in sources.versions)
    serves = "none is champion" if champion is None else f"version {champion[0]} is champion"
    head = ("version", "aliases", "batch", "NDCG", "of champion", "gate", "why")
    assert len(head) == len(overview.HEAD)
    rows = [(*row[:3], *map(_figure, row[3:5]), *row[5:]) for row in sources.versions[:MOST_ROWS]]
    looks = _looks(sources, timeline)
    plots = (
        [ReportPlot("Lead of the version on trial over the champion, NDCG", charts.intervals(timeline, looks))]
        if looks
        else []
    )
    return ReportSection(
        topic,
        f"{passed} of {len(sources.versions)} versions passed the gate; {serves}.",
        "Confidence intervals after each batch of a trial, the tolerance allowed for. Above 0, a version is shown to "
        "be no worse. Green: it passed."
        if looks
        else "",
        plots,
        [ReportTable("Versions, newest first", head, rows)],
    )


def members(timeline: Timeline) -> ReportSection:
    """Which expert of the mixture serves each user group."""
    topic = "Members by user group"
    plots, told = [], []
    for group, label in _GROUPS.items():
        weights = _weights(timeline, group)
        if not weights:
            continue
        known = [*_EXPERTS, *sorted(weights.keys() - _EXPERTS.keys())]
        curves = [Curve(name, _EXPERTS.get(name, "var(--pale)"), weights[name]) for name in known if name in weights]
        best = max(curves, key=lambda curve: charts.last_value(curve.values))
        told.append(f"{label} get the list of {best.name} ({charts.last_value(best.values):.0%})")
        plots.append(ReportPlot(label.capitalize(), charts.areas(timeline, curves)))
    if not plots:
        return ReportSection(topic, todo="The ledger has no weights of members: only model.kind mixture has them.")
    return ReportSection(
        topic,
        f"Most often, {', '.join(told)}.",
        "Probability that a user of the group is served by an expert: the re-ranker, or a member alone.",
        plots,
    )


def drift(timeline: Timeline) -> ReportSection:
    """Surprise, staleness, and what was decided because of drift."""
    topic = "Drift and staleness"
    surprise, user, item = (timeline.metric(name) for name in ("surprise", "user_staleness", "item_staleness"))
    decided = [(row, line) for row in timeline.rows for line in row.decisions if not line.startswith("gate:")]
    marks = sorted({place for row, _ in decided if (place := timeline.position(row.step)) is not None})
    plots, now = [], []
    if np.isfinite(surprise).any():
        curve = Curve("surprise", "var(--blue)", surprise, strong=True)
        title = "Surprise: known pairs scored below a random item"
        plots.append(ReportPlot(title, charts.lines(timeline, [curve], ".1%", ".0%", marks)))
        now.append(f"surprise is at {words.share(last_mean(surprise, timeline.window))}")
    if np.isfinite(user).any() or np.isfinite(item).any():
        curves = [Curve("users", "var(--blue)", user), Curve("items", "var(--orange)", item)]
        title = "Staleness: distance of factors from a full solve"
        plots.append(ReportPlot(title, charts.lines(timeline, curves, ".1%", ".0%", marks)))
        stale = (f"{words.share(last_mean(curve.values, timeline.window))} ({curve.name})" for curve in curves)
        now.append(f"factors are {' and '.join(stale)} from a full solve")
    if not plots:
        return ReportSection(topic, todo="Nothing was measured yet: the first batches have nothing to compare with.")
    rows = [(str(row.step), words.moment(row.ingested_at), line) for row, line in decided[::-1][:MOST_ROWS]]
    table = ReportTable("Decisions, newest first", ("batch", "time", "decision"), rows, folded=True)
    changes = count(len(decided), "decision") if decided else "No decision was needed"
    return ReportSection(
        topic,
        f"{changes}; {', '.join(now)}.",
        "Dashed lines: batches with a decision." if decided else "",
        plots,
        [table] if decided else [],
    )


def serving(sources: Sources) -> tuple[str, ...] | None:
    """The row of the champion; None if there is none, or the registry cannot be read."""
    if isinstance(sources.versions, str):
        return None
    return next((row for row in sources.versions if "champion" in row[1].split(", ")), None)


def _weights(timeline: Timeline, group: str) -> dict[str, Array]:
    """(points,) shares of the experts of a user group; the trends of all half-lives are one."""
    prefix = f"mixture/{group}/"
    weights = dict[str, Array]()
    for name in timeline.names(prefix):
        kind = "trend" if name.startswith("trend_") else name
        share = np.nan_to_num(timeline.metric(f"{prefix}{name}"))
        weights[kind] = weights[kind] + share if kind in weights else share
    return weights


def _looks(sources: Sources, timeline: Timeline) -> list[GateLook]:
    """The looks of the gate at versions on trial; which version it was is known while `trials` has its rows."""
    assert not isinstance(sources.versions, str)
    passed = {row[0] for row in sources.versions if row[5] == "passed"}
    found = []
    for row in timeline.rows:
        position, figures = timeline.position(row.step), row.metrics
        if position is None or not {"gate/estimate", "gate/lower", "gate/upper"} <= figures.keys():
            continue
        version = _on_trial(sources, row.step)
        bounds = (figures["gate/lower"], figures["gate/estimate"], figures["gate/upper"])
        found.append(GateLook(position, str(row.step), version, *bounds, passed=version in passed))
    return found


def _on_trial(sources: Sources, step: StepId) -> str:
    """The newest version that a batch measured: the other one, if any, is that before a champion."""
    numbers = (key.version for key in sources.trials.get(step, ()))
    return max(numbers, key=lambda number: (len(number), number), default="?")


def _figure(text: str) -> str:
    return words.ndcg(float(text)) if text else "–"

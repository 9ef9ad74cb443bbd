"""The sections of the page: each has one message, the plots that show it, and what to do where there is nothing yet."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.registry import overview
from recsys.report import charts, words
from recsys.report.charts import Curve, Interval, Spec
from recsys.report.samples import SampleList
from recsys.report.sources import Sources
from recsys.report.timeline import Timeline, last_mean
from recsys.tables.ledger import is_set_aside

LAST = 10  # Batches that figures of "now" are means of.
_MOST_ROWS = 12
_DAY = 86_400.0
# Name in the metrics, label, color; as in the plots of the stream, with the versions.
_RANKERS = (
    ("model", "live model", "var(--blue)"),
    ("champion", "champion", "var(--green)"),
    ("challenger", "challenger", "var(--purple)"),
    ("first", "first, frozen", "var(--orange)"),
    ("popularity", "popularity", "var(--gray)"),
)
_EXPERTS = {
    "reranker": "var(--blue)",
    "repeat": "var(--orange)",
    "als": "var(--green)",
    "cooccurrence": "var(--purple)",
    "trend": "var(--gray)",
    "ncf": "var(--red)",
}
_GROUPS = {"cold": "new users", "warm": "occasional users", "heavy": "frequent users"}
_STAGES = (
    ("spark_seconds", "read and log", "var(--pale)"),
    ("evaluate_seconds", "evaluate", "var(--orange)"),
    ("learn_seconds", "learn", "var(--blue)"),
)
_SCORING = (("coverage", "var(--blue)"), ("popularity_bias", "var(--orange)"), ("gini", "var(--gray)"))


@dataclass(frozen=True)
class ReportPlot:
    """A plot with its title; the title also tells what is in it to somebody who cannot see it."""

    title: str
    spec: Spec


@dataclass(frozen=True)
class ReportTable:
    """A table of texts; `folded` hides it until it is asked for."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = True


@dataclass(frozen=True)
class ReportSection:
    """A section.

    Attributes:
        topic: What it is about.
        message: What its figures say, in a line.
        note: How to read them.
        plots: Plots; small ones stand beside one another where there is room.
        tables: Tables.
        lists: Sample lists.
        todo: What to run, where there is nothing to show.
    """

    topic: str
    message: str = ""
    note: str = ""
    plots: Sequence[ReportPlot] = ()
    tables: Sequence[ReportTable] = ()
    lists: Sequence[SampleList] = ()
    todo: str = ""


@dataclass(frozen=True)
class Tile:
    """One of the few figures on top."""

    label: str
    value: str
    note: str = field(default="")


def sections(sources: Sources, settings: Settings) -> list[ReportSection]:
    """All sections, in order."""
    timeline, k = Timeline(sources.rows), settings.recommend.k
    from_ledger = [
        quality(timeline, k), gate(sources, timeline), members(timeline), drift(timeline), pace(timeline),
        quarantine(sources, timeline),
    ]  # fmt: skip
    if not len(timeline):
        nothing = "The ledger has no batch yet. Run python jobs/stream_update.py, or python jobs/backfill.py first."
        from_ledger = [ReportSection("Quality", todo=nothing), gate(sources, timeline)]
    return [*from_ledger, exposure(sources), samples(sources)]


def tiles(sources: Sources, settings: Settings) -> list[Tile]:
    """The figures on top."""
    timeline, k = Timeline(sources.rows), settings.recommend.k
    if not len(timeline):
        return []
    model, popularity = (last_mean(timeline.metric(f"{name}/ndcg_at_{k}"), LAST) for name in ("model", "popularity"))
    records, refused = (sum(row.metrics.get(name, 0.0) for row in timeline.rows) for name in ("records", "quarantined"))
    last = timeline.rows[-1]
    seconds = last_mean([row.duration_ms / 1000 for row in timeline.rows], LAST)
    champion = _champion(sources)
    found = [
        Tile(f"NDCG@{k}, live model", words.ndcg(model), f"popularity {words.ndcg(popularity)}"),
        Tile(
            "champion",
            "–" if champion is None else f"version {champion[0]}",
            f"learned through batch {champion[2]}" if champion else "none yet",
        ),
        Tile("last batch", str(last.step), words.moment(last.ingested_at)),
        Tile("events learned", f"{sources.events:,}", f"{sources.batches:,} batches"),
        Tile("a batch takes", words.duration(seconds), f"mean of the last {min(LAST, len(timeline.rows))}"),
        Tile(
            "records refused", words.share(refused / records if records else 0.0), f"{refused:,.0f} of {records:,.0f}"
        ),
    ]
    if sources.runs:
        run = sources.runs[-1]
        found.append(Tile("catalog in lists", words.share(_or_nan(run.coverage)), f"lists of {run.users:,} users"))
    return found


def quality(timeline: Timeline, k: int) -> ReportSection:
    """NDCG of the rankers over the stream."""
    curves = [
        Curve(label, color, timeline.metric(f"{name}/ndcg_at_{k}"), strong=name == "model")
        for name, label, color in _RANKERS
    ]
    topic = "Quality over the stream"
    model, popularity = last_mean(curves[0].values, LAST), last_mean(curves[-1].values, LAST)
    if np.isnan(model):
        return ReportSection(
            topic, todo=f"No batch was evaluated with NDCG@{k} yet: see the settings recommend.k and evaluation."
        )
    against = ""
    if popularity > 0:
        better = model / popularity
        against = (
            f", {better:.1f} times that of popularity"
            if better >= 1.1
            else f" beside {words.ndcg(popularity)} of popularity"
        )
    return ReportSection(
        topic,
        f"The live model ranks with NDCG@{k} {words.ndcg(model)}{against}.",
        "Each batch is ranked before it is learned, over the whole catalog. Strong lines are trailing means. The message "
        f"is about the last {LAST} points.",
        [ReportPlot(f"NDCG@{k} by micro-batch", charts.lines(timeline, [*curves], ".3f"))],
    )


def gate(sources: Sources, timeline: Timeline) -> ReportSection:
    """What the gate saw, and the versions."""
    topic = "Gate and versions"
    if isinstance(sources.versions, str):
        return ReportSection(topic, todo=f"{sources.versions}.")
    promoted = [row for row in sources.versions if row[5] == "passed"]
    champion = _champion(sources)
    serving = "no version is champion" if champion is None else f"version {champion[0]} is champion"
    message = f"{len(promoted)} of {len(sources.versions)} versions passed the gate; {serving}."
    head = ("version", "aliases", "batch", "NDCG", "NDCG of champion", "gate", "why")
    rows = [(*row[:3], *map(_figure, row[3:5]), *row[5:]) for row in sources.versions[:_MOST_ROWS]]
    assert len(head) == len(overview.HEAD)
    looks = _looks(sources, timeline)
    plots = (
        [ReportPlot("Lead of the version on trial over the champion, in NDCG", charts.intervals(timeline, looks))]
        if looks
        else []
    )
    return ReportSection(
        topic,
        message,
        "Bars are confidence intervals after each batch of a trial. Above the line at 0, which includes the tolerance, a "
        "version is shown to be no worse; green ones were promoted."
        if looks
        else "",
        plots,
        [ReportTable("Versions, newest first", head, rows, folded=False)],
    )


def members(timeline: Timeline) -> ReportSection:
    """Which expert of the mixture serves each user group."""
    plots, told = [], []
    for group, label in _GROUPS.items():
        weights: dict[str, np.ndarray] = {}
        for name in timeline.names(f"mixture/{group}/"):
            kind = "trend" if name.startswith("trend_") else name
            weights[kind] = weights.get(kind, 0.0) + np.nan_to_num(timeline.metric(f"mixture/{group}/{name}"))
        if weights:
            known = [*_EXPERTS, *sorted(weights.keys() - _EXPERTS.keys())]
            curves = [
                Curve(name, _EXPERTS.get(name, "var(--pale)"), weights[name]) for name in known if name in weights
            ]
            best = max(curves, key=lambda curve: charts.last_value(curve.values))
            told.append(f"{label} are served by {best.name} ({charts.last_value(best.values):.0%})")
            plots.append(ReportPlot(label[0].upper() + label[1:], charts.areas(timeline, curves)))
    if not plots:
        return ReportSection(
            "Members by user group", todo="No weights of members in the ledger: model.kind is not mixture."
        )
    return ReportSection(
        "Members by user group",
        f"{'; '.join(told)}.".capitalize(),
        "Probability that a user of the group is served by an expert: the re-ranker, or a member alone.",
        plots,
    )


def drift(timeline: Timeline) -> ReportSection:
    """Surprise, staleness, and what was decided because of drift."""
    decided = [
        (str(row.step), words.moment(row.ingested_at), line)
        for row in timeline.rows
        for line in row.decisions
        if not line.startswith("gate:")
    ]
    surprise, user, item = (timeline.metric(name) for name in ("surprise", "user_staleness", "item_staleness"))
    if np.isnan([surprise, user, item]).all():
        return ReportSection(
            "Drift and staleness", todo="Not measured yet: the first batches have nothing to compare with."
        )
    marks = [
        place for row in timeline.rows if any(not line.startswith("gate:") for line in row.decisions)
        if (place := timeline.position(row.step)) is not None
    ]  # fmt: skip
    now = [f"surprise is {words.share(last_mean(surprise, LAST))}"] if np.isfinite(surprise).any() else []
    if np.isfinite(user).any():
        now.append(
            f"factors are {words.share(last_mean(user, LAST))} (users) and {words.share(last_mean(item, LAST))} (items) from a full solve"
        )
    changes = f"{len(decided)} decisions because of drift" if decided else "No concept drift was seen"
    plots = [
        ReportPlot("Surprise: known pairs scored below a random item", charts.lines(timeline, [Curve("surprise", "var(--blue)", surprise, True)], ".1%", marks)),
        ReportPlot("Staleness: distance of factors from a full solve", charts.lines(timeline, [Curve("users", "var(--blue)", user), Curve("items", "var(--orange)", item)], ".1%", marks)),
    ]  # fmt: skip
    table = ReportTable("Decisions, newest first", ("batch", "time", "decision"), decided[::-1][:_MOST_ROWS])
    return ReportSection(
        "Drift and staleness",
        f"{changes}; {', '.join(now)}.",
        "Dashed lines are decisions." if decided else "",
        [
            plot
            for plot, there in zip(plots, (np.isfinite(surprise).any(), np.isfinite(user).any()), strict=True)
            if there
        ],
        [table] if decided else [],
    )


def pace(timeline: Timeline) -> ReportSection:
    """Freshness and throughput."""
    rows = timeline.rows
    whole = sum(row.duration_ms for row in rows) / 1000
    rate = sum(row.events for row in rows) / whole if whole else float("nan")
    fresh = timeline.metric("freshness_p95_seconds")
    p95 = last_mean(fresh, LAST)
    stages = [Curve(label, color, timeline.metric(name)) for name, label, color in _STAGES]
    plots = [ReportPlot("Seconds of a batch by stage", charts.stacks(timeline, stages, ".1f"))]
    age = f"95 % of the events are learned within {words.duration(p95)}"
    note = ""
    if p95 > _DAY:
        age, note = (
            "the events are old ones, as in a replay, so freshness says nothing",
            f"Event to model, 95th percentile: {words.duration(p95)}.",
        )
    elif np.isfinite(fresh).any():
        median = timeline.metric("freshness_p50_seconds")
        curves = [Curve("95 %", "var(--blue)", fresh, True), Curve("median", "var(--gray)", median)]
        plots.append(
            ReportPlot("Seconds from an event to the model that has learned it", charts.lines(timeline, curves, ".1f"))
        )
    return ReportSection(
        "Freshness and throughput", f"{rate:,.0f} events a second while a batch is handled; {age}.", note, plots
    )


def quarantine(sources: Sources, timeline: Timeline) -> ReportSection:
    """Refused records by reason, and alerts."""
    prefix = "quarantined/"
    counts = {
        reason: sum(row.metrics.get(f"{prefix}{reason}", 0.0) for row in timeline.rows)
        for reason in timeline.names(prefix)
    }
    most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_MOST_ROWS]
    records, refused = (sum(row.metrics.get(name, 0.0) for row in timeline.rows) for name in ("records", "quarantined"))
    told = [(str(one.step), words.moment(one.at), one.kind, one.message) for one in sources.alerts[::-1][:_MOST_ROWS]]
    aside = sum(is_set_aside(row) for row in timeline.rows)
    message = (
        f"{refused:,.0f} of {records:,.0f} records were refused"
        if refused
        else f"None of {records:,.0f} records was refused"
    )
    if aside:
        message += f", and {aside} batches could not be learned"
    alerts = [
        ReportTable("Alerts about the feed, newest first", ("batch", "time", "kind", "what to do"), told, folded=False)
    ]
    return ReportSection(
        "Quarantine",
        f"{message}.",
        "A record may break several rules. The table quarantine has the records." if most else "",
        [ReportPlot("Records by reason", charts.bars(most, ",d"))] if most else [],
        alerts if told else [],
    )


def exposure(sources: Sources) -> ReportSection:
    """Coverage and popularity bias of the lists."""
    topic = "Coverage and popularity bias"
    if not sources.runs:
        return ReportSection(topic, todo="No lists were made yet. Run python jobs/batch_score.py.")
    run = sources.runs[-1]
    figures = [(name, color, [_or_nan(getattr(one, name)) for one in sources.runs]) for name, color in _SCORING]
    message = (
        f"The lists hold {words.share(_or_nan(run.coverage))} of the catalog, and a listed item is more popular than "
        f"{words.share(_or_nan(run.popularity_bias))} of it."
    )
    head = ("time", "version", "users", "changed", "short", "coverage", "popularity bias", "Gini", "diversity")
    shown = [(one.coverage, one.popularity_bias, one.gini, one.diversity) for one in sources.runs]
    rows = [
        (words.moment(one.scored_at), one.model_version, f"{one.users:,}", f"{one.changed:,}", f"{one.short_lists:,}", *(words.ndcg(_or_nan(value)) for value in values))
        for one, values in zip(sources.runs, shown, strict=True)
    ]  # fmt: skip
    del figures
    note = (
        "Popularity bias: 50 % would be that of random items. Gini: 0 if all items had equally many places in lists, towards 1 "
        "if few had them all."
    )
    return ReportSection(
        topic,
        message,
        note,
        [],
        [ReportTable("Runs of batch scoring, newest first", head, rows[::-1][:_MOST_ROWS], folded=False)],
    )


def samples(sources: Sources) -> ReportSection:
    """Lists of the champion with its reasons."""
    topic = "Sample lists"
    if isinstance(sources.samples, str):
        return ReportSection(topic, todo=f"{sources.samples}.")
    if not sources.samples:
        return ReportSection(topic, todo="No batch with users was learned yet. Run python jobs/stream_update.py.")
    one = sources.samples[0]
    return ReportSection(
        topic,
        f"What version {one.version} recommends to three users of batch {one.step}.",
        "Chosen by their events in the batch: the fewest, the median and the most. Version and reasons are the champion's own.",
        lists=sources.samples,
    )


def _looks(sources: Sources, timeline: Timeline) -> list[Interval]:
    """The looks of the gate at versions on trial; which version it was is known while `trials` has its rows."""
    passed = (
        {row[0] for row in sources.versions if row[5] == "passed"} if not isinstance(sources.versions, str) else set()
    )
    found = []
    for row in timeline.rows:
        position, figures = timeline.position(row.step), row.metrics
        if position is None or not {"gate/estimate", "gate/lower", "gate/upper"} <= figures.keys():
            continue
        version = _on_trial(sources, row.step)
        bounds = (figures["gate/lower"], figures["gate/estimate"], figures["gate/upper"])
        found.append(Interval(position, str(row.step), version, *bounds, version in passed))
    return found


def _on_trial(sources: Sources, step: StepId) -> str:
    """The version on trial: the newest that was measured, for the other one, if any, is the one before a champion."""
    return max(
        (key.version for key in sources.trials.get(step, ())), key=lambda number: (len(number), number), default="?"
    )


def _champion(sources: Sources) -> tuple[str, ...] | None:
    if isinstance(sources.versions, str):
        return None
    return next((row for row in sources.versions if "champion" in row[1].split(", ")), None)


def _figure(text: str) -> str:
    return words.ndcg(float(text)) if text else "–"


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value

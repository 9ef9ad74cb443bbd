"""The sections about what goes in and comes out: freshness, quarantine, coverage, sample lists."""

import math

import numpy as np

from recsys.report import charts, words
from recsys.report.charts import Curve
from recsys.report.layout import MOST_ROWS, ReportPlot, ReportSection, ReportTable
from recsys.report.sources import Sources
from recsys.report.timeline import Points, Timeline, last_mean
from recsys.tables.ledger import is_set_aside
from recsys.words import count

_DAY = 86_400.0
_STAGES = (
    ("spark_seconds", "read and log", "var(--gray)"),
    ("evaluate_seconds", "evaluate", "var(--orange)"),
    ("learn_seconds", "learn", "var(--blue)"),
)
_SCORING = (
    ("coverage", "coverage", "var(--blue)"),
    ("popularity_bias", "popularity bias", "var(--orange)"),
    ("gini", "Gini", "var(--gray)"),
    ("diversity", "diversity", "var(--green)"),
)


def pace(timeline: Timeline) -> ReportSection:
    """Freshness and throughput."""
    seconds = sum(row.duration_ms for row in timeline.rows) / 1000
    rate = sum(row.events for row in timeline.rows) / seconds if seconds else math.nan
    fresh, median = (timeline.metric(f"freshness_{name}_seconds") for name in ("p95", "p50"))
    late = last_mean(fresh, timeline.window)
    stages = [Curve(label, color, timeline.metric(name)) for name, label, color in _STAGES]
    plots = [ReportPlot("Seconds of a batch, by stage", charts.stacks(timeline, stages, ".1f"))]
    said, note = "", ""
    if late > _DAY:
        note = (
            f"Freshness says nothing here: these are old events ({words.duration(late)}), as in a replay or a backfill."
        )
    elif not math.isnan(late):
        said = f"; 95% of the events are learned within {words.duration(late)}"
        curves = [Curve("95%", "var(--blue)", fresh, strong=True), Curve("median", "var(--gray)", median)]
        title = "Seconds from an event to the model that has learned it"
        plots.append(ReportPlot(title, charts.lines(timeline, curves, ".1f")))
    return ReportSection(
        "Freshness and throughput", f"{rate:,.0f} events a second, while a batch runs{said}.", note, plots
    )


def quarantine(sources: Sources, timeline: Timeline) -> ReportSection:
    """Refused records by reason, and alerts."""
    prefix = "quarantined/"
    counts = {name: timeline.total(f"{prefix}{name}") for name in timeline.names(prefix)}
    most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_ROWS]
    records, refused = timeline.total("records"), timeline.total("quarantined")
    message = f"No record of {records:,.0f} was refused"
    if refused:
        message = f"{refused:,.0f} of {records:,.0f} records were refused ({words.share(refused / records)})"
    aside = sum(is_set_aside(row) for row in timeline.rows)
    if aside:
        message += f"; {count(aside, 'batch', 'batches')} could not be learned"
    if sources.alerts:
        message += f"; {count(len(sources.alerts), 'alert')} about the feed"
    told = [(str(one.step), words.moment(one.at), one.kind, one.message) for one in sources.alerts[::-1][:MOST_ROWS]]
    return ReportSection(
        "Quarantine",
        f"{message}.",
        "A record may break several rules. The table quarantine has the records." if most else "",
        [ReportPlot("Records by reason", charts.bars(most, ",d"))] if most else [],
        [ReportTable("Alerts, newest first", ("batch", "time", "kind", "what to do"), told)] if told else [],
    )


def exposure(sources: Sources) -> ReportSection:
    """Coverage and popularity bias of the lists."""
    topic, runs = "Coverage and popularity bias", sources.runs
    if not runs:
        return ReportSection(topic, todo="No lists were made yet: run python jobs/batch_score.py.")
    # Of an experiment, the plot and the headline show the first arm.
    latest = next(run.arm for run in runs if run.scored_at == runs[-1].scored_at)
    first = [run for run in runs if run.arm in (None, latest)]
    figures, whole = (
        {name: np.array([getattr(run, name) for run in some], dtype=np.float64) for name, _, _ in _SCORING}
        for some in (first, runs)
    )
    times = [words.moment(run.scored_at) for run in runs]
    points, curves = (
        Points(range(1, len(first) + 1), [words.moment(run.scored_at) for run in first]),
        [Curve(label, color, figures[name]) for name, label, color in _SCORING],
    )
    plots = []
    if len(first) > 1:
        plots = [
            ReportPlot("Lists of each run of batch scoring", charts.lines(points, curves, ".1%", ".0%", smooth=False))
        ]
    head = ("time", "version", "arm", "users", "changed", "short", *(label for _, label, _ in _SCORING))
    counts = [[f"{number:,}" for number in (run.users, run.changed, run.short_lists)] for run in runs]
    rows = [
        (at, run.model_version, run.arm or "", *counted, *(words.share(float(whole[name][place])) for name in whole))
        for place, (at, run, counted) in enumerate(zip(times, runs, counts, strict=True))
    ]
    return ReportSection(
        topic,
        f"The lists hold {words.share(float(figures['coverage'][-1]))} of the catalog; a listed item is more popular "
        f"than {words.share(float(figures['popularity_bias'][-1]))} of it.",
        "Popularity bias: random items would have 50%. Gini: 0% if all items had equally many places, towards 100% if "
        "few had them all.",
        plots,
        [ReportTable("Runs of batch scoring, newest first", head, rows[::-1][:MOST_ROWS])],
    )


def samples(sources: Sources) -> ReportSection:
    """Lists of the champion with its reasons."""
    topic, lists = "Sample lists", sources.samples
    if isinstance(lists, str):
        return ReportSection(topic, todo=f"{lists}.")
    if not lists:
        return ReportSection(topic, todo="No batch with users was learned yet: run python jobs/stream_update.py.")
    return ReportSection(
        topic,
        f"What version {lists[0].version} recommends to {count(len(lists), 'user')} of batch {lists[0].step}.",
        "The users with the fewest, the median and the most events in the batch. Below an item: what adds most to its "
        "score, and the user's items behind it, by the version's own code.",
        lists=lists,
    )

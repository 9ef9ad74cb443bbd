"""The page's sections in order, and the few figures on top."""

from collections.abc import Iterable

import numpy as np

from recsys.config import Settings
from recsys.report import data_sections, model_sections, shown_section, words
from recsys.report.layout import ReportSection, Tile
from recsys.report.sources import Sources
from recsys.report.timeline import Timeline, last_mean

_NOTHING = "The ledger has no batch yet: run python jobs/stream_update.py, or python jobs/backfill.py on old events."


def sections(sources: Sources, settings: Settings) -> list[ReportSection]:
    """All sections."""
    timeline = Timeline(sources.rows)
    if len(timeline):
        of_stream = [
            model_sections.quality(timeline, settings.recommend.k),
            model_sections.gate(sources, timeline),
            model_sections.members(timeline),
            model_sections.drift(timeline),
            data_sections.pace(timeline),
            data_sections.quarantine(sources, timeline),
            shown_section.shown(sources, timeline, settings),
        ]
    else:
        of_stream = [ReportSection("Quality over the stream", todo=_NOTHING), model_sections.gate(sources, timeline)]
    return [*of_stream, data_sections.exposure(sources), data_sections.samples(sources)]


def tiles(sources: Sources, settings: Settings) -> list[Tile]:
    """The few figures that matter most."""
    timeline = Timeline(sources.rows)
    if not len(timeline):
        return []
    return [*_of_quality(sources, timeline, settings.recommend.k), *_of_stream(sources, timeline)]


def _of_quality(sources: Sources, timeline: Timeline, k: int) -> Iterable[Tile]:
    model, popularity = (
        last_mean(timeline.metric(f"{name}/ndcg_at_{k}"), timeline.window) for name in ("model", "popularity")
    )
    yield Tile(f"NDCG@{k}", words.ndcg(model), f"popularity {words.ndcg(popularity)}")
    champion = model_sections.serving(sources)
    if champion is not None:
        yield Tile("champion", f"v{champion[0]}", f"learned to batch {champion[2]}")
    if sources.runs:
        last = [run for run in sources.runs if run.scored_at == sources.runs[-1].scored_at]
        coverage = last[0].coverage  # Of an experiment: that of the first arm.
        yield Tile(
            "catalog in lists",
            words.share(np.nan if coverage is None else coverage),
            f"{sum(run.users for run in last):,} users",
        )


def _of_stream(sources: Sources, timeline: Timeline) -> Iterable[Tile]:
    last, records, refused = timeline.rows[-1], timeline.total("records"), timeline.total("quarantined")
    seconds = float(np.median([row.duration_ms / 1000 for row in timeline.rows]))
    yield Tile("last batch", str(last.step), words.moment(last.ingested_at))
    yield Tile("events learned", f"{sources.events:,}", f"{sources.batches:,} batches")
    yield Tile("a batch takes", words.duration(seconds), "median")
    yield Tile("refused", words.share(refused / records if records else np.nan), f"of {records:,.0f} records")

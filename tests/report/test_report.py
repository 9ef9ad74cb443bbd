"""The report of a stream whose ids, reasons and titles are hostile, in a real browser; and of one that has nothing."""

import html
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from deltalake import DeltaTable, write_deltalake

import recsys
from jobs.report import OPTIONS, report
from recsys.cli import BAD_INPUT, DONE, run_job
from recsys.config import Settings
from recsys.contracts import (
    ALERTS,
    EXPOSURES,
    INTERACTION_LOG,
    MODEL_UPDATES,
    SCORING_RUNS,
    TRIALS,
    Alert,
    LedgerRow,
    StepId,
    TrialBatch,
    TrialKey,
)
from recsys.exposure import MIN_USERS
from recsys.registry import decisions, versions
from recsys.registry.client import connect
from recsys.registry.runs import GenerationRun
from recsys.report import charts
from recsys.report.timeline import MOST_POINTS, Timeline, last_mean
from recsys.storage import report_file, table_path
from recsys.tables import alerts, exposures, ledger, scoring_runs, trials
from recsys.tables.delta import Tables
from recsys.tables.scoring_runs import ScoringRun
from tests.registry.served import BY_TEST
from tests.report.browser import visit
from tests.stream.checks import MakeSettings
from tests.test_door import SMALL, history

ATTACK = "</script><script>alert(1)</script><img src=http://127.0.0.1:9/x onerror=alert(2)>"
TITLE = "Tea </script><script>alert(3)</script>"
NOW = datetime(2026, 5, 1, tzinfo=UTC)
EXPERIMENT = {"name": "tea", "arms": {"old": {"share": 0.5}, "new": {"share": 0.5, "model": "models:/teas/2"}}}
BATCHES = 30
LAST = StepId(0, BATCHES - 1)


def row(batch: int, **metrics: float) -> LedgerRow:
    figures = {
        "model/ndcg_at_20": 0.25,
        "popularity/ndcg_at_20": 0.1,
        "champion/ndcg_at_20": 0.19,
        **{
            f"experiment/{arm}/ndcg_{name}": 0.25 + more + (arm == "new") / 100
            for arm in ("old", "new")
            for name, more in (("at_20", 0), ("lower", -0.01), ("upper", 0.01))
        },
        "exposure/impressions": 100.0,
        "records": 110.0,
        "quarantined": 10.0,
        f"quarantined/{ATTACK}": 10.0,
        "mixture/cold/trend_500": 0.5,
        "mixture/cold/trend_2000": 0.3,
        f"mixture/cold/{ATTACK}": 0.2,
        "surprise": 0.1,
        "user_staleness": 0.02,
        "item_staleness": 0.03,
        "spark_seconds": 1.0,
        "evaluate_seconds": 0.5,
        "learn_seconds": 0.5,
        "freshness_p50_seconds": 2.0,
        "freshness_p95_seconds": 3.0,
        **metrics,
    }
    at = NOW + timedelta(minutes=batch)
    return LedgerRow(StepId(0, batch), batch, 100, 10, 20, 2000, at, figures, "1", decisions=(f"halved: {ATTACK}",))


@pytest.fixture
def ran(tmp_path: Path, settings: MakeSettings, empty_registry: Callable[[str], None]) -> Settings:
    """Storage of a stream that has done all there is to see, made without Spark."""
    catalog = tmp_path / "items.csv"
    events = history(600).assign(item_id=lambda frame: ATTACK + frame["item_id"].astype(str))
    items = events["item_id"].unique()
    pd.DataFrame({"item_id": items[1:], "title": TITLE, "text": "a tea"}).to_csv(catalog, index=False)
    made = settings(tmp_path, items={"path": str(catalog)}, mlflow={"model_name": "teas"}, experiment=EXPERIMENT)
    empty_registry(made.storage.root)
    gate = {"gate/estimate": 0.02, "gate/lower": -0.01, "gate/upper": 0.05}
    key = TrialKey("teas", "1", None)
    tables = with_ledger(made, [row(batch, **(gate if batch > 25 else {})) for batch in range(BATCHES)])
    for name, columns in ((TRIALS, trials._COLUMNS), (ALERTS, alerts._COLUMNS), (SCORING_RUNS, scoring_runs._COLUMNS)):
        DeltaTable.create(table_path(made.storage.root, name), columns)
    ndcg = np.array([0.2])
    trial = TrialBatch(key, LAST, [ATTACK], ndcg, None, ndcg, np.array([True]), NOW)
    trials.append(tables, [trial], "test", 1)
    alerts.append(tables, Alert(LAST, "quarantine", ATTACK, 0.6, 0.5, NOW), "test")
    run = ScoringRun(NOW, "teas", "1", 90, 0, 0, 90, 0, 1, 2.0, 0.5, 0.8, 0.7, None)
    for later in range(2):
        scoring_runs.append(tables, replace(run, scored_at=NOW + timedelta(hours=later)))
    log = {
        "generation": 0,
        "batch_id": LAST.batch_id,
        "user_id": ["1", "2", "3"],
        "item_id": items[0],
        "events": [5, 1, 3],
    }
    write_deltalake(table_path(made.storage.root, INTERACTION_LOG), pd.DataFrame(log))
    lists = [f"teas/1:{ranking}:5.000000e-01:{'a' * 16}" for ranking in ("reranker", "trend_500")]
    users = 2 * MIN_USERS
    counted = pa.table(
        {
            "user_id": [f"u{number}" for number in range(users)],
            "list_id": [lists[number % 2] for number in range(users)],
            "impressions": [10] * users,
            "clicks": [1 + number % 2 for number in range(users)],
            "ingested_at": pa.array([NOW] * users, pa.timestamp("us", "UTC")),
            "explored_item": pa.nulls(users, pa.string()),
            **{
                f"{where}_{what}": pa.nulls(users, pa.int64())
                for where in ("explored", "control")
                for what in ("impressions", "clicks")
            },
        }
    )
    write_deltalake(table_path(made.storage.root, EXPOSURES), exposures._rows(counted, LAST))
    client = connect(made)
    opened = GenerationRun.open(client, made, 0, "stream")
    served = recsys.fit(events, SMALL)._model.served()
    version = versions.register(
        client, made, opened.run_id, served, LAST, {"gate.reasons": ATTACK, "gate.verdict": "passed"}
    )
    decisions.promote(client, version, BY_TEST)
    return made


def with_ledger(settings: Settings, rows: list[LedgerRow]) -> Tables:
    """Tables with a ledger."""
    DeltaTable.create(table_path(settings.storage.root, MODEL_UPDATES), ledger._COLUMNS)
    tables = Tables(None, settings.storage)
    if rows:
        ledger.append(tables, rows, "test", rows[-1].step.batch_id)
    return tables


def overrides(settings: Settings) -> list[str]:
    words = [f"storage.root={settings.storage.root}", f"mlflow.model_name={settings.mlflow.model_name}"]
    if settings.experiment.arms:
        words += [
            f"experiment.{name}={yaml.safe_dump(value, default_flow_style=True)}" for name, value in EXPERIMENT.items()
        ]
    return words + ([f"items.path={settings.items.path}"] if settings.items.path else [])


@pytest.mark.process
def test_the_page_in_a_browser(ran: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything is drawn, nothing hostile comes to life, the console is silent, and nothing outside is asked for."""
    page = tmp_path / "page.html"
    assert run_job(report, [*overrides(ran), "--output", str(page)], options=OPTIONS) == DONE
    assert capsys.readouterr().out == f"report: {page}\n"
    text = page.read_text("utf-8")
    assert page.stat().st_size < 1_500_000
    for width in (390, 1120):
        seen = visit(page, tmp_path, width)
        assert (seen.console, seen.requests) == ([], [])
        assert seen.elements["svg"] == text.count('class="plot"') == 10
        # The plots' data, the library and what starts it; no hostile image either.
        assert (seen.elements["script"], seen.elements["img"]) == (3, 0)
    shown = html.unescape(text)
    assert shown.count(f"<li>{TITLE}<small>") > 10
    assert f"because of {TITLE}" in shown
    for words in (
        "NDCG@20 of .250, 2.5 times that of recent popularity",
        "1 of 1 versions passed the gate; version 1 is champion",
        "new users get the list of trend (80%)",
        "30 decisions; surprise is at 10%",
        "50 events a second",
        "95% of the events are learned within 3.0 s",
        "300 of 3,300 records were refused (9.1%); 1 alert about the feed",
        "The lists hold 50% of the catalog",
        "300 clicks on 2,000 items shown (15%); arm new of tea has the highest NDCG, .260",
        "10% (10% to 10%)",
        ".260 (±.007)",
        "recommends to 3 users of batch 0-29",
        "Personal data.",
    ):
        assert words in shown, words
    # The users are told apart by letters.
    assert re.findall(r"<h3>User (\w), (\d) events? in the batch", text) == [("A", "1"), ("B", "3"), ("C", "5")]


@pytest.mark.process
def test_the_browser_sees_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<img src=http://127.0.0.1:9/x.png><script>console.error('no'); throw Error('boom')</script>")
    seen = visit(page, tmp_path)
    assert ["no" in seen.console[0], "boom" in seen.console[1]] == [True, True]
    assert seen.requests == ["http://127.0.0.1:9/x.png"]


@pytest.mark.mlflow
def test_a_stream_that_has_nothing_yet(
    tmp_path: Path, settings: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a ledger there is one line; with an empty one, every section says what to run."""
    made = settings(tmp_path)
    assert run_job(report, overrides(made), options=OPTIONS) == BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is no ledger" in line
    assert "storage.root" in line
    assert not Path(made.storage.root).exists()

    with_ledger(made, [])
    assert run_job(report, overrides(made), options=OPTIONS) == DONE
    text = report_file(made.storage.root).read_text("utf-8")
    todo = re.findall(r'class="todo">([^<]*)', text)
    assert ["jobs/stream_update.py" in line or "jobs/batch_score.py" in line for line in todo] == [True] * 4
    assert "<script>" not in text.replace("<script></script>", "")
    assert "Personal data" not in text

    # The first batch has nothing to be compared with.
    ledger.append(Tables(None, made.storage), [replace(row(0), metrics={"records": 3.0}, decisions=())], "test", 0)
    assert run_job(report, overrides(made), options=OPTIONS) == DONE
    text = report_file(made.storage.root).read_text("utf-8")
    assert "No record of 3 was refused" in text
    assert "No batch has an NDCG@20" in text


def test_a_long_stream_becomes_means_of_consecutive_batches() -> None:
    rows = [replace(row(0), step=StepId(0, batch), metrics={"x": float(batch)}) for batch in range(2 * MOST_POINTS + 1)]
    rows[0] = replace(rows[0], metrics={})
    timeline = Timeline(rows)
    assert (timeline.size, len(timeline)) == (3, 161)
    assert timeline.metric("x")[:2].tolist() == [1.5, 4.0]
    assert timeline.metric("x")[-1] == 480.0
    assert np.isnan(timeline.metric("y")).all()
    assert timeline.steps[-1] == "0-480"
    assert timeline.steps[0] == "0-0 to 0-2"
    assert timeline.position(StepId(0, 5)) == 3
    assert timeline.position(StepId(1, 5)) is None


def test_batches_after_a_rebuild_are_counted_on() -> None:
    """A rebuild as of an earlier batch gives ids a second time; its own row is no batch."""
    again = [replace(row(0), step=StepId(1, batch)) for batch in (1, 2)]
    rebuilt = replace(row(0), step=StepId(1, 0), metrics={"rebuild_seconds": 9.0})
    timeline = Timeline([row(0), row(1), row(2), rebuilt, *again])
    assert timeline.positions == [0, 1, 2, 3, 4]
    assert timeline.steps == ["0-0", "0-1", "0-2", "1-1", "1-2"]


def test_labels_keep_their_order_and_their_distance() -> None:
    assert charts.spread([0.5, 0.1, 0.52], 0.1) == pytest.approx([0.5, 0.1, 0.6])
    assert charts.spread([], 0.1) == []
    assert [charts.whole_step(span) for span in (1, 6, 7, 60, 61, 4_999)] == [1, 1, 2, 10, 20, 1_000]
    assert last_mean([1.0, np.nan, 3.0, 5.0], 2) == 4.0
    assert np.isnan(last_mean([np.nan], 2))

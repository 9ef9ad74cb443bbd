"""Figures of a running stream over HTTP, and the board and the alert rules that use them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families
from pyspark.sql import SparkSession
from pyspark.sql.streaming.listener import StreamingQueryProgress

from recsys.config import Settings, load_settings
from recsys.contracts import StepId
from recsys.errors import InputError
from recsys.stream.job import run_stream
from recsys.stream.metrics import Health, Metrics
from recsys.stream.monitoring import watched
from recsys.tables import ledger
from recsys.tables.delta import Tables
from tests.registry.processes import free_port
from tests.stream.checks import MakeSettings
from tests.stream.test_report import row
from tests.streams import records, write_lines

ROOT = Path(__file__).parents[2]
FILES = 5
SCRAPES = 5_000  # Spark reports a batch some time after its end.

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def scrape(settings: Settings) -> Samples:
    answer = requests.get(f"http://127.0.0.1:{settings.monitoring.port}/metrics", timeout=30)
    assert answer.status_code == 200
    return samples(answer.text)


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def expressions() -> list[str]:
    folder = ROOT / "conf" / "monitoring"
    board = json.loads((folder / "grafana.json").read_text("utf-8"))
    rules = yaml.safe_load((folder / "alerts.yaml").read_text("utf-8"))
    on_board = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    in_rules = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    assert len(on_board) > 10
    assert len(in_rules) > 5
    return on_board + in_rules


def unanswered(found: Samples) -> set[str]:
    """Selectors of the board and the rules that select nothing."""
    selectors = {
        (name, labels) for text in expressions() for name, labels in re.findall(r"\b(recsys_\w+)(\{[^}]*\})?", text)
    }
    assert selectors

    def answered(name: str, labels: str) -> bool:
        wanted = set(re.findall(r'(\w+)="([^"]*)"', labels))
        return any(name == one and wanted <= given for one, given in found)

    return {name + labels for name, labels in selectors if not answered(name, labels)}


@pytest.mark.mlflow
def test_a_stream_exports_all_that_board_and_rules_ask_for(
    spark: SparkSession, ready: MakeSettings, tmp_path: Path
) -> None:
    bad = ["no json", json.dumps({"item_id": "i", "event_type": "what"})]
    for number, batch in enumerate(records(FILES)):
        lines = [json.dumps(record) for record in batch]
        write_lines(tmp_path / "events", number, lines + (lines[:7] + bad if number == 1 else []))
    made = ready(
        tmp_path,
        source={"options": {"maxFilesPerTrigger": "1"}},
        weights={"view": 1, "purchase": 3},
        register={"every_batches": 2},
        gate={"min_users": 10, "confidence": 0.6},
        recommend={"k": 5},
        monitoring={"port": free_port()},
    )
    found: Samples = {}

    def look(stage: str, step: StepId) -> None:
        if (stage, step.batch_id) != ("batch", FILES - 1):
            return
        for _ in range(SCRAPES):
            found.clear()
            found.update(scrape(made))
            if value(found, "recsys_duplicates_total") and value(found, "recsys_state_rows") > 0:
                break
        health = requests.get(f"http://127.0.0.1:{made.monitoring.port}/healthz", timeout=30)
        assert (health.status_code, health.json()["healthy"]) == (200, True)

    run_stream(made, observe=look)
    assert unanswered(found) == set()
    rows = ledger.read(Tables(spark, made.storage), generation=0, after=-1)
    assert value(found, "recsys_events_total") == sum(one.events for one in rows) == FILES * 120
    assert value(found, "recsys_records_total") == FILES * 120 + len(bad)
    assert value(found, "recsys_duplicates_total") == 7
    assert value(found, "recsys_quarantined_records_total") == 2
    assert value(found, "recsys_quarantined_reasons_total", reason="not JSON") == 1
    assert value(found, "recsys_quarantined_reasons_total", reason="missing user_id") == 1
    assert value(found, "recsys_ndcg", ranker="champion") == rows[-1].metrics["champion/ndcg_at_5"]
    assert value(found, "recsys_freshness_seconds", quantile="0.95") == rows[-1].metrics["freshness_p95_seconds"]
    assert value(found, "recsys_stage_seconds_count", stage="learn") == FILES
    assert value(found, "recsys_batch_seconds_count") == FILES - 1, "the last one is not over yet"
    assert value(found, "recsys_mlflow_backlog_rows") == 0
    for one in rows:
        parts = ("spark_seconds", "evaluate_seconds", "learn_seconds")
        assert one.duration_ms >= 1000 * sum(one.metrics[part] for part in parts) - 1

    with pytest.raises(requests.ConnectionError):
        scrape(made)


def test_every_metric_is_described_and_no_other() -> None:
    page = (ROOT / "docs" / "how-to" / "operate.md").read_text("utf-8")
    table = page.partition("\n| metric | kind ")[2].partition("\n\n")[0]
    described = {word for line in table.splitlines()[2:] for word in re.findall(r"`(recsys_\w+)", line.split(" | ")[0])}
    made = Metrics(load_settings()).registry.collect()
    assert described == {one.name + ("_total" if one.type == "counter" else "") for one in made}


def test_a_stream_without_commits_is_unhealthy_unless_nothing_waits() -> None:
    now = [100.0]
    metrics = Metrics(load_settings(overrides=["monitoring.unhealthy_after_seconds=60"]), clock=lambda: now[0])
    metrics.begins()
    now[0] += 61
    assert metrics.health() == Health(since_commit=None, seconds=61, expected=60)
    assert not metrics.health().healthy
    assert metrics.registry.get_sample_value("recsys_healthy") == 0
    metrics.committed(waiting=3)
    assert metrics.health() == Health(since_commit=0, seconds=0, expected=60)
    assert metrics.health().healthy
    assert metrics.registry.get_sample_value("recsys_mlflow_backlog_rows") == 3
    now[0] += 61
    assert not metrics.health().healthy
    metrics.idle()
    assert metrics.health() == Health(since_commit=61, seconds=0, expected=60)


@pytest.mark.mlflow
def test_an_unhealthy_stream_answers_503_and_a_taken_port_is_refused() -> None:
    port = free_port()
    overrides = [f"monitoring.port={port}", "monitoring.unhealthy_after_seconds=1e-9"]
    settings = load_settings(overrides=overrides)
    with watched(settings):
        with pytest.raises(InputError, match=f"monitoring.port {port} .*free port"), watched(settings):
            pass
        answer = requests.get(f"http://127.0.0.1:{port}/healthz", timeout=30)
        assert (answer.status_code, answer.json()["healthy"]) == (503, False)
        assert requests.get(f"http://127.0.0.1:{port}/", timeout=30).status_code == 404


def test_a_ranker_that_was_not_measured_leaves_no_old_value() -> None:
    metrics = Metrics(load_settings())
    measured = row()
    measured.metrics.update({"records": 10.0, "champion/ndcg_at_20": 0.5})
    metrics.report(measured)
    assert metrics.registry.get_sample_value("recsys_ndcg", {"ranker": "champion"}) == 0.5
    del measured.metrics["champion/ndcg_at_20"]
    metrics.report(measured)
    assert metrics.registry.get_sample_value("recsys_ndcg", {"ranker": "champion"}) is None
    assert metrics.registry.get_sample_value("recsys_ndcg", {"ranker": "model"}) == 0.25


def test_what_a_source_says_of_its_backlog_is_passed_on() -> None:
    source: dict[str, Any] = {
        "description": "KafkaV2[Subscribe[events]]",
        "startOffset": None,
        "endOffset": None,
        "latestOffset": None,
        "numInputRows": 4,
        "inputRowsPerSecond": 1.0,
        "processedRowsPerSecond": 1.0,
        "metrics": {"maxOffsetsBehindLatest": "17", "note": "none"},
    }
    reported: dict[str, Any] = {
        "id": "2e784f5d-e63c-4dce-8cfa-f905f08acd13",
        "runId": "1d82bf0a-3dad-437d-847a-b4d70b4f88a8",
        "name": None,
        "timestamp": "2026-03-01T00:00:00.000Z",
        "batchId": 3,
        "batchDuration": 5,
        "numInputRows": 4,
        "inputRowsPerSecond": 1.0,
        "processedRowsPerSecond": 1.0,
        "durationMs": {},
        "eventTime": {},
        "stateOperators": [],
        "sources": [source],
        "sink": {"description": "sink", "numOutputRows": -1, "metrics": {}},
        "observedMetrics": {},
    }
    metrics = Metrics(load_settings())
    metrics.progress(StreamingQueryProgress.fromJson(reported), duplicates=2)
    labels = {"source": "0", "measure": "maxOffsetsBehindLatest"}
    assert metrics.registry.get_sample_value("recsys_source_behind", {"source": "0", "measure": "note"}) is None
    assert metrics.registry.get_sample_value("recsys_source_behind", labels) == 17
    assert metrics.registry.get_sample_value("recsys_duplicates_total") == 2

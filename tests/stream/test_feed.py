"""A feed that turns bad, through the whole stream."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import yaml
from pyspark.sql import SparkSession

from recsys.cli import DONE, TRY_AGAIN, run_job
from recsys.config import Settings
from recsys.contracts import ALERTS, QUARANTINE, Alert, StepId
from recsys.stream.feed import FeedWatch
from recsys.stream.job import open_pipeline, run_stream
from recsys.stream.publish import log_stage
from recsys.stream.watch import StreamWatch
from recsys.tables.delta import Tables
from tests.registry.processes import free_port
from tests.stream.checks import MakeSettings, steps
from tests.streams import records, write_lines


class Told(StreamWatch):
    """Notes the alerts."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def alert(self, alert: Alert) -> None:
        """Note it."""
        self.kinds.append(alert.kind)


def alert_rows(tables: Tables) -> list[tuple[int, str]]:
    return sorted((row.batch_id, row.kind) for row in tables.read(ALERTS).collect())


@pytest.mark.mlflow
def test_a_broken_feed_is_told_once_and_stops_the_stream_if_it_shall(
    spark: SparkSession,
    ready: MakeSettings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = ready(
        tmp_path,
        source={"options": {"maxFilesPerTrigger": "1"}},
        weights={"view": 1, "purchase": 3},
        recommend={"k": 5},
        quarantine={"window_records": 100},
        feed={"stop_on": ["quarantine", "silence"], "max_duplicate_share": 0.4},
        monitoring={"port": free_port()},
    )
    config = tmp_path / "stream.yaml"
    config.write_text(yaml.safe_dump(made.model_dump(mode="json", by_alias=True)))
    tables = Tables(spark, made.storage)
    good = [[json.dumps(record) for record in batch] for batch in records(3)]
    broken = [json.dumps({"item_id": "i1"})] * 120
    for number, lines in enumerate([good[0], broken, broken, good[1], [*good[2], *good[2]]]):
        write_lines(tmp_path / "events", number, lines)

    assert run_job(run_stream, ["--config", str(config)]) == TRY_AGAIN
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "120 of 120 records of batch 0-1 were refused" in line
    assert "quarantine.max_share is 0.5" in line
    assert "start it again" in line
    assert steps(tables) == [(0, 0), (0, 1)], "the batch is complete, and the next one has not begun"
    assert alert_rows(tables) == [(1, "quarantine")]

    page: list[str] = []

    def look(stage: str, step: StepId) -> None:
        if (stage, step.batch_id) == ("batch", 3):
            page.append(requests.get(f"http://127.0.0.1:{made.monitoring.port}/metrics", timeout=30).text)

    def watched_stream(settings: Settings) -> None:
        run_stream(settings, observe=look)

    assert run_job(watched_stream, ["--config", str(config), "feed.stop_on=[]"]) == DONE
    assert 'recsys_alerts_total{kind="quarantine"} 1.0' in page[0]
    assert steps(tables) == [(0, number) for number in range(5)]
    assert tables.count(QUARANTINE) == 240
    told = [(1, "quarantine"), (2, "quarantine"), (4, "duplicates")]
    assert alert_rows(tables) == told
    assert sum("the feed looks broken" in line for line in caplog.messages) == 3

    silent = made.model_copy(update={"feed": made.feed.model_copy(update={"max_silence_seconds": 1e-9})})
    for expected in (["silence"], []):  # The second start finds what the first one has told.
        pipeline = open_pipeline(silent, tables, ThreadPoolExecutor(1), lambda row: None, log_stage)
        watch, stop = Told(), threading.Event()
        feed = FeedWatch(silent, tables, pipeline, 0, watch, stop)
        feed.judge()
        feed.idle()
        feed.idle()
        assert (watch.kinds, stop.is_set()) == (expected, bool(expected))
    assert alert_rows(tables) == sorted([*told, (4, "silence")])

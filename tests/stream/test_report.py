"""The lines that a person sees of a stream."""

from datetime import UTC, datetime

import pytest

from recsys.contracts import LedgerRow, StepId
from recsys.stream.report import StreamReport, batch_line

FIGURES = {
    "quarantined": 0.0,
    "new_users": 2.0,
    "new_items": 3.0,
    "model/ndcg_at_20": 0.25,
    "spark_seconds": 1.0,
    "evaluate_seconds": 0.2,
    "learn_seconds": 0.3,
}


def row(*decisions: str) -> LedgerRow:
    return LedgerRow(
        StepId(0, 7), 1, 1000, 10, 10, 1500, datetime(2026, 3, 1, tzinfo=UTC), FIGURES, None, None, decisions
    )


def test_a_batch_has_one_line_and_one_for_each_decision() -> None:
    assert len(batch_line(row(), k=20).splitlines()) == 1
    first, *decisions = batch_line(row("surprise rose", "effort x2"), k=20).splitlines()
    assert first == batch_line(row(), k=20)
    assert first.startswith("batch    7:   1,000 events  +2 users +3 items | NDCG@20 model 0.250  popularity   –  ")
    assert [line.strip() for line in decisions] == ["surprise rose", "effort x2"]


def test_decisions_are_printed_above_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with StreamReport(k=20) as report:
        report(row("surprise rose"))
    assert "surprise rose" in capsys.readouterr().out
    assert (report.events, report.batches) == (1000, 1)

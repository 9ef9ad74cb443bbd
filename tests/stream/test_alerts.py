"""When a feed is called broken."""

from datetime import UTC, datetime, timedelta

import pytest

from recsys.config import Settings, load_settings
from recsys.contracts import LedgerRow, StepId
from recsys.stream.alerts import batch_alerts, duplicate_alert, silence_alert

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def ledger_rows(*batches: tuple[int, dict[str, int]]) -> list[LedgerRow]:
    """A row per batch: its records, and the refused ones by their only reason."""
    return [
        LedgerRow(
            step=StepId(0, number),
            log_version=1,
            events=0,
            users=0,
            items=0,
            duration_ms=1,
            ingested_at=NOON + timedelta(minutes=number),
            metrics={
                "records": float(records),
                "quarantined": float(sum(reasons.values())),
                **{f"quarantined/{reason}": float(count) for reason, count in reasons.items()},
            },
        )
        for number, (records, reasons) in enumerate(batches)
    ]


def with_window(records: int, *overrides: str) -> Settings:
    return load_settings(overrides=[f"quarantine.window_records={records}", *overrides])


def kinds(rows: list[LedgerRow], settings: Settings) -> list[str]:
    return [alert.kind for alert in batch_alerts(rows, settings)]


def test_an_alert_says_what_is_wrong_and_when():
    rows = ledger_rows((100, {}), (100, {"not JSON": 90, "missing user_id": 5}))
    (alert,) = batch_alerts(rows, with_window(100))
    assert (alert.step, alert.kind, alert.value, alert.limit) == (StepId(0, 1), "quarantine", 0.95, 0.5)
    assert alert.at == NOON + timedelta(minutes=1)
    assert "95 of 100 records of batch 0-1 were refused, mostly for 'not JSON'" in alert.message
    assert "quarantine.max_share is 0.5" in alert.message
    assert "\n" not in alert.message


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([(100, {"not JSON": 100})], ["quarantine"]),
        ([(100, {"not JSON": 50})], []),  # not above
        ([(1, {"not JSON": 1})], ["quarantine"]),  # a feed that begins badly
        ([(1000, {}), (3, {"not JSON": 3})], []),  # a small bad batch among good records
        ([(1000, {"not JSON": 1000}), (100, {})], []),  # a good batch ends it
        ([(100, {}), (400, {"not JSON": 400}), (400, {"not JSON": 400})], ["quarantine"]),
        ([(100, {"not JSON": 100}), (0, {})], []),  # an empty batch
        ([(100, {"unknown event_type": 30})], ["unknown_types"]),
        ([(100, {"unknown event_type": 60})], ["quarantine", "unknown_types"]),
    ],
)
def test_a_share_counts_in_the_batch_and_in_the_window(batches, expected):
    assert kinds(ledger_rows(*batches), with_window(1000)) == expected


def test_batches_beyond_the_window_do_not_count():
    rows = ledger_rows((5000, {}), (60, {"not JSON": 60}), (60, {"not JSON": 60}))
    assert kinds(rows, with_window(120)) == ["quarantine"]
    assert kinds(rows, with_window(121)) == []


def test_a_limit_that_is_null_gives_no_alert():
    rows = ledger_rows((100, {"unknown event_type": 100}))
    assert kinds(rows, with_window(1, "quarantine.max_share=null")) == ["unknown_types"]
    assert kinds(rows, with_window(1, "quarantine.max_unknown_type_share=null")) == ["quarantine"]


def test_the_row_of_a_rebuild_is_no_batch():
    (row,) = ledger_rows((100, {}))
    row.metrics.clear()
    assert batch_alerts([row], with_window(1)) == []


def test_duplicates_are_counted_with_the_records_that_they_repeat():
    rows = ledger_rows((100, {}), (20, {}))
    first, second = (row.step for row in rows)
    settings = with_window(100)
    alert = duplicate_alert(rows, {first: 0, second: 180}, settings)
    assert alert is not None
    assert (alert.kind, alert.value, alert.limit) == ("duplicates", 0.9, 0.5)
    assert "180 of 200 records of batch 0-1 had come before" in alert.message
    assert duplicate_alert(rows, {first: 0, second: 20}, settings) is None
    assert duplicate_alert(rows, {first: 100, second: 30}, with_window(101)) is not None
    assert duplicate_alert(rows, {first: 0, second: 30}, with_window(101)) is None, "among good ones"


def test_a_silence_is_longer_than_expected_or_expected():
    step, since = StepId(0, 3), NOON.timestamp()
    expected = load_settings(overrides=["feed.max_silence_seconds=60"])
    assert silence_alert(step, since, since + 60, expected) is None
    alert = silence_alert(step, since, since + 61, expected)
    assert alert is not None
    assert (alert.step, alert.kind, alert.value, alert.limit) == (step, "silence", 61, 60)
    assert alert.at == NOON + timedelta(seconds=61)
    assert silence_alert(step, since, since + 1e9, load_settings()) is None

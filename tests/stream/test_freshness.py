"""Seconds from an event to the model that has learned it."""

import numpy as np

from recsys.contracts import InteractionBatch
from recsys.stream.freshness import figures


def batch(times: list[float], events: list[int]) -> InteractionBatch:
    ids = [str(number) for number in range(len(times))]
    return InteractionBatch(ids, ids, np.ones(len(times)), np.array(events, np.int64), np.array(times))


def test_every_event_counts_once() -> None:
    few_old = figures(batch([100.0, 190.0, 150.0], [1, 94, 5]), planned_at=195.0, learned_at=200.0)
    assert few_old == {"source_lag_seconds": 5.0, "freshness_p50_seconds": 10.0, "freshness_p95_seconds": 50.0}
    many_old = figures(batch([100.0, 190.0], [60, 40]), planned_at=195.0, learned_at=200.0)
    assert many_old == {"source_lag_seconds": 5.0, "freshness_p50_seconds": 100.0, "freshness_p95_seconds": 100.0}


def test_a_batch_without_events_has_none() -> None:
    assert figures(batch([], []), planned_at=195.0, learned_at=200.0) == {}

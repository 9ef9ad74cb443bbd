"""Old events in a batch decay from their own time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.contracts import TIME_SLOT_SECONDS, InteractionBatch
from recsys.frames import WeighedEvents
from recsys.model.interactions.history import History
from recsys.model.interactions.merge import merge_pairs

DAY = 86_400.0
EVENTS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from([1.0, 2.5, -0.5]), st.integers(0, 60 * 24)),
    min_size=1,
    max_size=20,
)


def batch_of(events: list[tuple[str, str, float, int]]) -> InteractionBatch:
    """(user, item, weight, hour) of each event."""
    events = sorted(events, key=lambda event: event[3])
    users, items, weights, hours = (list(column) for column in zip(*events, strict=True))
    return WeighedEvents.of(users, items, np.array(weights), 1e9 // 3600 * 3600 + 3600.0 * np.array(hours)).batch()


@settings(deadline=None)
@given(EVENTS, st.sampled_from([None, 0.5, 7.0, 365.0]))
def test_a_weight_is_the_sum_of_what_is_left_of_each_event(
    events: list[tuple[str, str, float, int]], half_life: float | None
) -> None:
    merged = merge_pairs(batch_of(events), half_life)
    expected: dict[tuple[str, str], tuple[float, int, int]] = {}
    for user, item in {event[:2] for event in events}:
        own = [event for event in events if event[:2] == (user, item)]
        last = max(hour for *_, hour in own)
        left = [weight * 0.5 ** ((last - hour) / 24 / half_life if half_life else 0) for *_, weight, hour in own]
        expected[user, item] = (sum(left), len(own), last)
    found = zip(merged.user_ids, merged.item_ids, merged.weights, merged.events, merged.times, strict=True)
    assert len(merged) == len(expected)
    for user, item, weight, count, time in found:
        left_over, events_of_pair, last = expected[user, item]
        assert weight == pytest.approx(left_over)
        assert (count, (time - 1e9 // 3600 * 3600) / 3600) == (events_of_pair, last)


def test_a_batch_of_single_rows_is_itself() -> None:
    batch = batch_of([("a", "x", 1.0, 5), ("a", "y", 1.0, 900), ("b", "x", 1.0, 0)])
    assert merge_pairs(batch, 7.0) is batch


def test_events_of_an_hour_are_one_row() -> None:
    start = float(1_700_000_000 // TIME_SLOT_SECONDS * TIME_SLOT_SECONDS)
    times = start + np.array([0.0, 10.0, TIME_SLOT_SECONDS - 1e-6, TIME_SLOT_SECONDS])
    batch = WeighedEvents.of(["a"] * 4, ["x"] * 4, np.ones(4), times).batch()
    assert (batch.events.tolist(), batch.times.tolist()) == ([3, 1], times[2:].tolist())


@settings(deadline=None)
@given(EVENTS, st.integers(1, 5), st.sampled_from([2.0, 30.0]))
def test_a_history_in_one_batch_weighs_what_it_weighs_in_many(
    events: list[tuple[str, str, float, int]], size: int, half_life: float
) -> None:
    """A backfill in bulk, and the same events as they came, are the same history under any half-life."""
    ordered = sorted(events, key=lambda event: event[3])

    def weights(batches: list[InteractionBatch]) -> np.ndarray:
        history = History(half_life)
        history.add_rows(2, 2)
        for batch in batches:
            merged = merge_pairs(batch, half_life)
            users, items = (
                np.array(["abxy".index(one) % 2 for one in ids]) for ids in (merged.user_ids, merged.item_ids)
            )
            history.add(users, items, merged.weights, merged.times)
        pairs = np.zeros((2, 2))
        rows = history.user_rows(np.arange(2))
        pairs[np.repeat(np.arange(2), rows.lengths), rows.others] = rows.weights
        return pairs

    whole = weights([batch_of(ordered)])
    parts = weights([batch_of(ordered[begin : begin + size]) for begin in range(0, len(ordered), size)])
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)

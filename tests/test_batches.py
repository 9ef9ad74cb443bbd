"""Cutting a history by time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.batches import batch_starts, events_per_batch


@pytest.mark.parametrize(
    ("events", "most", "size"),
    [(0, None, 1_000), (100_836, None, 1_009), (50_000_000, None, 500_000), (50_000_000, 200_000, 200_000), (9, 5, 5)],
)
def test_a_batch_is_a_hundredth_of_the_history_within_bounds(events, most, size):
    assert events_per_batch(events, most) == size


def test_batches_of_separate_instants_are_even():
    assert batch_starts(np.arange(10), 5).tolist() == [0, 5]
    assert batch_starts(np.arange(10), 4).tolist() == [0, 4, 7]
    assert batch_starts(np.arange(10), 100).tolist() == [0]


def test_an_empty_history_has_no_batch_and_one_instant_is_one_batch():
    assert batch_starts(np.empty(0), 5).tolist() == []
    assert batch_starts(np.full(1_000, 7.5), 10).tolist() == [0]


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=60),
    st.integers(1, 50),
)
def test_every_batch_holds_whole_instants_and_is_not_much_larger_than_asked_for(pairs, size):
    times, events = (np.array(column) for column in zip(*sorted(pairs), strict=True))
    starts = batch_starts(times, size, events)
    assert starts[0] == 0
    assert (np.diff(starts) > 0).all()
    assert all(times[start] > times[start - 1] for start in starts[1:])
    largest = max(events[times == time].sum() for time in times)
    held = np.add.reduceat(events, starts)
    assert held.sum() == events.sum()
    assert (held < size + largest).all()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), min_size=1, max_size=20), st.integers(1, 12))
def test_counted_instants_are_cut_as_single_events_are(pairs, size):
    times, events = (np.array(column) for column in zip(*sorted(pairs), strict=True))
    single = np.repeat(times, events)
    first = np.cumsum(events) - events
    assert batch_starts(single, size).tolist() == first[batch_starts(times, size, events)].tolist()

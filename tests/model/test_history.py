"""The history: sums, decay, and the same state whichever way it came about."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.history import History, Rows
from tests.model.helpers import DAY

EVENTS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.floats(-5, 5), st.floats(0, 100)), min_size=1, max_size=60
)
Event = tuple[int, int, float, float]


def filled(half_life_days: float | None, batches: list[list[Event]]) -> History:
    history = History(half_life_days)
    history.add_rows(6, 6)
    for events in batches:
        add(history, events)
    return history


def add(history: History, events: list[Event]) -> None:
    table = np.array(events, dtype=np.float64).reshape(-1, 4)
    history.add(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2], table[:, 3] * DAY)


def as_matrix(rows: Rows) -> np.ndarray:
    matrix = np.zeros((len(rows.lengths), 6))
    matrix[np.repeat(np.arange(len(rows.lengths)), rows.lengths), rows.others] = rows.weights
    return matrix


def expected_matrix(half_life_days: float | None, events: list[Event]) -> np.ndarray:
    now = max(day for *_, day in events)
    matrix = np.zeros((6, 6))
    for user, item, weight, day in events:
        matrix[user, item] += weight * (1.0 if half_life_days is None else 0.5 ** ((now - day) / half_life_days))
    return matrix


@given(EVENTS, st.sampled_from([None, 0.05, 3.0]), st.data())
def test_weights_are_the_decayed_sums_in_any_split(
    events: list[Event], half_life_days: float | None, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(events)))
    history = filled(half_life_days, [events[:cut], events[cut:]])
    expected = expected_matrix(half_life_days, events)
    everyone = np.arange(6)
    np.testing.assert_allclose(as_matrix(history.user_rows(everyone)), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(as_matrix(history.item_rows(everyone)), expected.T, rtol=1e-9, atol=1e-12)
    assert len(history) == len({event[:2] for event in events})


def test_a_weight_halves_with_each_half_life() -> None:
    history = filled(10.0, [[(0, 1, 4.0, 0.0)], [(1, 1, 1.0, 20.0)]])
    assert history.user_rows(np.array([0])).weights.tolist() == [1.0]


def test_thousands_of_half_lives_neither_overflow_nor_disturb_recent_weights() -> None:
    history = filled(1.0, [[(0, 0, 1.0, 0.0)], [(1, 1, 1.0, 300.0)], [(2, 2, 3.0, 5000.0)], [(2, 3, 1.0, 5001.0)]])
    weights = as_matrix(history.user_rows(np.arange(6)))
    assert weights[2].tolist() == [0, 0, 1.5, 1.0, 0, 0]
    assert 0 <= weights[0, 0] < 1e-300
    assert np.isfinite(weights).all()
    assert history.by_user.total.values[2] > 0


def test_rebasing_changes_no_weight_by_a_single_bit() -> None:
    start = [(0, 0, 0.1, 0.0), (0, 1, 0.7, 3.3), (1, 0, -2.3, 5.1)]
    before = filled(1.0, [start])
    after = filled(1.0, [start, [(5, 5, 1.0, 300.0)]])
    ratio = after.user_rows(np.array([0, 1])).weights / before.user_rows(np.array([0, 1])).weights
    assert (ratio == ratio[0]).all()


def test_a_row_is_due_once_enough_of_its_weight_is_new() -> None:
    history = filled(None, [[(0, item, 1.0, 0.0) for item in range(5)]])
    assert history.by_user.due(np.array([0]), 0.1).tolist() == [0]
    history.by_user.unsolved.values[:] = 0
    add(history, [(0, 0, 0.5, 1.0)])
    assert history.by_user.due(np.array([0]), 0.1).tolist() == []
    add(history, [(0, 1, 0.1, 1.0)])
    assert history.by_user.due(np.array([0]), 0.1).tolist() == [0]


@given(st.lists(EVENTS, min_size=2, max_size=4), st.sampled_from([None, 0.01, 3.0]))
def test_a_history_from_its_state_goes_on_bit_for_bit(batches: list[list[Event]], half_life_days: float | None) -> None:
    history = filled(half_life_days, batches[:1])
    copy = History.from_state(half_life_days, history.state())
    for events in batches[1:]:
        add(history, events)
        add(copy, events)
    for name, array in history.state().items():
        assert array.tobytes() == copy.state()[name].tobytes(), name
    everyone = np.arange(6)
    for left, right in (
        (history.user_rows(everyone), copy.user_rows(everyone)),
        (history.item_rows(everyone), copy.item_rows(everyone)),
    ):
        assert left.others.tolist() == right.others.tolist()
        assert left.weights.tobytes() == right.weights.tobytes()


def test_an_empty_batch_changes_nothing() -> None:
    history = filled(2.0, [[(0, 0, 1.0, 0.0)], []])
    assert len(history) == 1


@pytest.mark.parametrize("half_life_days", [None, 5.0])
def test_a_long_history_takes_about_fifty_bytes_a_pair(half_life_days: float | None) -> None:
    history = History(half_life_days)
    history.add_rows(2000, 1000)
    generator = np.random.default_rng(0)
    for number in range(20):
        users, items = generator.integers(0, 2000, 10_000), generator.integers(0, 1000, 10_000)
        history.add(users, items, np.ones(10_000), np.full(10_000, number * DAY))
    assert history.nbytes < 70 * len(history)

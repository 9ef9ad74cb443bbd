"""The history: sums, decay, and the same state whichever way it came about."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.interactions.history import History, Rows
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


def expected_sums(half_life_days: float | None, events: list[Event]) -> dict[tuple[int, int], tuple[float, float]]:
    """By pair, in the order of appearance: the decayed sum of its weights, and that of their absolute values."""
    now = max(day for *_, day in events)
    sums: dict[tuple[int, int], tuple[float, float]] = {}
    for user, item, weight, day in events:
        counted = weight * (1.0 if half_life_days is None else 0.5 ** ((now - day) / half_life_days))
        total, absolute = sums.get((user, item), (0.0, 0.0))
        sums[user, item] = (total + counted, absolute + abs(counted))
    return sums


@given(EVENTS, st.sampled_from([None, 0.05, 3.0]), st.data())
def test_weights_are_the_decayed_sums_in_any_split(
    events: list[Event], half_life_days: float | None, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=3)))
    batches = [events[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(events)], strict=True)]
    history = filled(half_life_days, batches)
    sums = expected_sums(half_life_days, events)
    assert len(history) == len(sums)
    for code in range(6):
        of_user, of_item = history.user_rows(np.array([code])), history.item_rows(np.array([code]))
        assert of_user.others.tolist() == [item for user, item in sums if user == code]
        assert of_item.others.tolist() == [user for user, item in sums if item == code]
        for item, weight in zip(of_user.others.tolist(), of_user.weights.tolist(), strict=True):
            expected, absolute = sums[code, item]
            # float32 rounds relative to what was added, of which negative weights may leave little.
            assert weight == pytest.approx(expected, rel=0, abs=1e-5 * absolute + 1e-30)
    everyone = np.arange(6)
    by_user, by_item = as_matrix(history.user_rows(everyone)), as_matrix(history.item_rows(everyone))
    assert (by_user == by_item.T).all()
    for side, stored in ((history.by_user, by_user), (history.by_item, by_item)):
        totals = np.abs(stored).sum(axis=1)
        np.testing.assert_allclose(side.total.values * history.scale, totals, rtol=1e-6, atol=1e-12)


def test_a_weight_halves_with_each_half_life() -> None:
    history = filled(10.0, [[(0, 1, 4.0, 0.0)], [(1, 1, 1.0, 20.0)]])
    assert history.user_rows(np.array([0])).weights.tolist() == [1.0]


def test_thousands_of_half_lives_neither_overflow_nor_disturb_recent_weights() -> None:
    history = filled(1.0, [[(0, 0, 1.0, 0.0)], [(1, 1, 1.0, 300.0)], [(2, 2, 3.0, 5000.0)], [(2, 3, 1.0, 5001.0)]])
    weights = as_matrix(history.user_rows(np.arange(6)))
    assert weights[2].tolist() == [0, 0, 1.5, 1.0, 0, 0]
    assert weights[0, 0] == 0
    assert len(history) == 4
    assert np.isfinite(weights).all()
    assert history.by_user.total.values[2] > 0


def test_rebasing_changes_no_weight_by_a_single_bit() -> None:
    start = [(0, 0, 0.1, 0.0), (0, 1, 0.7, 3.3), (1, 0, -2.3, 5.1)]
    before = filled(1.0, [start])
    after = filled(1.0, [start, [(5, 5, 1.0, 100.0)]])
    stored = [history.by_user.lists.gather(np.array([0, 1]))[2] for history in (before, after)]
    # 94 whole half-lives have passed since the reference, which is the latest time of the first batch.
    assert (np.ldexp(stored[0], -94) == stored[1]).all()
    assert (np.ldexp(before.by_user.total.values[:2], -94) == after.by_user.total.values[:2]).all()
    assert after.scale == pytest.approx(0.5**0.9)


def test_rebasing_again_and_again_keeps_what_still_counts() -> None:
    history = filled(1.0, [[(0, 0, 1.0, day)] for day in range(0, 1000, 50)])
    expected = sum(0.5 ** (950 - day) for day in range(0, 1000, 50))
    assert history.user_rows(np.array([0])).weights == pytest.approx([expected], rel=1e-6)


def test_equal_additions_stop_to_count_only_at_sixteen_million() -> None:
    history = filled(None, [[(0, 0, 2.0**24 - 2, 0.0)]])
    weights = []
    for _ in range(3):
        add(history, [(0, 0, 1.0, 0.0)])
        weights.append(history.item_rows(np.array([0])).weights[0])
    assert weights == [2**24 - 1, 2**24, 2**24]


def test_rows_that_are_not_there_are_refused() -> None:
    history = filled(None, [[(0, 0, 1.0, 0.0)]])
    for rows in (np.array([6]), np.array([-1])):
        with pytest.raises(IndexError):
            history.user_rows(rows)
        with pytest.raises(IndexError):
            history.add(np.array([0]), rows, np.ones(1), np.zeros(1))


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


def test_a_history_takes_less_than_ninety_bytes_a_pair_at_any_length() -> None:
    history = History(None)
    history.add_rows(2000, 1000)
    generator = np.random.default_rng(0)
    sizes = []
    for number in range(40):
        users, items = generator.integers(0, 2000, 10_000), generator.integers(0, 1000, 10_000)
        history.add(users, items, np.ones(10_000), np.full(10_000, number * DAY))
        sizes.append(history.nbytes / len(history))
    assert max(sizes) < 90

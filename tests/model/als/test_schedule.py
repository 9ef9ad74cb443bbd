"""Which rows a batch solves: the most changed within the budget, and every row in its turn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.als.schedule import Turn, most_changed, new_shares

COSTS = st.lists(st.integers(1, 50), min_size=1, max_size=30)


def chosen(shares: list[float], costs: list[int], budget: int) -> list[int]:
    rows = np.arange(len(costs)) + 7
    return (most_changed(rows, np.array(shares), np.array(costs), budget) - 7).tolist()


def test_the_most_changed_rows_go_first_and_fill_the_budget() -> None:
    assert chosen([0.1, 0.5, 0.2, 0.4], [10, 10, 10, 10], budget=25) == [1, 3]


def test_equal_changes_go_by_their_code() -> None:
    assert chosen([0.5, 0.5, 0.5], [10, 10, 10], budget=20) == [0, 1]


def test_rows_that_never_were_solved_are_not_kept_waiting() -> None:
    assert chosen([1.0, 1.0, 0.9], [30, 30, 1], budget=5) == [0, 1]


def test_a_row_beyond_the_budget_does_not_stand_in_the_way_of_others() -> None:
    assert chosen([0.9, 0.1], [100, 10], budget=20) == [1]


@given(COSTS, st.integers(1, 40))
def test_nothing_waits_longer_than_the_stated_bound(costs: list[int], granted: int) -> None:
    turn, table = Turn(), np.array(costs)
    last, spent = np.zeros(len(costs), dtype=int), 0
    # A whole turn is granted what it costs; besides, a long row may have to wait until the credit suffices.
    bound = -(-(int(table.sum()) + int(table.max())) // granted) + 1
    for batch in range(1, 4 * bound):
        rows = turn.take(table, granted)
        assert len(np.unique(rows)) == len(rows)
        assert (batch - last).max() <= bound
        last[rows] = batch
        spent += int(table[rows].sum())
        assert spent <= granted * batch


def test_turns_go_on_where_they_stopped_when_rows_are_added() -> None:
    turn = Turn()
    assert turn.take(np.array([1, 1, 1]), 2).tolist() == [0, 1]
    assert turn.take(np.array([1, 1, 1, 1]), 3).tolist() == [2, 3, 0]
    assert turn.take(np.zeros(0, dtype=np.int64), 3).tolist() == []


def test_no_credit_is_saved_up_when_all_rows_are_solved() -> None:
    turn = Turn()
    assert turn.take(np.array([2, 3]), 100).tolist() == [0, 1]
    assert turn.credit == 0


@pytest.mark.parametrize("granted", [1, 3])
def test_a_long_row_is_waited_for(granted: int) -> None:
    turn, table = Turn(), np.array([1, 9, 1])
    order = [int(row) for _ in range(40) for row in turn.take(table, granted)]
    assert order[:4] == [0, 1, 2, 0]


def test_the_share_that_is_new_is_all_of_a_row_without_weight():
    assert new_shares(np.array([1.0, 0.0, 0.0]), np.array([4.0, 2.0, 0.0])).tolist() == [0.25, 0, 1]

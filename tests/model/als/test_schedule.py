"""Which rows a batch solves: those with the most to gain within the budget, and every row in its turn."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.als.schedule import Turn, expected_gains, most_promising
from recsys.model.common.arrays import FloatArray, IntArray

COSTS = st.lists(st.integers(1, 50), min_size=1, max_size=30)


def rank_correlation(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    ranks = [np.argsort(np.argsort(values, kind="stable")) for values in (left, right)]
    return float(np.corrcoef(*ranks)[0, 1])


def chosen(gains: list[float], costs: list[int], budget: int) -> list[int]:
    rows = np.arange(len(costs)) + 7
    return (most_promising(rows, np.array(gains), np.array(costs), budget) - 7).tolist()


def test_the_rows_with_the_most_to_gain_go_first_and_fill_the_budget() -> None:
    assert chosen([0.1, 5.0, 0.2, 4.0], [10, 10, 10, 10], budget=25) == [1, 3]


def test_equal_gains_go_by_their_code() -> None:
    assert chosen([0.5, 0.5, 0.5], [10, 10, 10], budget=20) == [0, 1]


def test_rows_that_never_were_solved_are_not_kept_waiting() -> None:
    assert chosen([np.inf, np.inf, 0.9], [30, 30, 1], budget=5) == [0, 1]


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


def test_a_row_never_solved_or_without_weight_has_everything_to_gain() -> None:
    assert expected_gains(np.array([1.0, 0.0, 0.0, 3.0]), np.array([4.0, 2.0, 0.0, 3.0])).tolist() == [
        0.25,
        0,
        np.inf,
        np.inf,
    ]


def test_the_order_of_the_expected_gains_is_that_of_what_solving_takes_off_the_loss() -> None:
    """Rows of 10 to 400 alike pairs, solved before some more came: the loss of each before and after, written out."""
    generator, factors = np.random.default_rng(0), 8
    others = generator.normal(size=(500, factors)) * 0.3
    gram, alpha, regularization = others.T @ others, 4.0, 0.003
    old, new, gains = np.repeat([10, 40, 100, 400], 12), np.tile([1, 2, 4, 8], 12), list[float]()

    def equations(pairs: IntArray) -> tuple[FloatArray, FloatArray]:
        near, penalty = others[pairs], regularization * (alpha * len(pairs) + len(others))
        return gram + alpha * near.T @ near + penalty * np.eye(factors), alpha * near.sum(axis=0)

    for known, arrived in zip(old, new, strict=True):
        pairs = generator.permutation(500)[: known + arrived]
        before = np.linalg.solve(*equations(pairs[:known]))
        matrix, target = equations(pairs)
        error = before - np.linalg.solve(matrix, target)
        gains.append(float(error @ matrix @ error))
    expected = expected_gains(new.astype(np.float64), (old + new).astype(np.float64))
    assert rank_correlation(gains, expected) > 0.8
    # Neither the share of a row that is new nor what it has received tells as much.
    assert rank_correlation(gains, expected) > rank_correlation(gains, new / (old + new)) + 0.1
    assert rank_correlation(gains, expected) > rank_correlation(gains, new) + 0.1

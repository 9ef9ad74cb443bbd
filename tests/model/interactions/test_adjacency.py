"""The adjacency lists do what plain lists would."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.interactions.adjacency import AdjacencyLists

Entries = list[tuple[int, float]]


def append(lists: AdjacencyLists, plain: list[Entries], rows: list[int], start: int) -> None:
    """Append the numbers from `start` on, each with its half as the weight, to lists and plain lists alike."""
    others = np.arange(start, start + len(rows))
    ordinals = lists.append(np.array(rows, dtype=np.int64), others, (others / 2).astype(np.float32))
    expected = []
    for row, other in zip(rows, others.tolist(), strict=True):
        expected.append(len(plain[row]))
        plain[row].append((other, other / 2))
    assert ordinals.tolist() == expected


def assert_equal(lists: AdjacencyLists, plain: list[Entries]) -> None:
    assert lists.lengths.tolist() == [len(entries) for entries in plain]
    view = lists.view()
    for row, entries in enumerate(plain):
        own = slice(view.starts[row], view.starts[row] + view.lengths[row])
        assert list(zip(view.others[own].tolist(), view.weights[own].tolist(), strict=True)) == entries


@given(st.lists(st.lists(st.integers(0, 9), max_size=60), max_size=12))
def test_lists_equal_plain_lists(batches: list[list[int]]) -> None:
    lists, plain = AdjacencyLists(), [list[tuple[int, float]]() for _ in range(10)]
    lists.add_rows(10)
    for number, rows in enumerate(batches):
        append(lists, plain, rows, start=100 * number)
        assert_equal(lists, plain)
        wanted = np.array([3, 0, 9, 3])
        lengths, others, weights = lists.gather(wanted)
        assert lengths.tolist() == [len(plain[row]) for row in wanted]
        assert list(zip(others.tolist(), weights.tolist(), strict=True)) == [e for row in wanted for e in plain[row]]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.floats(-4, 4, width=32)), max_size=40))
def test_amounts_add_up_in_the_order_they_come(events: list[tuple[int, int, float]]) -> None:
    lists, plain = AdjacencyLists(), np.zeros((3, 4), dtype=np.float32)
    lists.add_rows(3)
    lists.append(np.repeat([0, 1, 2], 4), np.tile(np.arange(4), 3), np.zeros(12, dtype=np.float32))
    rows, ordinals = (np.array([event[place] for event in events], dtype=np.int64) for place in (0, 1))
    amounts = np.array([amount for *_, amount in events], dtype=np.float32)
    grown = []
    for row, ordinal, amount in zip(rows, ordinals, amounts, strict=True):
        before = abs(float(plain[row, ordinal]))
        plain[row, ordinal] += amount
        grown.append(abs(float(plain[row, ordinal])) - before)
    assert lists.add_weights(rows, ordinals.astype(np.int32), amounts).tolist() == grown
    assert lists.weights_at(rows, ordinals.astype(np.int32)).tolist() == plain[rows, ordinals].tolist()


def test_scaling_divides_by_a_power_of_two() -> None:
    lists = AdjacencyLists()
    lists.add_rows(1)
    weights = np.array([3.0, -0.1, 2.0**100], dtype=np.float32)
    lists.append(np.zeros(3, dtype=np.int64), np.arange(3), weights)
    lists.scale(20)
    assert lists.view().weights[:3].tolist() == np.ldexp(weights, -20).tolist()
    lists.scale(10**9)
    assert not lists.view().weights[:3].any()


def test_content_and_memory_survive_thousands_of_moves() -> None:
    lists, plain = AdjacencyLists(), [list[tuple[int, float]]() for _ in range(500)]
    lists.add_rows(500)
    generator = np.random.default_rng(0)
    for number in range(200):
        append(lists, plain, np.minimum(generator.zipf(1.2, 1000) - 1, 499).tolist(), start=1000 * number)
        # 8 bytes an entry; as much again spare in a row, and half of all that spare at the end of the pool.
        assert lists.nbytes < 3 * 8 * 1000 * (number + 1) + 500 * 3 * 8 + 1000 * 3 * 8
    assert_equal(lists, plain)


def test_rows_that_are_not_there_are_refused() -> None:
    lists = AdjacencyLists()
    lists.add_rows(2)
    for rows in (np.array([0, 2]), np.array([-1])):
        with pytest.raises(IndexError, match="of 2"):
            lists.gather(rows)
        with pytest.raises(IndexError, match="of 2"):
            lists.append(rows, rows, rows.astype(np.float32))

"""The adjacency lists add to weights as plain arrays would."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.interactions.adjacency import AdjacencyLists


def test_what_is_appended_is_seen_in_place_and_in_copies() -> None:
    lists = AdjacencyLists()
    lists.add_rows(3)
    rows, others, weights = np.array([2, 0, 2]), np.array([7, 8, 9]), np.array([0.5, 1.5, -2.0], dtype=np.float32)
    assert lists.append(rows, others, weights).tolist() == [0, 0, 1]
    assert lists.lengths.tolist() == [1, 0, 2]
    lengths, found, found_weights = lists.gather(np.array([2, 1, 0]))
    assert (lengths.tolist(), found.tolist(), found_weights.tolist()) == ([2, 0, 1], [7, 9, 8], [0.5, -2.0, 1.5])
    view = lists.view()
    places = slice(view.starts[2], view.starts[2] + view.lengths[2])
    assert (view.others[places].tolist(), view.weights[places].tolist()) == ([7, 9], [0.5, -2.0])
    assert (view.others.dtype, view.weights.dtype) == (np.int32, np.float32)


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

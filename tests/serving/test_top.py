"""The largest of many numbers, against a full sort."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.serving.top import contenders, largest


@given(st.lists(st.integers(-3, 3), max_size=40), st.data())
def test_the_largest_are_those_of_a_full_sort(values: list[int], data: st.DataObject) -> None:
    numbers = np.array(values, dtype=np.float32)
    count = data.draw(st.integers(0, len(values)))
    places = largest(numbers, count)
    assert len(set(places.tolist())) == count
    assert sorted(numbers[places].tolist()) == sorted(values)[len(values) - count :]


@given(st.integers(1, 90), st.data(), st.integers(0, 1_000))
def test_contenders_hold_all_that_a_list_may_need(items: int, data: st.DataObject, seed: int) -> None:
    draw = np.random.default_rng(seed)
    scores = draw.integers(-2, 3, (5, items)).astype(np.float32)
    scores[draw.random(scores.shape) < 0.3] = -np.inf
    k = data.draw(st.integers(1, items))
    rows, columns = contenders(scores, k)
    for row in range(5):
        kept = set(columns[rows == row].tolist())
        finite = [item for item in range(items) if np.isfinite(scores[row, item])]
        edge = sorted((scores[row, item] for item in finite), reverse=True)[: min(k, len(finite))]
        assert kept <= set(finite)
        assert {item for item in finite if scores[row, item] >= edge[-1]} <= kept if edge else not kept

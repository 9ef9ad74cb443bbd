"""The largest of many numbers, against a full sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.serving.top import best_of_rows, contenders, largest


@pytest.mark.parametrize("items", [1, 7, 300, 4001])
def test_the_best_of_each_row_are_those_of_a_full_sort(items: int) -> None:
    scores = np.random.default_rng(items).standard_normal((5, items)).astype(np.float32)
    counts = np.array([0, 1, 5, 30, 30])
    found = best_of_rows(scores, counts, 30)
    expected = {
        (row, int(item)): rank + 1
        for row in range(5)
        for rank, item in enumerate(np.argsort(-scores[row])[: counts[row]])
    }
    owned = zip(found.owners.tolist(), found.items.tolist(), strict=True)
    assert dict(zip(owned, found.values.tolist(), strict=True)) == expected


@given(st.lists(st.integers(-3, 3), max_size=40), st.data())
def test_the_largest_are_those_of_a_full_sort(values: list[int], data: st.DataObject) -> None:
    numbers = np.array(values, dtype=np.float32)
    count = data.draw(st.integers(0, len(values)))
    places = largest(numbers, count)
    assert len(set(places.tolist())) == count
    assert sorted(numbers[places].tolist()) == sorted(values)[len(values) - count :]


@given(st.integers(1, 90), st.integers(1, 12), st.integers(0, 1_000))
def test_ties_of_rows_have_the_scores_of_a_full_sort(items: int, most: int, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(-2, 3, (6, items)).astype(np.float32)
    counts = np.minimum(np.arange(6), min(most, items))
    found = best_of_rows(scores, counts, most)
    for row in range(6):
        own = found.owners == row
        assert sorted(found.values[own].tolist()) == list(range(1, counts[row] + 1)), "every rank once"
        by_rank = found.items[own][np.argsort(found.values[own])]
        assert scores[row, by_rank].tolist() == sorted(scores[row].tolist(), reverse=True)[: counts[row]]


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

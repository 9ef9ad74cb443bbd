"""Likeness of items by their vectors, against plain cosines; and how vectors are coded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from recsys.serving.arrays import Lists
from recsys.serving.content import ContentScorer, coded

LATEST = 4


def arrays_of(seed: int, users: int, items: int, dimensions: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    vectors = coded(draw.normal(size=(items, dimensions)) + 0.7)
    vectors[draw.random(items) < 0.2] = 0
    return {
        "recent": draw.integers(0, items + 1, (users, LATEST)).astype(np.int32),
        "vectors": vectors,
        "total": vectors.sum(axis=0, dtype=np.int64),
        "described": np.array([vectors.any(axis=1).sum()]),
    }


def plain(arrays: dict[str, np.ndarray], row: int, item: int) -> tuple[float, float]:
    """3 times the cosine to the mean of the directions of the latest items, and twice the largest cosine."""
    centered = arrays["vectors"] - arrays["total"] / max(arrays["described"][0], 1)
    # A vector that is the center has no direction.
    has = arrays["vectors"].any(axis=1) & (np.linalg.norm(centered, axis=1) > 1e-6)
    if not has[item] or not 0 <= row < len(arrays["recent"]):
        return 0.0, 0.0
    places = [place for place, code in enumerate(arrays["recent"][row]) if code and has[code - 1]]
    if not places:
        return 0.0, 0.0
    own, weights = arrays["recent"][row][places] - 1, 0.9 ** np.array(places)
    units = np.array([centered[one] / np.linalg.norm(centered[one]) for one in own])
    mean, asked = weights @ units, centered[item] / np.linalg.norm(centered[item])
    return 3 * asked @ mean / np.linalg.norm(mean), 2 * (units @ asked).max()


@given(seed=st.integers(0, 10_000), users=st.integers(1, 6), items=st.integers(3, 30), dimensions=st.integers(5, 40))
def test_likeness_is_that_of_the_plain_cosines(seed: int, users: int, items: int, dimensions: int) -> None:
    arrays = arrays_of(seed, users, items, dimensions)
    rows = np.arange(-1, users + 1)
    lists = Lists.of(np.full(len(rows), items), np.tile(np.arange(items), len(rows)))
    found = ContentScorer(arrays).alike(rows, lists)
    expected = np.array([plain(arrays, row, item) for row in rows.tolist() for item in range(items)]).T
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.abs(found[0]).max() <= 3 + 1e-9


@given(seed=st.integers(0, 10_000), dimensions=st.integers(1, 400))
def test_products_are_whole_numbers_that_do_not_depend_on_their_order(seed: int, dimensions: int) -> None:
    vectors = coded(np.random.default_rng(seed).standard_cauchy((2, dimensions)))
    exact = int(vectors[0].astype(np.int64) @ vectors[1].astype(np.int64))
    assert np.abs(vectors).max() <= 127
    assert abs(exact) < 2**24
    shuffled = np.random.default_rng(seed).permutation(dimensions)
    single = vectors.astype(np.float32)
    assert float(np.cumsum(single[0, shuffled] * single[1, shuffled])[-1]) == exact


@given(vector=npst.arrays(np.float64, 6, elements=st.floats(-1e300, 1e300)), scale=st.floats(1e-3, 1e3))
def test_only_the_direction_of_a_vector_is_coded(vector: np.ndarray, scale: float) -> None:
    found = coded(vector[None])
    if np.abs(vector).max() < 1e290 and (vector == 0).sum() + (np.abs(vector) > 1e-290).sum() == 6:
        assert np.abs(coded(scale * vector[None]).astype(int) - found).max() <= 1
    kept = found[0].astype(float)
    if kept.any() and np.abs(kept).max() < 127:
        wide = vector / np.abs(vector).max()
        assert kept @ wide / np.linalg.norm(kept) / np.linalg.norm(wide) > 0.99


@pytest.mark.parametrize("vector", [[0.0, 0.0], [np.nan, 1.0], [1.0, np.inf]])
def test_what_has_no_direction_is_no_vector(vector: list[float]) -> None:
    assert not coded(np.array([vector])).any()


def test_without_any_vector_nothing_is_alike() -> None:
    arrays = arrays_of(0, 2, 5, 3) | {"vectors": np.zeros((5, 0), np.int8), "total": np.zeros(0, np.int64)}
    scorer = ContentScorer(arrays | {"described": np.zeros(1, np.int64)})
    assert not scorer.score(np.array([-1, 0, 1])).any()


def test_the_latest_items_that_an_item_is_most_like_are_named() -> None:
    vectors = coded(np.array([[1, 0, 0.0], [1, 0.1, 0], [-1, 0.3, 0], [0, -1, 1], [0.9, 0, 0.1]]))
    arrays = {"recent": np.array([[3, 2, 4, 0]], np.int32), "vectors": vectors}
    arrays |= {"total": vectors.sum(axis=0, dtype=np.int64), "described": np.array([5])}
    scorer = ContentScorer(arrays)
    (reasons,) = scorer.reasons(np.array([0]), Lists.of(np.array([1]), np.array([0])))
    assert reasons[0].item == 1
    assert reasons[0].member == "content"
    assert reasons[0].weight == pytest.approx(
        scorer.alike(np.array([0]), Lists.of(np.array([1]), np.array([0])))[1, 0] / 2
    )

"""Figures about lists, at values that can be computed by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.scoring import figures
from recsys.scoring.figures import coverage, dissimilarities, gini, percentiles
from recsys.scoring.similarity import Cosines, Shares, compares, factors_of, similarity_of
from recsys.serving.similar import nearest_items
from tests.scoring.oracle import SimilarityTable


@pytest.mark.parametrize(
    ("counts", "value"),
    [([1, 1, 1, 1], 0.0), ([0, 0, 0, 4], 0.75), ([1, 2, 3, 4], 0.25), ([7], 0.0), ([0, 0], None), ([], None)],
)
def test_gini(counts: list[int], value: float | None) -> None:
    assert gini(np.array(counts, dtype=np.int64)) == value


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any))
def test_gini_is_the_mean_difference_over_twice_the_mean(counts: list[int]) -> None:
    differences = np.mean([abs(one - other) for one in counts for other in counts])
    assert gini(np.array(counts)) == pytest.approx(differences / (2 * np.mean(counts)))


def test_coverage() -> None:
    assert coverage(np.array([0, 3, 0, 1])) == 0.5
    assert coverage(np.zeros(0)) is None


def test_percentiles_of_popularity() -> None:
    assert percentiles(np.array([5.0, 1.0, 1.0, 9.0])).tolist() == [0.625, 0.25, 0.25, 0.875]
    assert percentiles(np.zeros(3)).tolist() == [0.5, 0.5, 0.5]
    assert percentiles(np.zeros(0)).tolist() == []


def test_intra_list_diversity(monkeypatch: pytest.MonkeyPatch) -> None:
    similarity = Cosines(np.array([[2, 0], [5, 0], [0, 1], [0, 0]], dtype=np.float32))
    lists = np.array([[0, 1, 0], [0, 2, 0], [0, 1, 2], [3, 0, 0], [2, 0, 0], [0, 0, 0]])
    lengths = np.array([2, 2, 3, 2, 1, 0])
    # The same direction twice, a right angle, both; nothing is known about the item; lists without a pair.
    wanted = [0.0, 1.0, 2 / 3, 1.0]
    for at_once in (1, 1 << 21):
        monkeypatch.setattr(figures, "_AT_ONCE", at_once)
        assert dissimilarities(similarity, lists, lengths).tolist() == pytest.approx(wanted)


def test_similarity_agrees_with_the_nearest_items() -> None:
    """Cosines, and shares whichever way they are larger, as `similar_items` of a version tells them."""
    rng = np.random.default_rng(3)
    counted = {
        "cooccurrence.neighbors": rng.permuted(np.tile(np.arange(9), (8, 1)), axis=1)[:, :4],
        "cooccurrence.strengths": rng.integers(1, 9, (8, 4)).astype(np.float64),
        "cooccurrence.totals": np.full(8, 40.0),
    }
    counted["cooccurrence.neighbors"][counted["cooccurrence.neighbors"] == np.arange(1, 9)[:, None]] = 0
    items = np.arange(8)[None]
    for arrays in (counted, {"als.item_factors": rng.normal(size=(8, 3)), **counted}):
        similarity = similarity_of(arrays)
        assert similarity is not None
        assert compares(arrays)
        told = np.zeros((8, 8))
        for row in range(8):
            rows, scores = nearest_items(arrays, row, 8)  # type: ignore[misc]
            told[row, rows] = scores
        told = np.maximum(told, told.T) if "als.item_factors" not in arrays else told
        for row in range(8):
            found = similarity.among(items)(np.array([row]))[0]
            np.testing.assert_allclose(np.delete(found, row), np.delete(told[row], row))
    assert isinstance(similarity_of(counted), Shares)
    assert factors_of(counted) is None
    assert factors_of({"als.item_factors", "trend.x"}) == ("als.user_factors", "als.item_factors")
    assert similarity_of({}) is None
    assert not compares({"trend.scores"})


def test_an_item_is_compared_with_those_of_its_own_user_only() -> None:
    table = SimilarityTable(np.arange(9.0).reshape(3, 3) / 9)
    found = dissimilarities(table, np.array([[0, 1], [1, 2]]), np.array([2, 2]))
    assert found.tolist() == pytest.approx([1 - 3 / 9, 1 - 7 / 9])

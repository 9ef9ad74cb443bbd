"""The best inner products, against a full sort in double precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.serving import Lists
from recsys.serving.factors import FactorScores
from recsys.serving.products import Products
from recsys.serving.ranking import DenseScores
from tests.serving.test_mixture import some_lists


def exact(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    return (users.astype(np.float64) @ items.T.astype(np.float64)).astype(np.float32)


def drawn(seed: int, users: int, items: int, factors: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    if kind == "ties":
        rows = draw.integers(-1, 2, (users + items, factors)).astype(np.float32)
    else:
        rows = draw.standard_normal((users + items, factors)).astype(np.float32)
    lengths = draw.permutation(items) + 1.0 if kind == "skewed" else np.ones(items)
    return rows[:users], (rows[users:] / lengths[:, None]).astype(np.float32)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    users=st.integers(1, 11),
    items=st.sampled_from([1, 5, 127, 128, 129, 700]),
    factors=st.integers(1, 13),
    kind=st.sampled_from(["flat", "skewed", "ties"]),
)
def test_lists_and_ranks_are_those_of_a_full_sort(seed: int, users: int, items: int, factors: int, kind: str) -> None:
    rows, table = drawn(seed, users, items, factors, kind)
    draw = np.random.default_rng(seed)
    k = draw.integers(1, draw.choice([2, 30, items + 3]), users)
    left_out = some_lists(draw, users, items, draw.choice([0, items // 2, items]))
    wanted = some_lists(draw, users, items, min(items, 9))
    fast = FactorScores(rows, Products(table)).rank(k, left_out, wanted)
    slow = DenseScores(exact(rows, table)).rank(k, left_out, wanted)
    np.testing.assert_array_equal(fast.informed, slow.informed)
    known = fast.informed
    np.testing.assert_array_equal(fast.lengths[known], slow.lengths[known])
    width = slow.items.shape[1]
    np.testing.assert_array_equal(fast.items[known, :width], slow.items[known, : fast.items.shape[1]])
    np.testing.assert_array_equal(fast.scores[known, :width], slow.scores[known, : fast.items.shape[1]])
    np.testing.assert_array_equal(fast.above, slow.above)


@pytest.mark.parametrize("k", [1, 20, 150])
def test_long_catalogs_and_many_equal_products(k: int) -> None:
    draw = np.random.default_rng(k)
    users = draw.integers(-1, 2, (6, 8)).astype(np.float32)
    items = np.repeat(draw.integers(-1, 2, (40, 8)).astype(np.float32), 100, axis=0)
    best = Products(items).best(users, np.full(6, k), Lists.empty(6), Lists.empty(6))
    order = np.argsort(-exact(users, items), axis=1, kind="stable")[:, :k]
    known = users.any(axis=1)
    np.testing.assert_array_equal(best.items[known], order[known])

"""The bench of exploration: what its shops want, how NDCG and costs are counted, and that a shop runs."""

import numpy as np
import pandas as pd
import pytest

from bench.quality import exploration as bench
from bench.quality.exploration import ITEMS, Shop, Wants


def test_the_good_item_is_wanted_as_the_best_known_one_of_its_genre() -> None:
    good, poor = (Wants.drawn(np.random.default_rng(3), told) for told in (True, False))
    for wants, low, high in ((good, 0.4, 0.6), (poor, 0.05, 0.15)):
        assert low < wants.chances[wants.fans, ITEMS].mean() < high
        others = np.setdiff1d(np.arange(bench.USERS), wants.fans)
        ratio = wants.chances[others, ITEMS].mean() / wants.chances[wants.fans, ITEMS].mean()
        assert ratio == pytest.approx(bench.ELSEWHERE, rel=0.1)
        assert len(wants.fans) == pytest.approx(bench.USERS / 3, rel=0.15)


def test_ndcg_counts_what_is_wanted_at_its_place() -> None:
    wanted = np.zeros((3, bench.K + 1), dtype=bool)
    wanted[0, [0, 1]] = wanted[1, bench.K] = True  # The third user wants nothing and does not count.
    lists = np.tile(np.arange(bench.K), (3, 1))
    assert bench._ndcg(wanted, lists) == pytest.approx(0.5)
    lists[1, 2] = bench.K
    assert bench._ndcg(wanted, lists) == pytest.approx((1 + 0.5) / 2)


def test_costs_are_those_against_the_same_shops_without_exploration() -> None:
    rows = [(0, False, 0.2), (0, True, 0.19), (1, True, 0.38), (1, False, 0.4)]
    value, error = bench.cost(pd.DataFrame(rows, columns=["shop", "explored", "ndcg"]))
    assert (value, error) == (pytest.approx(0.05), pytest.approx(0, abs=1e-12))


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_a_shop_shows_hidden_items_only_where_it_explores(share: float) -> None:
    shop = Shop(seed=1, good=True, share=share, once=True)
    users, items = shop.choose(3_000)
    assert items.max() < ITEMS
    shop.learn(users, items, np.zeros(len(users), dtype=bool))
    for _ in range(2):
        shown, ordinary, found = shop.visit()
        assert 0 < shown < 1
        assert (shown == ordinary) == (share == 0)
        assert found == 0
    assert (shop._explored[0].sum() > 0) == (share > 0)

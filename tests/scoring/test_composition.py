"""What is in a list, against a slow oracle that goes through the whole order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.scoring import composition
from recsys.scoring.composition import POOL, Rules, Variety, choose, compose
from recsys.scoring.similarity import Cosines
from recsys.serving.arrays import Lists
from tests.scoring.oracle import SimilarityTable, Whole, WithCandidates, slow_list


def ragged(lists: list[list[int]]) -> Lists:
    return Lists.of(
        np.array([len(own) for own in lists], dtype=np.int64),
        np.array([item for own in lists for item in own], dtype=np.int64),
    )


def composed(ranker: Whole, excluded: list[list[int]], rules: Rules) -> list[list[int]]:
    found = compose(ranker, np.arange(len(ranker.orders)), True, ragged(excluded), rules)
    scores = {
        (user, item): score
        for user, own in enumerate(ranker.orders)
        for item, score in zip(own, ranker.scores[user], strict=True)
    }
    lists = [own.tolist() for own in np.split(found.items, np.cumsum(found.lengths)[:-1])]
    owners = np.repeat(np.arange(len(lists)), found.lengths).tolist()
    kept = [scores[user, item] for user, item in zip(owners, found.items.tolist(), strict=True)]
    assert found.scores.tolist() == kept, "scores are those of the version"
    return lists


@settings(max_examples=300, deadline=None)
@given(
    st.data(),
    st.integers(1, 40),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.sampled_from([None, 1, 2]),
)
def test_lists_are_those_of_the_slow_oracle(data, items: int, k: int, diversity: float, cap: int | None) -> None:
    """Whatever is left out, however deep the order has to be followed, and in whatever blocks."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    users = data.draw(st.integers(1, 4))
    allowed = rng.random(items) < data.draw(st.sampled_from([0.1, 0.6, 1.0]))
    # Some users have interacted with most of the catalog, and the version leaves that out.
    orders = [rng.permutation(items)[: rng.integers(0, items + 1)].tolist() for _ in range(users)]
    scores = [(np.sort(rng.integers(0, 9, len(own)))[::-1] / 4).tolist() for own in orders]
    excluded = [np.flatnonzero(rng.random(items) < 0.2).tolist() for _ in range(users)]
    categories = rng.integers(-1, 3, items)
    table = rng.integers(0, 9, (items, items)) / 8
    table = np.maximum(table, table.T)
    rules = Rules(k, allowed, cap, None if cap is None else categories, diversity, SimilarityTable(table))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composition, "_AT_ONCE", data.draw(st.sampled_from([1, 50, 1 << 22])))
        patch.setattr(composition, "_FEW", data.draw(st.sampled_from([1, 3])))
        kind = data.draw(st.sampled_from([Whole, WithCandidates]))
        found = composed(kind(items, orders, scores), excluded, rules)
    for user in range(users):
        open_items = set(np.flatnonzero(allowed).tolist()) - set(excluded[user])
        own = slow_list(orders[user], scores[user], k, open_items, categories.tolist(), cap, diversity, table, POOL * k)
        assert found[user] == own


def test_without_rules_the_list_is_the_order() -> None:
    whole = Whole(6, [[3, 1, 0, 5], [2]], [[4.0, 2.0, 1.0, 0.0], [9.0]])
    assert composed(whole, [[], []], Rules(3)) == [[3, 1, 0], [2]]


def test_full_diversity_takes_an_item_unlike_the_best_one() -> None:
    similarity = Cosines(np.array([[1, 0], [1, 0], [0.9, 0.1], [0, 1]], dtype=np.float32))
    order = np.array([[0, 1, 2, 3]])
    variety = Variety(1.0, pool=4, similarity=similarity.among(order))
    assert choose(np.array([[4.0, 3, 2, 1]]), np.array([4]), 3, variety).tolist() == [[0, 3, 2]]


def test_a_cap_goes_on_behind_the_pool_and_leaves_items_without_a_category_alone() -> None:
    items = 50
    whole = Whole(items, [list(range(items))], [list(range(items, 0, -1))])
    categories = np.zeros(items, dtype=np.int64)
    categories[[40, 45]], categories[48] = -1, 1
    assert composed(whole, [[]], Rules(4, cap=1, categories=categories)) == [[0, 40, 45, 48]]
    assert composed(whole, [[]], Rules(5, cap=1, categories=categories)) == [[0, 40, 45, 48]], "no more are left"


def test_an_empty_catalog_and_nobody_to_score() -> None:
    assert composed(Whole(0, [[], []], [[], []]), [[], []], Rules(3, allowed=np.zeros(0, dtype=bool))) == [[], []]
    assert composition.compose(Whole(3, [], []), np.zeros(0, np.int64), True, Lists.empty(0), Rules(3)).items.size == 0


def test_nothing_is_allowed() -> None:
    whole = Whole(3, [[0, 1, 2]], [[3.0, 2.0, 1.0]])
    assert composed(whole, [[]], Rules(2, allowed=np.zeros(3, dtype=bool))) == [[]]

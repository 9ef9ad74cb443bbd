"""The ranking of a version, against a slow oracle."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.serving import Ranker, Rankings, ranker
from tests.registry.served import served_arrays, slow_ranking


def names(letter: str, count: int) -> list[str]:
    return [f"{letter}{number}" for number in range(count)]


def as_lists(ranked: Rankings) -> list[tuple[list[int], list[float]]]:
    cuts = np.cumsum(ranked.lengths)[:-1]
    pairs = zip(np.split(ranked.items, cuts), np.split(ranked.scores, cuts), strict=True)
    return [(items.tolist(), scores.tolist()) for items, scores in pairs]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), users=st.integers(0, 12), items=st.integers(1, 60), seed=st.integers(0, 99))
def test_the_ranking_is_that_of_the_slow_oracle_ties_and_all(data, users, items, seed):
    arrays = served_arrays(names("u", users), names("i", items), seed)
    count = data.draw(st.integers(1, 20))
    lists = {"min_size": count, "max_size": count}
    rows = data.draw(st.lists(st.integers(-1, users - 1), **lists))
    k = data.draw(st.lists(st.integers(1, items + 5), **lists))
    exclude_seen = data.draw(st.lists(st.booleans(), **lists))
    asked = (np.array(rows), np.array(k), np.array(exclude_seen))
    wanted = [slow_ranking(arrays, *one) for one in zip(rows, k, exclude_seen, strict=True)]
    assert as_lists(Ranker(arrays).rank(*asked)) == wanted

    candidates = data.draw(st.lists(st.lists(st.integers(0, items - 1), max_size=8), **lists))
    wanted = [slow_ranking(arrays, *one) for one in zip(rows, k, exclude_seen, candidates, strict=True)]
    ranked = Ranker(arrays).rank_candidates(*asked, [np.array(some, dtype=np.int64) for some in candidates])
    assert as_lists(ranked) == wanted


def test_blocks_of_users_join_to_the_same_ranking(monkeypatch):
    arrays = served_arrays(names("u", 50), names("i", 300))
    asked = (np.arange(-1, 50), np.full(51, 20), np.arange(51) % 2 == 0)
    whole = Ranker(arrays).rank(*asked)
    candidates = [np.arange(user % 30) for user in range(51)]
    some = Ranker(arrays).rank_candidates(*asked, candidates)
    monkeypatch.setattr(ranker, "BLOCK_BYTES", 1)
    monkeypatch.setattr(ranker, "USERS_PER_BLOCK", 7)
    assert as_lists(Ranker(arrays).rank(*asked)) == as_lists(whole)
    assert as_lists(Ranker(arrays).rank_candidates(*asked, candidates)) == as_lists(some)

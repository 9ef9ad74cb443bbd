"""What is drawn as never had was never had, with the chances that are asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.interactions.history import History
from recsys.model.neural.negatives import NegativeSampler


def history_of(pairs: set[tuple[int, int]], users: int, items: int) -> History:
    history = History(None)
    history.add_rows(users, items)
    had = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    history.add(had[:, 0], had[:, 1], np.ones(len(had)), np.zeros(len(had)))
    return history


@given(
    pairs=st.sets(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=30),
    exponent=st.sampled_from([0.0, 0.75]),
    seed=st.integers(0, 9),
)
def test_nothing_drawn_was_had(pairs: set[tuple[int, int]], exponent: float, seed: int) -> None:
    sampler = NegativeSampler(history_of(pairs, 5, 6), 6, exponent)
    users = np.array([0, 4, 2, 0])
    drawn = sampler.draw(users, 3, np.random.default_rng(seed))
    assert drawn.items.shape == drawn.valid.shape == (4, 3)
    for row, user in enumerate(users.tolist()):
        for item, valid in zip(drawn.items[row].tolist(), drawn.valid[row].tolist(), strict=True):
            assert 0 <= item < 6
            assert valid == ((user, item) not in pairs)
    again = sampler.draw(users, 3, np.random.default_rng(seed))
    assert (again.items == drawn.items).all()


def test_a_user_who_had_everything_has_no_valid_ones() -> None:
    sampler = NegativeSampler(history_of({(0, item) for item in range(6)}, 2, 6), 6, 0.0)
    valid = sampler.draw(np.array([0, 1]), 50, np.random.default_rng(0)).valid
    assert not valid[0].any()
    assert valid[1].all()


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_the_chances_are_those_of_the_items_that_are_left(exponent: float) -> None:
    pairs = {(user, item) for user in range(40) for item in range(6) if user % (item + 2) == 0}
    sampler, draws = NegativeSampler(history_of(pairs, 41, 6), 6, exponent), 40_000
    # User 4 had items 0 and 2.
    drawn = sampler.draw(np.array([4]), draws, np.random.default_rng(1))
    counts = np.bincount(drawn.items[drawn.valid], minlength=6)
    assert counts.sum() > 0.998 * draws
    weights = [(1 + sum(other == item for _, other in pairs)) ** exponent for item in range(6)]
    left = np.array([weight * ((4, item) not in pairs) for item, weight in enumerate(weights)])
    expected = counts.sum() * left / left.sum()
    assert counts[[0, 2]].sum() == 0
    # Chi-square with three degrees of freedom: above 16.3 once in a thousand seeds.
    assert ((counts - expected)[left > 0] ** 2 / expected[left > 0]).sum() < 16.3

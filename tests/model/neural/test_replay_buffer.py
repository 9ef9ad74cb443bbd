"""The laws of the replay buffer, and the pairs it is filled from."""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.interactions.history import History
from recsys.model.neural.replay_buffer import Pairs, ReplayBuffer, history_of, of_history, sample


def pairs_of(begin: int, end: int) -> Pairs:
    """Pairs that can be told apart."""
    numbers = np.arange(begin, end)
    return Pairs(numbers, 10 * numbers, (numbers + 1).astype(np.float32))


def numbers_of(pairs: Pairs) -> list[int]:
    assert (pairs.items == 10 * pairs.users).all()
    assert (pairs.weights == pairs.users + 1).all()
    return pairs.users.tolist()


class Dealt:
    """A generator whose draws are given."""

    def __init__(self, draws: Iterator[int]) -> None:
        self._draws = draws

    def integers(self, highs: np.ndarray) -> np.ndarray:
        dealt = np.array([next(self._draws) for _ in highs])
        assert (dealt < highs).all()
        return dealt


@pytest.mark.parametrize("cuts", [(6,), (1, 6), (3, 4, 6)])
def test_every_subset_is_kept_equally_often(cuts: tuple[int, ...]) -> None:
    """All outcomes of all draws, each as likely as any other: 6! of them for 15 subsets of two pairs."""
    kept: Counter[frozenset[int]] = Counter()
    for draws in itertools.product(*(range(n) for n in range(1, 7))):
        buffer, dealt, begin = ReplayBuffer(1, 2), Dealt(iter(draws)), 0
        for end in cuts:
            generator: Any = dealt
            buffer.add(pairs_of(begin, end), generator)
            begin = end
        kept[frozenset(numbers_of(buffer.reservoir()))] += 1
    assert len(kept) == 15
    assert set(kept.values()) == {720 // 15}


@given(sizes=st.lists(st.integers(0, 9), max_size=6), recent=st.integers(1, 7), reservoir=st.integers(1, 7))
def test_the_ring_holds_the_newest_and_the_reservoir_is_full(sizes: list[int], recent: int, reservoir: int) -> None:
    buffer, total = ReplayBuffer(recent, reservoir), 0
    for number, size in enumerate(sizes):
        buffer.add(pairs_of(total, total + size), np.random.default_rng(number))
        total += size
        assert sorted(numbers_of(buffer.recent())) == list(range(max(0, total - recent), total))
        kept = numbers_of(buffer.reservoir())
        assert len(set(kept)) == len(kept) == min(total, reservoir)
        assert set(kept) <= set(range(total))
        # In between a load and a save nothing is lost.
        buffer = ReplayBuffer.from_state(buffer.state())


def test_draws_are_half_new_and_half_old_and_seeded() -> None:
    buffer = ReplayBuffer(5, 50)
    assert len(buffer.draw(10, np.random.default_rng(0))) == 0
    buffer.add(pairs_of(0, 2000), np.random.default_rng(0))
    drawn = numbers_of(buffer.draw(1001, np.random.default_rng(1)))
    assert set(drawn[:500]) == set(range(1995, 2000))
    assert len(drawn) == 1001
    assert set(drawn[500:]) == set(numbers_of(buffer.reservoir()))
    assert drawn == numbers_of(buffer.draw(1001, np.random.default_rng(1)))


def test_pairs_of_a_history_and_back() -> None:
    history = History(2.0)
    history.add_rows(4, 5)
    users, items = np.array([0, 3, 0, 1, 3]), np.array([4, 0, 1, 2, 2])
    weights, days = np.array([1.0, 2.0, -1.0, 4.0, 3.0]), np.array([0.0, 2.0, 2.0, 0.0, 2.0])
    history.add(users, items, weights, days * 86_400)
    pairs = of_history(history)
    # What is not above 0 is left out, what is two days old counts half.
    assert pairs.users.tolist() == [0, 1, 3, 3]
    assert pairs.items.tolist() == [4, 2, 0, 2]
    assert pairs.weights.tolist() == [0.5, 2.0, 2.0, 3.0]
    again = history_of(pairs, history)
    assert (len(again.by_user), len(again.by_item)) == (4, 5)
    assert of_history(again).weights.tolist() == pairs.weights.tolist()


def test_a_sample_is_drawn_without_replacement() -> None:
    pairs = pairs_of(0, 100)
    assert sample(pairs, 100, np.random.default_rng(0)) is pairs
    drawn = numbers_of(sample(pairs, 60, np.random.default_rng(0)))
    assert len(set(drawn)) == 60

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
from recsys.model.interactions.keeping import Kept, KeptRows
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


@given(
    steps=st.lists(st.tuples(st.integers(0, 9), st.integers(2, 5)), max_size=8),
    recent=st.integers(1, 7),
    reservoir=st.integers(1, 7),
)
def test_forgotten_pairs_leave_room_for_new_ones(steps: list[tuple[int, int]], recent: int, reservoir: int) -> None:
    """Ids are never renumbered here: users that go are replaced by as many new ones at the end."""
    buffer, total, ring, whole = ReplayBuffer(recent, reservoir), 0, list[int](), True
    numbers = np.zeros(0, dtype=np.int64)  # Of the pair of each user.
    for number, (size, divisor) in enumerate(steps):
        added, codes = np.arange(total, total + size), len(numbers) + np.arange(size)
        numbers, total = np.append(numbers, added), total + size
        buffer.add(Pairs(codes, 0 * codes, (added + 1).astype(np.float32)), np.random.default_rng(number))
        ring = [*ring, *added.tolist()][-recent:]
        whole = whole and len(numbers) <= reservoir
        users = KeptRows.of(numbers % divisor > 0)
        buffer.keep(Kept(users, KeptRows.of(np.ones(1, dtype=bool))))
        numbers, ring = numbers[users.codes], [one for one in ring if one % divisor]
        buffer = ReplayBuffer.from_state(buffer.state())
        for pairs in (buffer.recent(), buffer.reservoir()):
            assert (numbers[pairs.users] + 1 == pairs.weights).all()
        assert sorted(numbers[buffer.recent().users].tolist()) == ring
        sampled = numbers[buffer.reservoir().users].tolist()
        assert len(set(sampled)) == len(sampled)
        assert sorted(sampled) == numbers.tolist() or not whole


def test_a_reservoir_is_full_again_soon_after_half_of_its_pairs_went() -> None:
    buffer = ReplayBuffer(1, 50)
    buffer.add(pairs_of(0, 1_000), np.random.default_rng(0))
    kept = Kept(KeptRows.of(np.arange(1_000) % 2 > 0), KeptRows.of(np.ones(10_000, dtype=bool)))
    buffer.keep(kept)
    left = len(buffer.reservoir())
    assert 15 < left < 35
    assert (kept.users.codes[buffer.reservoir().users] % 2 > 0).all()
    # About half of the places are free, and half of the pairs are left: as many new ones fill them.
    new = np.arange(500)
    buffer.add(Pairs(500 + new, new, np.ones(500, dtype=np.float32)), np.random.default_rng(1))
    assert len(buffer.reservoir()) >= 45
    assert 15 < (buffer.reservoir().users >= 500).sum() < 45


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

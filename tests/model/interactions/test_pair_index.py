"""The pair index does what a dictionary would."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.common.arrays import GrowingArray
from recsys.model.interactions import pair_index as pairs_module
from recsys.model.interactions.pair_index import PairIndex
from recsys.serving.arrays import ragged_ranges

CODES = st.integers(0, 40) | st.integers(0, 2**31 - 1)
PAIR_BATCHES = st.lists(st.lists(st.tuples(CODES, CODES), max_size=200), max_size=8)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return array[:, 0].copy(), array[:, 1].copy()


@given(PAIR_BATCHES)
def test_slots_equal_those_of_a_plain_dictionary(batches: list[list[tuple[int, int]]]) -> None:
    index, plain = PairIndex(), dict[tuple[int, int], int]()
    for pairs in batches:
        users, items = columns(pairs)
        assert index.find(users, items).tolist() == [plain.get(pair, -1) for pair in pairs]
        assert index.find_or_add(users, items).tolist() == [plain.setdefault(pair, len(plain)) for pair in pairs]
    assert list(zip(index.users().tolist(), index.items().tolist(), strict=True)) == list(plain)


def colliding_keys(count: int) -> list[int]:
    """Keys whose search begins at the last place of an index of the first size: all in one run, round its end."""
    inverse = pow(int(pairs_module._MULTIPLIER), -1, 2**64)
    keys, low = list[int](), 0
    while len(keys) < count:
        # The leading ten bits of key * multiplier are ones.
        key = ((2**64 - 1 - low) * inverse) % 2**64
        if key < 2**63 and key % 2**32 < 2**31:
            keys.append(key)
        low += 1
    return keys


def test_pairs_that_belong_at_one_place_are_told_apart_round_the_end_of_the_table() -> None:
    keys = colliding_keys(400)
    pairs = [(key >> 32, key & (2**32 - 1)) for key in keys]
    index = PairIndex()
    users, items = columns(pairs)
    assert index.find_or_add(users[:300], items[:300]).tolist() == list(range(300))
    assert index.find(users, items).tolist() == [*range(300), *[-1] * 100]
    assert PairIndex(index.keys).find(users, items).tolist() == [*range(300), *[-1] * 100]


def test_a_large_index_finds_all_pairs_again_also_after_rebuilding_it_from_its_keys() -> None:
    generator = np.random.default_rng(0)
    users, items = generator.integers(0, 3000, 50_000), generator.integers(0, 3000, 50_000)
    index = PairIndex()
    slots = np.concatenate(
        [index.find_or_add(users[i : i + 7000], items[i : i + 7000]) for i in range(0, len(users), 7000)]
    )
    assert len(index) == len(set(zip(users.tolist(), items.tolist(), strict=True)))
    assert (index.users()[slots] == users).all()
    assert (index.items()[slots] == items).all()
    assert (PairIndex(index.keys).find(users, items) == slots).all()


def test_the_largest_codes_survive() -> None:
    index, largest = PairIndex(), np.array([2**31 - 1])
    assert index.find_or_add(largest, largest).tolist() == [0]
    assert index.users().tolist() == index.items().tolist() == [2**31 - 1]
    assert index.find(largest, largest - 1).tolist() == [-1]


@given(st.lists(st.integers(0, 40), max_size=20))
def test_a_growing_array_equals_a_plain_list_when_it_grows_and_when_it_shrinks(sizes: list[int]) -> None:
    array, plain = GrowingArray([7.0], np.float64), [7.0]
    for size in sizes:
        array.resize(size)
        plain = plain[:size] + [0.0] * (size - len(plain))
        array.append([float(size)])
        plain.append(float(size))
        assert array.values.tolist() == plain


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 9))))
def test_ragged_ranges_concatenates_ranges(ranges: list[tuple[int, int]]) -> None:
    starts, lengths = columns(ranges)
    assert ragged_ranges(starts, lengths).tolist() == [s + i for s, n in ranges for i in range(n)]

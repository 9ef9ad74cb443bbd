"""The pair index and the adjacency lists do what dictionaries would."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.adjacency import AdjacencyLists
from recsys.model.arrays import ragged_ranges
from recsys.model.pairs import PairIndex

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
    slots = np.arange(len(index))
    assert list(zip(index.users(slots).tolist(), index.items(slots).tolist(), strict=True)) == list(plain)


def test_a_large_index_finds_all_pairs_again_also_after_rebuilding_it_from_its_keys() -> None:
    generator = np.random.default_rng(0)
    users, items = generator.integers(0, 3000, 50_000), generator.integers(0, 3000, 50_000)
    index = PairIndex()
    slots = np.concatenate(
        [index.find_or_add(users[i : i + 7000], items[i : i + 7000]) for i in range(0, len(users), 7000)]
    )
    assert len(index) == len(set(zip(users.tolist(), items.tolist(), strict=True)))
    assert (index.users(slots) == users).all()
    assert (index.items(slots) == items).all()
    assert (PairIndex(index.keys).find(users, items) == slots).all()


@given(st.lists(st.lists(st.integers(0, 9), max_size=60), max_size=12))
def test_lists_equal_plain_lists(batches: list[list[int]]) -> None:
    lists, plain = AdjacencyLists(), [list[int]() for _ in range(10)]
    lists.add_rows(10)
    slot = 0
    for rows in batches:
        slots = np.arange(slot, slot + len(rows))
        lists.append(np.array(rows, dtype=np.int64), slots)
        for row, value in zip(rows, slots.tolist(), strict=True):
            plain[row].append(value)
        slot += len(rows)
        wanted = np.array([3, 0, 9, 3])
        lengths, values = lists.gather(wanted)
        assert lengths.tolist() == [len(plain[row]) for row in wanted]
        assert values.tolist() == [value for row in wanted for value in plain[row]]


def test_memory_of_the_lists_stays_within_a_few_times_their_content() -> None:
    lists, entries = AdjacencyLists(), 0
    generator = np.random.default_rng(0)
    lists.add_rows(500)
    for _ in range(200):
        rows = np.minimum(generator.zipf(1.2, 1000) - 1, 499)
        lists.append(rows, np.arange(entries, entries + 1000))
        entries += 1000
    # 4 bytes an entry; half spare in a row, half abandoned, half spare at the end of the pool.
    assert lists.nbytes < 8 * 4 * entries
    assert int(lists.lengths.sum()) == entries


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 9))))
def test_ragged_ranges_concatenates_ranges(ranges: list[tuple[int, int]]) -> None:
    starts, lengths = columns(ranges)
    assert ragged_ranges(starts, lengths).tolist() == [s + i for s, n in ranges for i in range(n)]

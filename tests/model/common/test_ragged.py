"""The pool of ragged rows does what plain lists would."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.common.ragged import RaggedPool, order_in_rows

DTYPES = {"code": np.int32, "weight": np.float32, "time": np.float64}
Rows = list[list[int]]


def append(pool: RaggedPool, plain: Rows, rows: list[int], start: int) -> None:
    """Append the numbers from `start` on, and what `columns_of` makes of them, to pool and plain lists alike."""
    numbers = list(range(start, start + len(rows)))
    ordinals = pool.append(np.array(rows, dtype=np.int64), **columns_of(numbers))
    expected = []
    for row, number in zip(rows, numbers, strict=True):
        expected.append(len(plain[row]))
        plain[row].append(number)
    assert ordinals.tolist() == expected


def columns_of(numbers: list[int]) -> dict[str, np.ndarray]:
    given = np.array(numbers, dtype=np.int64)
    return {"code": given, "weight": (given / 2).astype(np.float32), "time": given / 3}


def assert_equal(pool: RaggedPool, plain: Rows) -> None:
    """Row by row where they lie, and gathered in another order."""
    assert pool.lengths.tolist() == [len(entries) for entries in plain]
    for row, entries in enumerate(plain):
        own = slice(pool.starts[row], pool.starts[row] + pool.lengths[row])
        for name, expected in columns_of(entries).items():
            assert pool.columns[name][own].tolist() == expected.tolist()
    wanted = np.append(np.arange(len(plain))[::-1], 0)
    lengths, gathered = pool.gather(wanted)
    assert lengths.tolist() == [len(plain[row]) for row in wanted]
    for name, expected in columns_of([number for row in wanted for number in plain[row]]).items():
        assert gathered[name].tolist() == expected.tolist()
        assert gathered[name].dtype == pool.columns[name].dtype == DTYPES[name]


BATCHES = st.lists(st.lists(st.integers(0, 9), max_size=60), max_size=12)


@given(BATCHES)
def test_rows_equal_plain_lists(batches: list[list[int]]) -> None:
    pool, plain = RaggedPool(DTYPES), [list[int]() for _ in range(10)]
    pool.add_rows(10)
    for number, rows in enumerate(batches):
        append(pool, plain, rows, start=100 * number)
        assert_equal(pool, plain)


@given(BATCHES, BATCHES)
def test_a_pool_from_what_was_gathered_goes_on_alike(first: list[list[int]], then: list[list[int]]) -> None:
    pool, plain = RaggedPool(DTYPES), [list[int]() for _ in range(10)]
    pool.add_rows(10)
    for number, rows in enumerate(first):
        append(pool, plain, rows, start=100 * number)
    lengths, columns = pool.gather(np.arange(10))
    restored = RaggedPool(DTYPES, lengths, columns)
    assert_equal(restored, plain)
    pool.columns["time"][:] = -1
    for number, rows in enumerate(then):
        append(restored, plain, rows, start=10_000 + 100 * number)
    assert_equal(restored, plain)


@given(BATCHES, st.dictionaries(st.integers(0, 9), st.integers(0, 200)))
def test_what_has_room_is_written_in_place(batches: list[list[int]], wanted: dict[int, int]) -> None:
    pool, plain = RaggedPool(DTYPES), [list[int]() for _ in range(10)]
    pool.add_rows(10)
    for number, rows in enumerate(batches):
        append(pool, plain, rows, start=100 * number)
    lengths = np.array(list(wanted.values()), dtype=np.int64)
    pool.reserve(np.array(list(wanted), dtype=np.int64), lengths)
    assert_equal(pool, plain)
    for row, length in wanted.items():
        # As the compiled loops of a model do, which lengthen a row themselves.
        for number in range(len(plain[row]), length):
            place = pool.starts[row] + pool.lengths[row]
            pool.lengths[row] += 1
            plain[row].append(1000 * row + number)
            for name, value in columns_of(plain[row][-1:]).items():
                pool.columns[name][place] = value[0]
    assert_equal(pool, plain)


@given(rows=st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=8))
def test_values_are_ordered_within_their_rows(rows: list[list[int]]) -> None:
    values = np.array([value for row in rows for value in row], dtype=np.int32)
    order = order_in_rows(np.array([len(row) for row in rows], dtype=np.int64), values)
    assert values[order].tolist() == [value for row in rows for value in sorted(row)]
    equal = values[order][1:] == values[order][:-1]
    assert (np.diff(order)[equal] > 0).all(), "equal ones keep their order"


def test_content_and_memory_survive_thousands_of_moves() -> None:
    pool, plain = RaggedPool(DTYPES), [list[int]() for _ in range(500)]
    pool.add_rows(500)
    generator = np.random.default_rng(0)
    for number in range(200):
        append(pool, plain, np.minimum(generator.zipf(1.2, 1000) - 1, 499).tolist(), start=1000 * number)
        # 16 bytes an entry; as much again spare in a row, and half of all that spare at the end of the pool.
        assert pool.nbytes < 3 * 16 * 1000 * (number + 1) + 500 * 3 * 8 + 1000 * 3 * 16
    assert_equal(pool, plain)


def test_room_that_is_only_reserved_is_given_back_too() -> None:
    pool = RaggedPool(DTYPES)
    pool.add_rows(200)
    rows = np.arange(200)
    for length in range(1, 65):
        pool.reserve(rows, np.full(200, length))
        pool.lengths[:] += 1
        assert len(pool.columns["code"]) <= 3 * 200 * 2 * length
    assert (np.diff(np.sort(pool.starts)) >= 64).all()


def test_rows_that_are_not_there_are_refused() -> None:
    pool = RaggedPool(DTYPES)
    pool.add_rows(2)
    for rows in (np.array([0, 2]), np.array([-1])):
        with pytest.raises(IndexError, match="of 2"):
            pool.gather(rows)
        with pytest.raises(IndexError, match="of 2"):
            pool.append(rows, **columns_of(rows.tolist()))
        with pytest.raises(IndexError, match="of 2"):
            pool.reserve(rows, rows)

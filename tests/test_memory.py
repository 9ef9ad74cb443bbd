"""What a long-running process gives back."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from recsys.memory import give_back, use_one_allocator

MEGABYTE = 2**20


@pytest.fixture
def own_pool() -> Iterator[None]:
    before = pa.default_memory_pool()
    yield
    pa.set_memory_pool(before)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.usefixtures("own_pool")
def test_arrow_uses_the_allocator_of_the_c_library() -> None:
    use_one_allocator()
    assert pa.default_memory_pool().backend_name == "system"


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library does not trim")
def test_freed_memory_below_some_that_is_in_use_is_given_back() -> None:
    blocks = [bytes(2_000) for _ in range(100 * MEGABYTE // 2_000)]
    last = blocks.pop()
    blocks.clear()
    held = resident()
    give_back()
    assert held - resident() > 50 * MEGABYTE
    assert len(last) == 2_000

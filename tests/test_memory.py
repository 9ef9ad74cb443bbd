"""What a long-running process gives back."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.memory import give_back

MEGABYTE = 2**20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.process
def test_arrow_uses_the_allocator_of_the_c_library_in_a_job_unless_told_otherwise() -> None:
    code = (
        "from recsys.cli import run_job; run_job(print, ['--config', 'nowhere.yaml']); "
        "import pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    )
    for told, wanted in (({}, "system"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc")):
        left = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
        printed = subprocess.run([sys.executable, "-c", code], env={**left, **told}, capture_output=True, text=True)
        assert printed.stdout.split()[-1] == wanted, printed.stderr


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library does not trim")
def test_freed_memory_below_some_that_is_in_use_is_given_back() -> None:
    blocks = [bytes(2_000) for _ in range(100 * MEGABYTE // 2_000)]
    last = blocks.pop()
    blocks.clear()
    held = resident()
    give_back()
    assert held - resident() > 50 * MEGABYTE
    assert len(last) == 2_000

"""What a process that runs for months gives back of the memory that it once needed."""

import ctypes
from contextlib import suppress

import pyarrow as pa


def use_one_allocator() -> None:
    """Let Arrow take its memory from the C library, so that `give_back` reaches it.

    Arrow's own allocator keeps what one thread took and another freed; where a table is written by threads that come
    and go, that grows for as long as the process runs.
    """
    pa.set_memory_pool(pa.system_memory_pool())


def give_back() -> None:
    """Return what was freed to the operating system; glibc keeps it for the next time, in pieces, by itself."""
    with suppress(AttributeError):  # Another C library has other means.
        ctypes.CDLL(None).malloc_trim(0)

"""What a process that runs for months keeps of the memory that it once needed."""

import ctypes
import os
import sys
from contextlib import suppress

_VARIABLE, _ARENAS = "MALLOC_ARENA_MAX", 2
_M_ARENA_MAX = -8  # Its number in glibc's malloc.h.


def share_arenas() -> None:
    """Have the threads of this process, and of Java's, share two arenas of glibc's allocator, unless it is set already.

    By default each of dozens of threads gets arenas of its own, and every arena keeps what was freed in it.
    """
    if _VARIABLE in os.environ or not sys.platform.startswith("linux"):
        return
    os.environ[_VARIABLE] = str(_ARENAS)  # Java reads it when it starts.
    with suppress(AttributeError):  # Another C library has other means.
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)

"""What a process that runs for months gives back of the memory that it once needed."""

import ctypes
import os
import resource
from contextlib import suppress
from pathlib import Path

_ARROW = "ARROW_DEFAULT_MEMORY_POOL"


def use_one_allocator() -> bool:
    """Let Arrow take its memory from the C library, so that `give_back` reaches it, unless it is told something else.

    Arrow's own allocator keeps what one thread took and another freed; where tables are written by threads that come
    and go, that grows for as long as the process runs. Arrow looks when it is imported.

    Returns:
        Whether that was still to be said.
    """
    if _ARROW in os.environ:
        return False
    os.environ[_ARROW] = "system"
    return True


def most() -> int:
    """Bytes that a process may have here: the machine's memory, or what it is limited to."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limits += [limit for limit in resource.getrlimit(resource.RLIMIT_AS) if limit != resource.RLIM_INFINITY]
    with suppress(OSError, ValueError):  # No container, or one without a limit.
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")))
    return min(limits)


def give_back() -> None:
    """Return what was freed to the operating system; glibc keeps it for the next time, in pieces, by itself."""
    with suppress(AttributeError):  # Another C library has other means.
        ctypes.CDLL(None).malloc_trim(0)

"""Loops over numpy arrays, compiled by numba at their first call and kept on disk for the next process.

The compiled code is kept beside the source, or in the user's cache folder where that one is read-only, by the time
stamp of the file a function is written in. A change to a function that it calls is noticed only in the same file, so
compiled functions call none of another file. Where nothing can be written, every process compiles for itself.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

# Sums may be added up in another order and products joined to sums, which is what makes loops use vector instructions.
# NaN and infinity keep their meaning, so that checks for them hold.
_FAST = {"reassoc", "contract", "nsz"}


def compiled(function: Function) -> Function:
    """Compile a function of arrays and numbers that runs in one thread, with the arithmetic as it is written."""
    return _cached(function)


def compiled_fast(function: Function) -> Function:
    """Compile a function that runs in one thread, sums in any order (the same one each time)."""
    return _cached(function, fastmath=_FAST, error_model="numpy")


def compiled_parallel(function: Function) -> Function:
    """Compile a function whose `numba.prange` loops run in all threads, sums in any order (the same one each time)."""
    return _cached(function, parallel=True, fastmath=_FAST, error_model="numpy")


def _cached(function: Function, **options: Any) -> Function:
    try:
        return cast(Function, numba.njit(cache=True, nogil=True, **options)(function))
    except RuntimeError:
        # There is no folder to keep it in.
        return cast(Function, numba.njit(nogil=True, **options)(function))

"""Arrays of a file, mapped into memory: what several processes of a machine read of it is there once."""

import json
from pathlib import Path

import numpy as np

from .arrays import Array

_KINDS = {"F": "f", "I": "i", "U": "u"}


def mapped(file: Path) -> dict[str, Array]:
    """The arrays of a safetensors file, by name; nothing is read before it is used.

    safetensors itself returns copies. They may be written to, but nobody else sees that: a page that is written becomes
    the process's own.

    Raises:
        OSError: the file cannot be read.
        TypeError, ValueError: it is no safetensors file, or it is cut off.
    """
    content = np.memmap(file, mode="c")
    begin = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = json.loads(content[8:begin].tobytes())
    arrays = {}
    for name, told in header.items():
        if name != "__metadata__":
            start = begin + told["data_offsets"][0]
            array: Array = np.ndarray(told["shape"], _type(told["dtype"]), buffer=content, offset=start)
            # The compiled code wants numbers where the processor does.
            arrays[name] = np.require(array, requirements="A")
    return arrays


def _type(name: str) -> np.dtype:
    """A type by its name in the file: F32, U8, BOOL."""
    return np.dtype(bool) if name == "BOOL" else np.dtype(f"<{_KINDS[name[0]]}{int(name[1:]) // 8}")

"""Ids as arrays, for files that hold nothing but arrays."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from .arrays import Array


def pack_ids(ids: Sequence[str]) -> tuple[Array, Array]:
    """Lay ids end to end in one byte array.

    Returns:
        The bytes, uint8, UTF-8 (lone surrogates kept), and the offsets (n + 1,) int64 at which the ids begin and end.
    """
    encoded = [text.encode("utf-8", "surrogatepass") for text in ids]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8).copy(), offsets


def unpack_ids(data: Array, offsets: Array) -> list[str]:
    """Undo `pack_ids`."""
    joined = data.tobytes()
    return [joined[begin:end].decode("utf-8", "surrogatepass") for begin, end in pairwise(offsets.tolist())]

"""Small numpy tools the stores are built from: growing arrays and row offsets."""

from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
# Large arrays take half the bytes.
Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]


class GrowingArray:
    """A one-dimensional array that grows at its end; its buffer grows by half, so that n appends cost O(n).

    Args:
        values: First content; it is copied.
        dtype: Type of the elements.
    """

    def __init__(self, values: npt.ArrayLike, dtype: npt.DTypeLike) -> None:
        self._buffer: npt.NDArray[Any] = np.array(values, dtype=dtype)
        self._size = len(self._buffer)

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> npt.NDArray[Any]:
        """The content, (size,), as a view: valid until the array grows."""
        return self._buffer[: self._size]

    @property
    def nbytes(self) -> int:
        """Bytes held, spare room included."""
        return self._buffer.nbytes

    def resize(self, size: int) -> None:
        """Have `size` elements: new ones are 0, those past the end are dropped."""
        if size > len(self._buffer):
            grown = np.empty(max(size, len(self._buffer) * 3 // 2), dtype=self._buffer.dtype)
            grown[: self._size] = self.values
            self._buffer = grown
        self._buffer[self._size : size] = 0
        self._size = size

    def append(self, values: npt.ArrayLike) -> None:
        """Add `values`, (n,), at the end."""
        added = np.asarray(values)
        begin = self._size
        self.resize(begin + len(added))
        self._buffer[begin : self._size] = added

    def keep(self, places: IntArray) -> None:
        """Have only the elements at `places`, (n,), without spare room."""
        self._buffer = self.values[places]
        self._size = len(places)


def offsets_of(lengths: IntArray) -> IntArray:
    """Row offsets (n + 1,) of rows with the given lengths (n,)."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets

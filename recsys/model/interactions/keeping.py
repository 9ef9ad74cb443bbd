"""What stays when a model forgets users and items, and the codes that it has from then on."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from recsys.model.common.arrays import Int32Array, IntArray


@dataclass(frozen=True)
class KeptRows:
    """The users, or the items, that stay. Codes stay dense, and in the order of appearance.

    Attributes:
        codes: (n,) int64 codes that they have had, ascending: the one at place c has the code c from now on.
        renumbered: (rows,) int64 new code of every row that there was, -1 for those that go.
    """

    codes: IntArray
    renumbered: IntArray

    @classmethod
    def of(cls, stays: npt.NDArray[np.bool_]) -> Self:
        """From whether each row (rows,) stays."""
        codes = np.flatnonzero(stays)
        renumbered = np.full(len(stays), -1)
        renumbered[codes] = np.arange(len(codes))
        return cls(codes, renumbered)

    def __len__(self) -> int:
        return len(self.codes)

    def in_slots(self, slots: Int32Array) -> Int32Array:
        """The new content of slots (...) that hold codes, one higher, or 0 for none: 0 also for what goes."""
        renumbered: Int32Array = np.append(-1, self.renumbered)[slots].astype(np.int32) + np.int32(1)
        return renumbered

    def latest_in_slots(self, slots: Int32Array) -> Int32Array:
        """The same for rows of slots, newest first: what is left of a row moves up, and its free slots come last."""
        left = self.in_slots(slots)
        return np.take_along_axis(left, np.argsort(left == 0, axis=1, kind="stable"), axis=1)


@dataclass(frozen=True)
class Kept:
    """The users and items that stay."""

    users: KeptRows
    items: KeptRows

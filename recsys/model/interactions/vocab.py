"""Ids are strings outside and dense, append-only integers inside."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice, repeat

import numpy as np

from recsys.model.common.arrays import IntArray
from recsys.model.interactions.keeping import KeptRows


class Vocabulary:
    """Maps ids to codes 0, 1, 2, ... in the order in which they first appeared. A code never changes.

    Where ids are forgotten, another vocabulary takes the place of this one (`kept`).

    Args:
        ids: Distinct ids that take the first codes.
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._codes: defaultdict[str, int] = defaultdict()
        # A missing id takes the number of ids so far: reading it is adding it, at the speed of the dictionary.
        self._codes.default_factory = self._codes.__len__
        self.extend(list(ids))

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def ids(self) -> list[str]:
        """All ids in the order of their codes."""
        return list(self._codes)

    def since(self, count: int) -> list[str]:
        """The ids with codes of `count` and above, at a cost that follows their number."""
        newest = islice(reversed(self._codes), max(len(self) - count, 0))
        return list(newest)[::-1]

    def kept(self, rows: KeptRows) -> "Vocabulary":
        """A vocabulary of the ids that stay."""
        ids = self.ids
        return Vocabulary(ids[code] for code in rows.codes.tolist())

    def extend(self, ids: Sequence[str]) -> IntArray:
        """Codes of `ids`, (n,) int64; ids not seen before are added in order of appearance."""
        return np.fromiter(map(self._codes.__getitem__, ids), dtype=np.int64, count=len(ids))

    def lookup(self, ids: Sequence[str]) -> IntArray:
        """Codes of `ids`, (n,) int64, -1 for unknown ones. Adds nothing."""
        return np.fromiter(map(self._codes.get, ids, repeat(-1)), dtype=np.int64, count=len(ids))

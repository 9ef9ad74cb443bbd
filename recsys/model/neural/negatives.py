"""Negative sampling: unseen items that stand for what users are not interested in."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.model.common.arrays import IntArray
from recsys.model.interactions.history import History

# A seen item is redrawn at most this often. A user for whom that fails has interacted with nearly everything.
_ROUNDS = 8


@dataclass(frozen=True)
class Negatives:
    """Negatives drawn for n users.

    Attributes:
        items: (n, count) int64 codes.
        valid: (n, count) bool, false where no unseen item was found.
    """

    items: IntArray
    valid: npt.NDArray[np.bool_]


class NegativeSampler:
    """Draws unseen items with probabilities in proportion to (1 + number of users who interacted with it)^exponent.

    Args:
        history: All interactions.
        items: Number of items; the codes below it are drawn.
        exponent: 0 draws uniformly, 1 by popularity.
    """

    def __init__(self, history: History, items: int, exponent: float) -> None:
        self._history, self._items = history, items
        self._shares = None
        if exponent > 0:
            weights = (1.0 + history.by_item.lists.lengths[:items]) ** exponent
            self._shares = np.cumsum(weights) / weights.sum()

    def draw(self, users: IntArray, count: int, generator: np.random.Generator) -> Negatives:
        """Draw `count` items for each of users (n,), independently: an item may be drawn twice.

        Redrawing seen items keeps the probabilities of the unseen ones in proportion.
        """
        owners = np.repeat(users, count)
        items = self._any(len(owners), generator)
        seen = np.flatnonzero(self._history.has_pairs(owners, items))
        for _ in range(_ROUNDS):
            if not len(seen):
                break
            items[seen] = self._any(len(seen), generator)
            seen = seen[self._history.has_pairs(owners[seen], items[seen])]
        valid = np.ones(len(items), dtype=bool)
        valid[seen] = False
        return Negatives(items.reshape(-1, count), valid.reshape(-1, count))

    def _any(self, count: int, generator: np.random.Generator) -> IntArray:
        if self._shares is None:
            return generator.integers(self._items, size=count)
        found: IntArray = np.searchsorted(self._shares, generator.random(count), side="right").astype(np.int64)
        # The last share may be a little below 1.
        return np.minimum(found, self._items - 1)

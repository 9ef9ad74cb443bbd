"""The best items of users, from the scores of a registered version."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .arrays import Array, Lists, ragged_ranges
from .served import kind_of
from .version import VersionScorer

UNKNOWN = -1
# Scores of a block fit the cache where the catalog allows it; very few users at once would waste the multiplication.
BLOCK_BYTES = 8 << 20
USERS_PER_BLOCK = 64


@dataclass(frozen=True)
class Rankings:
    """Lists of n users, best first, one after the other.

    Attributes:
        lengths: (n,) int64, length of each user's list.
        items: (sum of lengths,) int64, rows of the item arrays.
        scores: (sum of lengths,) float32.
    """

    lengths: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


class Ranker:
    """Ranks items for users, in blocks of users so that memory stays bounded.

    Args:
        arrays: those of the version's artifact, see `Served.packed`.
    """

    def __init__(self, arrays: dict[str, Array]) -> None:
        self.arrays = arrays
        self.users = len(arrays["user_ids_offsets"]) - 1
        self.items = len(arrays["item_ids_offsets"]) - 1
        self._scorer = VersionScorer(kind_of(arrays), arrays)

    def warm_up(self) -> None:
        """Have all that `rank` and `rank_candidates` need compiled, or read from where it is kept."""
        rows = np.arange(min(self.users, 1), dtype=np.int64)
        asked = (np.append(rows, UNKNOWN), np.full(len(rows) + 1, 1), np.ones(len(rows) + 1, dtype=bool))
        self.rank(*asked)
        self.rank_candidates(*asked, [np.arange(min(self.items, 1))] * (len(rows) + 1))

    def rank(self, rows: Array, k: Array, exclude_seen: Array) -> Rankings:
        """Rank the whole catalog.

        Equal scores are ordered by item row. A list is shorter than `k` where fewer items are left.

        Args:
            rows: (n,) int64, rows of the users, -1 for an unknown one.
            k: (n,) int64, wanted lengths, at least 1.
            exclude_seen: (n,) bool, leave out the user's own items.
        """
        if self.items == 0 or len(rows) == 0:
            return _nothing(len(rows))
        ranked = self._scorer.rank(rows, k, self._seen(rows, exclude_seen), Lists.empty(len(rows)))
        listed = np.arange(ranked.items.shape[1]) < ranked.lengths[:, None]
        return Rankings(ranked.lengths, ranked.items[listed].astype(np.int64), ranked.scores[listed])

    def rank_candidates(self, rows: Array, k: Array, exclude_seen: Array, candidates: list[Array]) -> Rankings:
        """Rank some items per user; arguments as in `rank`, `candidates` holds n arrays of item rows."""
        if self.items == 0 or len(rows) == 0:
            return _nothing(len(rows))
        item = np.concatenate(candidates)
        position = np.repeat(np.arange(len(rows)), [len(some) for some in candidates])
        pairs = np.unique(position * self.items + item)
        seen = self._seen(rows, exclude_seen)
        pairs = pairs[~np.isin(pairs, seen.owners * self.items + seen.items)]
        position, item = np.divmod(pairs, self.items)
        score = np.empty(len(pairs), dtype=np.float32)
        for block in self._blocks(rows):
            own = slice(*np.searchsorted(position, (block.start, block.stop)))
            score[own] = self._scorer.score(rows[block])[position[own] - block.start, item[own]]
        return _best_first(position, item, score, k)

    def _blocks(self, rows: Array) -> list[slice]:
        size = max(USERS_PER_BLOCK, BLOCK_BYTES // (4 * self.items))
        return [slice(start, start + size) for start in range(0, len(rows), size)]

    def _seen(self, rows: Array, exclude_seen: Array) -> Lists:
        """What is left out of each user's list."""
        known = np.flatnonzero(exclude_seen & (rows != UNKNOWN))
        start = self.arrays["seen_offsets"][rows[known]]
        lengths = np.zeros(len(rows), dtype=np.int64)
        lengths[known] = self.arrays["seen_offsets"][rows[known] + 1] - start
        return Lists.of(lengths, self.arrays["seen_items"][ragged_ranges(start, lengths[known])])


def _best_first(position: Array, item: Array, score: Array, k: Array) -> Rankings:
    """Sort pairs by list, falling score, item; cut each list at its k."""
    order = np.lexsort((item, -score, position))
    position = position[order]
    lengths = np.bincount(position, minlength=len(k))
    place = np.arange(len(order)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = order[place < k[position]]
    return Rankings(np.minimum(lengths, k), item[kept].astype(np.int64), score[kept])


def _nothing(users: int) -> Rankings:
    return Rankings(np.zeros(users, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))

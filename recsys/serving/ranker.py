"""The best items of users, from the scores of a registered version."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .arrays import Array, Lists, ragged_ranges
from .ranking import Contributions, Reason, ServedBy
from .served import kind_of
from .top import cut_lists
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


@dataclass(frozen=True)
class Wishes:
    """What n users ask for beside a list.

    Attributes:
        recent: rows of items that they have interacted with since the version was made, latest last.
        excluded: rows of items that their lists shall not hold.
    """

    recent: Lists
    excluded: Lists

    def of_users(self, users: Array) -> "Wishes":
        """Those of some users, by their places (m,)."""
        return Wishes(self.recent.of_users(users), self.excluded.of_users(users))


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
        some = [np.arange(min(self.items, 1))] * (len(rows) + 1)
        self.rank_candidates(*asked, some)
        recent = Lists.of(np.array([len(own) for own in some]), np.concatenate(some))
        self.rank(*asked, Wishes(recent, Lists.empty(len(some))))

    def rank(self, rows: Array, k: Array, exclude_seen: Array, asked: Wishes | None = None) -> Rankings:
        """Rank the whole catalog.

        Equal scores are ordered by item row. A list is shorter than `k` where fewer items are left.

        Args:
            rows: (n,) int64, rows of the users, -1 for an unknown one.
            k: (n,) int64, wanted lengths, at least 1.
            exclude_seen: (n,) bool, leave out the user's own items.
            asked: What else is asked for.
        """
        if self.items == 0 or len(rows) == 0:
            return _nothing(len(rows))
        left_out, (scorer, own) = self._left_out(rows, exclude_seen, asked), self._with_recent(rows, asked)
        ranked = scorer.rank(own, np.minimum(k, self.items), left_out, Lists.empty(len(rows)))
        listed = np.arange(ranked.items.shape[1]) < ranked.lengths[:, None]
        return Rankings(ranked.lengths, ranked.items[listed].astype(np.int64), ranked.scores[listed])

    def served_by(self, rows: Array, recent: Lists | None = None) -> ServedBy:
        """The rankings that serve users by row, (n,), -1 for unknown ones, after recent items."""
        return self._scorer.served_by(rows, recent)

    def rank_candidates(
        self, rows: Array, k: Array, exclude_seen: Array, candidates: list[Array], asked: Wishes | None = None
    ) -> Rankings:
        """Rank some items per user; arguments as in `rank`, `candidates` holds n arrays of item rows."""
        if self.items == 0 or len(rows) == 0:
            return _nothing(len(rows))
        item = np.concatenate(candidates)
        position = np.repeat(np.arange(len(rows)), [len(some) for some in candidates])
        pairs = np.unique(position * self.items + item)
        left_out = self._left_out(rows, exclude_seen, asked)
        pairs = pairs[~np.isin(pairs, left_out.owners * self.items + left_out.items)]
        position, item = np.divmod(pairs, self.items)
        score = self._at(rows, Lists.of(np.bincount(position, minlength=len(rows)), item), asked)
        kept, _, lengths = cut_lists(position, item, score, k)
        return Rankings(lengths, item[kept].astype(np.int64), score[kept].astype(np.float32))

    def score(self, rows: Array, items: Array, asked: Wishes | None = None) -> Array:
        """(n,) float32 scores of pairs: users by row, -1 for unknown ones, and rows of items."""
        if asked is None:
            distinct, places = np.unique(rows, return_inverse=True)
            order = np.argsort(places, kind="stable")
            lists = Lists.of(np.bincount(places, minlength=len(distinct)), items[order])
            scores = np.empty(len(rows))
            scores[order] = self._at(distinct, lists, None)
        else:
            scores = self._at(rows, Lists.of(np.ones(len(rows), dtype=np.int64), items), asked)
        return scores.astype(np.float32)

    def contributions(self, rows: Array, lists: Lists, asked: Wishes | None = None) -> list[Contributions]:
        """What each of the items (c,) of users (n,) owes its score to."""
        scorer, own = self._with_recent(rows, asked)
        return scorer.contributions(own, lists) if len(lists.items) else []

    def reasons(self, rows: Array, lists: Lists, asked: Wishes | None = None) -> list[list[Reason]]:
        """Items of the users because of which each of the items (c,) scores as it does."""
        scorer, own = self._with_recent(rows, asked)
        return scorer.reasons(own, lists) if len(lists.items) else []

    def user_vectors(self, rows: Array, asked: Wishes) -> Array | None:
        """(n, f) factors of users, zeros where nothing is known; None if the version has none."""
        scorer, own = self._with_recent(rows, asked)
        return scorer.factors(own)

    def _with_recent(self, rows: Array, asked: Wishes | None) -> tuple[VersionScorer, Array]:
        """The scorer of users with what they have just done, and their rows in it."""
        if asked is None:
            return self._scorer, rows
        return self._scorer.with_recent(rows, asked.recent), np.arange(len(rows))

    def _at(self, rows: Array, lists: Lists, asked: Wishes | None) -> Array:
        """(c,) float64 scores of items of users, in blocks of users."""
        scorer, own = self._with_recent(rows, asked)
        scores = np.empty(len(lists.items))
        for block in self._blocks(rows):
            part = lists.of_users(block)
            scores[lists.offsets[block.start] : lists.offsets[block.start] + len(part.items)] = scorer.at(
                own[block], part
            )
        return scores

    def _blocks(self, rows: Array) -> list[slice]:
        size = max(USERS_PER_BLOCK, BLOCK_BYTES // (4 * self.items))
        return [slice(start, start + size) for start in range(0, len(rows), size)]

    def _left_out(self, rows: Array, exclude_seen: Array, asked: Wishes | None) -> Lists:
        """What is left out of each user's list, ascending."""
        known = np.flatnonzero(exclude_seen & (rows != UNKNOWN))
        start = self.arrays["seen_offsets"][rows[known]]
        lengths = np.zeros(len(rows), dtype=np.int64)
        lengths[known] = self.arrays["seen_offsets"][rows[known] + 1] - start
        seen = Lists.of(lengths, self.arrays["seen_items"][ragged_ranges(start, lengths[known])])
        if asked is None:
            return seen
        recent = asked.recent
        hidden = exclude_seen[recent.owners]
        owners = np.concatenate([seen.owners, asked.excluded.owners, recent.owners[hidden]])
        items = np.concatenate([seen.items, asked.excluded.items, recent.items[hidden]])
        owners, items = np.divmod(np.unique(owners * self.items + items), self.items)
        return Lists.of(np.bincount(owners, minlength=len(rows)), items)


def _nothing(users: int) -> Rankings:
    return Rankings(np.zeros(users, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))

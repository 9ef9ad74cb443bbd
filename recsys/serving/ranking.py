"""What every scorer answers: the best items of users, and the ranks of given items."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, Self

import numpy as np

from .arrays import Array, Lists
from .top import contenders, cut_lists
from .walks import contained

_COMPARISONS_AT_ONCE = 1 << 24
# Numbers that the lists of a block of users may have.
_LISTED_AT_ONCE = 1 << 21
# Items that explain a score, at most, by each member.
_REASONS = 3


@dataclass(frozen=True)
class Ranked:
    """Lists of n users, and the ranks of wanted items.

    Attributes:
        items: (n, k) int32 rows of items, best first, of equal ones the first item; -1 where no more are left.
        scores: (n, k) float32.
        lengths: (n,) int64, lengths of the lists.
        above: (w,) int64, for each wanted item how many others score at least as much, of those that are not left out;
            -1 if it is left out itself.
        open_items: (n,) int64, how many items might have been recommended.
        informed: (n,) bool, false for users about whom nothing is known; their lists are worth nothing.
    """

    items: Array
    scores: Array
    lengths: Array
    above: Array
    open_items: Array
    informed: Array

    @classmethod
    def joined(cls, parts: list["Ranked"]) -> "Ranked":
        """One after the other."""
        width = max(part.items.shape[1] for part in parts)
        return cls(
            np.concatenate([_widened(part.items, width, -1) for part in parts]),
            np.concatenate([_widened(part.scores, width, 0) for part in parts]),
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("lengths", "above", "open_items", "informed")
            ),
        )

    def with_lists(self, users: Array, other: "Ranked") -> "Ranked":
        """With the lists of some users, by their places (m,), replaced; ranks of wanted items stay."""
        width = max(self.items.shape[1], other.items.shape[1])
        items, scores, lengths = _widened(self.items, width, -1), _widened(self.scores, width, 0), self.lengths.copy()
        items[users], scores[users] = _widened(other.items, width, -1), _widened(other.scores, width, 0)
        lengths[users] = other.lengths
        return Ranked(items, scores, lengths, self.above, self.open_items, self.informed)


def _widened(table: Array, width: int, value: int) -> Array:
    """A copy of a table (n, k), with columns of one value up to a width."""
    return np.pad(table, ((0, 0), (0, width - table.shape[1])), constant_values=value)


class Scorer(Protocol):
    """Scores items for users, by their row in the version's arrays, -1 for unknown users."""

    @property
    def users_at_once(self) -> int:
        """Users whose ranking fits the memory, and the cache where the catalog allows it."""

    def score(self, rows: Array) -> Array:
        """(n, items) float32 for rows (n,) of users; a row of zeros where nothing is known."""

    def rank(self, rows: Array, k: Array, left_out: Lists, wanted: Lists) -> Ranked:
        """The best items of users.

        Args:
            rows: (n,) int64.
            k: (n,) int64, wanted lengths.
            left_out: Items that are not to be recommended, ascending for each user.
            wanted: Items whose ranks are asked for.
        """

    def at(self, rows: Array, lists: Lists) -> Array:
        """(c,) float64: scores of items of users (n,), those of `score`; of a network, but for rounding."""


# What an item owes its score to, by name; the parts add up to it.
Contributions = dict[str, float]


@dataclass(frozen=True)
class Reason:
    """An item of a user because of which another one scores as it does.

    Attributes:
        member: What says so, such as `als`.
        item: Row of the user's item.
        weight: What it adds to the member's own score.
    """

    member: str
    item: int
    weight: float


def strongest(member: str, items: Array, weights: Array) -> list[Reason]:
    """Of a user's items (j,) those that add most to a score, by what they add (j,)."""
    best = np.argsort(-weights, kind="stable")[:_REASONS]
    return [Reason(member, int(items[one]), float(weights[one])) for one in best if weights[one] > 0]


@dataclass(frozen=True)
class ServedBy:
    """The rankings that serve n users, and with which chance each of them was drawn.

    Attributes:
        names: of the rankings.
        choices: (n,) int64, places in `names`.
        chances: (n,) float64, above 0.
    """

    names: list[str]
    choices: Array
    chances: Array


class VersionedScorer(Scorer, Protocol):
    """A scorer of a version: it also answers for what users have just done, and explains its scores."""

    def with_recent(self, rows: Array, recent: Lists) -> Self:
        """The scorer of users (n,), row by row, as if they had interacted with recent items (latest last) just now.

        Rows of what is returned count the users that are given, from 0 on.
        """

    def factors(self, rows: Array) -> Array | None:
        """(n, f) float32 factors of users, zeros where nothing is known; None for a scorer without factors."""

    def contributions(self, rows: Array, lists: Lists) -> list[Contributions]:
        """Of the scores of items (c,) of users (n,)."""

    def reasons(self, rows: Array, lists: Lists) -> list[list[Reason]]:
        """Of the scores of items (c,) of users (n,), the strongest first; none where the scorer knows none."""


class UserScores(Protocol):
    """The scores of n users for all items, computed or not."""

    def rank(self, k: Array, left_out: Lists, wanted: Lists) -> Ranked:
        """See `Scorer`."""

    def at(self, lists: Lists) -> Array:
        """(c,) float64 scores of items."""

    def all(self) -> Array:
        """(n, items) float32."""


class DenseScores:
    """Scores of all items for n users, as a learner makes them that cannot do without.

    Args:
        scores: (n, items) float32.
    """

    def __init__(self, scores: Array) -> None:
        self.scores = scores

    def rank(self, k: Array, left_out: Lists, wanted: Lists) -> Ranked:
        """See `Scorer`."""
        informed = np.asarray(self.scores.any(axis=1))
        scores = self.scores
        if len(left_out.items):
            scores = scores.copy()
            scores[left_out.owners, left_out.items] = -np.inf
        owners = wanted.owners
        own = scores[owners, wanted.items]
        above = np.where(np.isfinite(own), _others_above(scores, own, wanted.offsets), -1)
        items, values, lengths = _lists(scores, np.minimum(k, scores.shape[1]))
        return Ranked(items, values, lengths, above, np.isfinite(scores).sum(axis=1), informed)

    def at(self, lists: Lists) -> Array:
        """(c,) float64 scores of items."""
        found: Array = self.scores[lists.owners, lists.items].astype(np.float64)
        return found

    def all(self) -> Array:
        """(n, items) float32."""
        return self.scores


class DenseScorer(ABC):
    """A scorer that can score all items, in order to rank some."""

    items: int

    @abstractmethod
    def score(self, rows: Array) -> Array:
        """See `Scorer`."""

    @property
    def users_at_once(self) -> int:
        """See `Scorer`; very few users at once would waste the multiplication."""
        return max(64, (2 << 20) // max(self.items, 1))

    def of_users(self, rows: Array) -> UserScores:
        """The scores of users (n,)."""
        return DenseScores(self.score(rows))

    def rank(self, rows: Array, k: Array, left_out: Lists, wanted: Lists) -> Ranked:
        """See `Scorer`."""
        return self.of_users(rows).rank(k, left_out, wanted)

    def at(self, rows: Array, lists: Lists) -> Array:
        """See `Scorer`."""
        return self.of_users(rows).at(lists)

    def factors(self, rows: Array) -> Array | None:
        """See `VersionedScorer`; for scorers without factors."""
        del rows
        return None

    def reasons(self, rows: Array, lists: Lists) -> list[list[Reason]]:
        """See `VersionedScorer`; for scorers that know none."""
        return [[] for _ in lists.items]


def rank_in_blocks(scorer: Scorer, rows: Array, k: Array, left_out: Lists, wanted: Lists) -> Ranked:
    """What `scorer.rank` returns, in blocks of users, on all processors.

    The blocks decide nothing: each user is ranked alone. Compiled code and numpy let other threads run meanwhile, and
    several requests may be answered at the same time, which numba's own threads do not allow.
    """
    threads = _threads()
    size = max(1, min(scorer.users_at_once, _LISTED_AT_ONCE // max(int(k.max(initial=1)), 1), -(-len(rows) // threads)))
    blocks = [slice(begin, begin + size) for begin in range(0, len(rows), size)] or [slice(0, 0)]

    def ranked(block: slice) -> Ranked:
        return scorer.rank(rows[block], k[block], left_out.of_users(block), wanted.of_users(block))

    return Ranked.joined(_each(ranked, blocks, threads))


def missing(wanted: Lists, left_out: Lists, item_count: int) -> Array:
    """(w,) bool: whether wanted items are left out."""
    found: Array = contained(*left_out, *wanted, item_count)
    return found


def _each(function: Callable[[slice], Ranked], blocks: list[slice], threads: int) -> list[Ranked]:
    if len(blocks) == 1 or threads == 1:
        return [function(block) for block in blocks]
    with ThreadPoolExecutor(min(threads, len(blocks))) as pool:
        return list(pool.map(function, blocks))


def _threads() -> int:
    """As many as Spark grants a task, or as this process may use processors."""
    granted = os.environ.get("OMP_NUM_THREADS", "")
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(int(granted), processors) if granted.isdigit() and int(granted) else processors


def _lists(scores: Array, k: Array) -> tuple[Array, Array, Array]:
    """Items and scores of the best k (n,) finite scores of each row, best first, of equal ones the first; lengths."""
    most = int(k.max(initial=0))
    items, values = np.full((len(k), most), -1, dtype=np.int32), np.zeros((len(k), most), dtype=np.float32)
    if not most:
        return items, values, np.zeros(len(k), dtype=np.int64)
    row, column = contenders(scores, most)
    kept, ranks, lengths = cut_lists(row, column, scores[row, column], k)
    row, column = row[kept], column[kept]
    items[row, ranks], values[row, ranks] = column, scores[row, column]
    return items, values, lengths


def _others_above(scores: Array, own_scores: Array, offsets: Array) -> Array:
    """(w,) for each entry, how many other items of its user score at least as high."""
    above = np.empty(len(own_scores), dtype=np.int64)
    step = max(1, _COMPARISONS_AT_ONCE // max(scores.shape[1], 1))
    # By user, so that a user's scores stay in the cache: twenty times faster than gathering them for each entry.
    for user, (begin, end) in enumerate(pairwise(offsets.tolist())):
        for start in range(begin, end, step):
            entries = slice(start, min(start + step, end))
            above[entries] = (scores[user] >= own_scores[entries, None]).sum(axis=1)
    return above - 1

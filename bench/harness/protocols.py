"""Two ways to ask how good recommendations are, and the figures they give.

Both cut a data set into what may be learned and what is asked. Cutting the learned part once more in the same way
gives a question for the choice of settings, so that nothing is chosen on what is asked in the end.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from recsys.model.common.arrays import FloatArray, IntArray, offsets_of
from recsys.model.evaluation.metrics import Relevant, ranked_by_scores, ranking_figures

Scores = npt.NDArray[np.float32]
# Scores of all items for users (n,): (n, items).
Scorer = Callable[[IntArray], Scores]

SHORT_LIST, LONG_LIST = 10, 20
NEGATIVES = 100
_TRAIN_SHARE = 0.8
# Users are scored in groups of at most this many scores.
_SCORES_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Events:
    """Distinct pairs of a user and an item in the order of time.

    Attributes:
        users, items: (n,) codes below `user_count` and `item_count`, which may be more than occur here.
        times: (n,) seconds, never falling.
        user_count, item_count: of the whole data set.
    """

    users: IntArray
    items: IntArray
    times: FloatArray
    user_count: int
    item_count: int

    def __len__(self) -> int:
        return len(self.users)

    def part(self, chosen: IntArray | npt.NDArray[np.bool_]) -> "Events":
        """Those at the chosen places, which ascend, or where `chosen` (n,) is true."""
        return Events(self.users[chosen], self.items[chosen], self.times[chosen], self.user_count, self.item_count)


@dataclass(frozen=True)
class Split:
    """What may be learned, and what is asked.

    Attributes:
        train: what may be learned.
        users: (measured,) distinct codes of the users who are asked about.
        relevant: their hits: item codes, or columns of `candidates` where there are any.
        candidates: (measured, candidates) item codes that are ranked for each user; None: all unseen items.
    """

    train: Events
    users: IntArray
    relevant: Relevant
    candidates: IntArray | None = None


@dataclass(frozen=True)
class Figures:
    """Figures of each user, (measured,) float64.

    Attributes:
        hit: 1 where something relevant is among the first 10, else 0; its mean is HR@10.
        ndcg: NDCG@10.
        recall: share of the relevant items among the first 20.
    """

    hit: FloatArray
    ndcg: FloatArray
    recall: FloatArray


def leave_last_out(events: Events, seed: int, negatives: int = NEGATIVES) -> Split:
    """Ask for each user's last item among items drawn from the user's unseen ones.

    Users with a single event are learned from, but not asked about. A cold item is a miss.

    Args:
        events: All events; of those at the same time the later in order is the last.
        seed: Of the draw, without replacement, among the items that occur in `events`.
        negatives: How many are drawn for each user.

    Raises:
        ValueError: nobody has two events, or a user leaves too few items to draw from.

    Source: He et al., "Neural collaborative filtering" (2017), section 4.1.
    """
    by_user = np.argsort(events.users, kind="stable")
    counts = np.bincount(events.users, minlength=events.user_count)
    ends = np.cumsum(counts)
    users = np.flatnonzero(counts >= 2)
    if not len(users):
        raise ValueError("no user has two events: there is no last one to leave out")
    last = by_user[ends[users] - 1]
    occurs = np.bincount(events.items, minlength=events.item_count) > 0
    if occurs.sum() - counts.max() < negatives:
        raise ValueError(f"a user with {counts.max()} of {occurs.sum()} items leaves fewer than {negatives} to draw")
    generator = np.random.default_rng(seed)
    candidates = np.empty((len(users), 1 + negatives), dtype=np.int64)
    candidates[:, 0] = events.items[last]
    for row, user in enumerate(users.tolist()):
        free = occurs.copy()
        free[events.items[by_user[ends[user] - counts[user] : ends[user]]]] = False
        candidates[row, 1:] = generator.choice(np.flatnonzero(free), negatives, replace=False)
    learned = np.ones(len(events), dtype=bool)
    learned[last] = False
    first = Relevant(np.arange(len(users) + 1), np.zeros(len(users), np.int64), np.zeros(len(users), np.int64))
    return Split(events.part(learned), users, first, candidates)


def split_by_time(events: Events) -> Split:
    """Learn from the first 80 % of the events, ask for the rest among all items.

    Asked are users and items that occur in what is learned. Events at the time of the cut all belong to the rest.

    Raises:
        ValueError: nothing is left to learn or to ask.
    """
    learned = events.times < events.times[int(_TRAIN_SHARE * len(events))]
    train, rest = events.part(learned), events.part(~learned)
    known_users = np.bincount(train.users, minlength=events.user_count) > 0
    known_items = np.bincount(train.items, minlength=events.item_count) > 0
    asked = rest.part(known_users[rest.users] & known_items[rest.items])
    if not len(asked):
        raise ValueError("a cut by time leaves no user and item that occur on both sides")
    users, rows = np.unique(asked.users, return_inverse=True)
    order = np.argsort(rows, kind="stable")
    offsets = offsets_of(np.bincount(rows, minlength=len(users)))
    return Split(train, users, Relevant(offsets, asked.items[order], np.zeros(len(users), dtype=np.int64)))


def measure(split: Split, scorer: Scorer) -> Figures:
    """Rank and compare. Items without interactions in `train` cannot be recommended; ties are misses."""
    train = split.train
    never = np.bincount(train.items, minlength=train.item_count) == 0
    by_user = np.argsort(train.users, kind="stable")
    begins = np.searchsorted(train.users[by_user], split.users)
    ends = np.searchsorted(train.users[by_user], split.users, side="right")
    group = max(1, _SCORES_AT_ONCE // train.item_count)
    parts = list[Figures]()
    for begin in range(0, len(split.users), group):
        rows = slice(begin, min(begin + group, len(split.users)))
        scores = np.where(never, np.float32(-np.inf), scorer(split.users[rows]))
        if split.candidates is not None:
            scores = np.take_along_axis(scores, split.candidates[rows], axis=1)
        else:
            for row, start, end in zip(scores, begins[rows], ends[rows], strict=True):
                row[train.items[by_user[start:end]]] = -np.inf
        parts.append(_figures(scores, _rows_of(split.relevant, rows)))
    return Figures(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("hit", "ndcg", "recall")))


def _rows_of(relevant: Relevant, rows: slice) -> Relevant:
    offsets = relevant.offsets[rows.start : rows.stop + 1]
    return Relevant(offsets - offsets[0], relevant.items[offsets[0] : offsets[-1]], relevant.unknown[rows])


def _figures(scores: Scores, relevant: Relevant) -> Figures:
    table, wanted = torch.from_numpy(scores), relevant.lists
    ranked = {k: ranked_by_scores(table, wanted, k + 1) for k in (SHORT_LIST, LONG_LIST)}
    short, long = (ranking_figures(found, relevant, k) for k, found in ranked.items())
    return Figures((short.recall > 0).astype(np.float64), short.ndcg, long.recall)

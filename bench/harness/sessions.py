"""Sessions of events, and the question that each of them asks: its last item, given those before it.

Protocol of Moreira et al., "Transformers4Rec" (RecSys 2021): learn from everything before a window of time, ask about
the sessions that begin in it, rank the whole catalog. A session ends when its user has done nothing for half an hour;
repeats in a row are one item; sessions of 2 to 20 items are asked about.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys.model.common.arrays import FloatArray, IntArray, offsets_of

GAP_SECONDS = 1_800.0
SHORTEST, LONGEST = 2, 20
K = 20
# Seeds of what is drawn: the order of what happened at the same instant, and the sessions that are asked about.
_SEED = 7
_SECONDS = {"hour": 3_600.0, "day": 86_400.0}


class Question(NamedTuple):
    """A running session: its user, its items so far, the item that comes next, and when that is."""

    user: int
    given: IntArray
    target: int
    time: float


class Window(NamedTuple):
    """A window of time: the number of its first event, and the questions of the sessions that begin in it."""

    begin: int
    questions: list[Question]


@dataclass(frozen=True)
class SessionEvents:
    """n events in the order of time.

    Attributes:
        frame: columns user, item (text), weight, time (seconds).
        users, items: (n,) codes.
        user_ids, item_ids: ids by code.
    """

    frame: pd.DataFrame
    users: IntArray
    items: IntArray
    user_ids: list[str]
    item_ids: list[str]

    @classmethod
    def of(cls, events: pd.DataFrame) -> "SessionEvents":
        """From events as `bench.harness.streams.Stream.events` gives them; those that are no interest are left out.

        The log keeps no order among events of the same time, such as the lines of one basket, and neither does this:
        theirs is drawn, once for all methods. So of a basket an item drawn at random is asked for, given the others.
        """
        liked = events[events["weight"] > 0]
        drawn = np.random.default_rng(_SEED).random(len(liked))
        frame = liked.iloc[np.lexsort((drawn, liked["time"].to_numpy()))].reset_index(drop=True)
        users, user_ids = pd.factorize(frame["user"])
        items, item_ids = pd.factorize(frame["item"])
        return cls(frame, users.astype(np.int64), items.astype(np.int64), list(user_ids), list(item_ids))

    def __len__(self) -> int:
        return len(self.users)

    @property
    def times(self) -> FloatArray:
        """(n,) seconds, never falling."""
        return self.frame["time"].to_numpy(np.float64)

    def sessions(self, end: int | None = None) -> "SessionTable":
        """The sessions of the first events, up to number `end`, in the order in which they end."""
        times = self.times[:end]
        order = np.argsort(self.users[:end], kind="stable")
        users, items, times = self.users[order], self.items[order], times[order]
        first = (np.diff(users, prepend=-1) != 0) | (np.diff(times, prepend=-np.inf) > GAP_SECONDS)
        kept = first | (np.diff(items, prepend=-1) != 0)
        owners = np.cumsum(first) - 1
        ends = times[np.append(np.flatnonzero(first)[1:], len(times)) - 1] if len(times) else times
        rank = np.empty(len(ends), dtype=np.int64)
        rank[np.argsort(ends, kind="stable")] = np.arange(len(ends))
        kept = np.flatnonzero(kept)[np.argsort(rank[owners[kept]], kind="stable")]
        lengths = np.bincount(rank[owners[kept]], minlength=len(ends))
        offsets = offsets_of(lengths)
        heads = kept[offsets[:-1]]
        return SessionTable(users[heads], offsets, items[kept], times[heads], np.sort(ends), len(self.item_ids))

    def seen(self, end: int, questions: Sequence[Question]) -> list[IntArray]:
        """What the user of each question has interacted with in the first events, up to number `end`."""
        order = np.argsort(self.users[:end], kind="stable")
        users = self.users[order]
        asking = np.array([question.user for question in questions], dtype=np.int64)
        begins, ends = np.searchsorted(users, asking), np.searchsorted(users, asking, side="right")
        return [self.items[order[begin:end]] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]


@dataclass(frozen=True)
class SessionTable:
    """m sessions in the order in which they end.

    Attributes:
        users: (m,) codes.
        offsets: (m + 1,); the items of session s are items[offsets[s]:offsets[s + 1]], in their order.
        items: codes below `item_count`.
        starts, ends: (m,) seconds.
        item_count: of the whole stream.
    """

    users: IntArray
    offsets: IntArray
    items: IntArray
    starts: FloatArray
    ends: FloatArray
    item_count: int

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> IntArray:
        """(m,) items of each."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> IntArray:
        """The session of each item."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @cached_property
    def by_item(self) -> tuple[IntArray, IntArray]:
        """Offsets (items + 1,) and the sessions that hold an item, in their order, each once."""
        pairs = np.unique(self.items * len(self) + self.owners)
        items, sessions = np.divmod(pairs, max(len(self), 1))
        return offsets_of(np.bincount(items, minlength=self.item_count)), sessions

    def followed(self, item: int) -> IntArray:
        """Places in `items` where an item stands that another one of the same session follows, ascending."""
        offsets, places = self._followed
        found: IntArray = places[offsets[item] : offsets[item + 1]]
        return found

    @cached_property
    def _followed(self) -> tuple[IntArray, IntArray]:
        """Offsets (items + 1,) and the places of items that are not the last of their session."""
        last = np.zeros(len(self.items), dtype=bool)
        last[self.offsets[1:] - 1] = True
        places = np.flatnonzero(~last)
        places = places[np.argsort(self.items[places], kind="stable")]
        return offsets_of(np.bincount(self.items[places], minlength=self.item_count)), places

    def counts(self, half_life: float) -> FloatArray:
        """(items,) how often an item occurs, each time counted half as much with so many items after it."""
        ages = np.arange(len(self.items) - 1, -1, -1)
        return np.bincount(self.items, np.exp2(-ages / half_life), minlength=self.item_count).astype(np.float64)


def window_starts(times: FloatArray, window: str | int) -> IntArray:
    """Numbers of the events that begin a window.

    Args:
        times: (n,) ascending, n > 0.
        window: `hour`, `day`, or a number of events; those of the same time stay together.
    """
    if isinstance(window, int):
        edges = np.searchsorted(times, times[::window])
    else:
        edges = np.flatnonzero(np.diff(np.floor(times / _SECONDS[window]), prepend=-1.0))
    return np.unique(edges)


def windows(events: SessionEvents, window: str | int, most: int) -> Iterator[Window]:
    """The windows of a stream, each with at most so many questions, a seeded sample.

    A session belongs to the window in which it begins, and is asked about only if none of it came before: what has been
    learned when a window begins holds nothing of its sessions.
    """
    whole, times = events.sessions(), events.times
    starts = window_starts(times, window)
    asked = np.flatnonzero((whole.lengths >= SHORTEST) & (whole.lengths <= LONGEST))
    places = np.searchsorted(times[starts], whole.starts[asked], side="right") - 1
    generator = np.random.default_rng(_SEED)
    for number, begin in enumerate(starts.tolist()):
        own = asked[places == number]
        own = np.sort(generator.permutation(own)[:most])
        yield Window(begin, [_question(whole, session) for session in own.tolist()])


def _question(sessions: SessionTable, session: int) -> Question:
    begin, end = sessions.offsets[session : session + 2].tolist()
    items = sessions.items[begin:end]
    return Question(int(sessions.users[session]), items[:-1], int(items[-1]), float(sessions.ends[session]))


def figures_of(above: IntArray) -> dict[str, npt.NDArray[np.float64]]:
    """Figures of each question, (n,), from how many items rank before its target; -1: the target is not ranked."""
    found = (above >= 0) & (above < K)
    places = np.where(found, above, 0)
    return {
        f"NDCG@{K}": found / np.log2(places + 2.0),
        f"HR@{K}": found.astype(np.float64),
        f"MRR@{K}": found / (places + 1.0),
    }

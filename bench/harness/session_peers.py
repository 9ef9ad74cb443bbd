"""What recommends within sessions, for comparison: popularity, first-order transitions, and two neighborhood methods.

Each answers with scores of all items, 0 for what it knows nothing of; the bench puts what is popular there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bench.harness.sessions import Question, SessionTable
from recsys.model.common.arrays import FloatArray, IntArray
from recsys.serving.arrays import ragged_ranges

_SECONDS_PER_DAY = 86_400.0
# The last sessions with one of the items of the running one, among which its neighbors are sought.
_SAMPLE = 2_500


class SessionPeer(Protocol):
    """Scores items for a running session, from sessions that have ended. Its fields are its settings."""

    def scores(self, learned: SessionTable, given: IntArray, time: float) -> FloatArray:
        """(items,) what comes next.

        Args:
            learned: What may be known.
            given: (n,) the items of the running session, latest last, n > 0.
            time: Now, in seconds.
        """


@dataclass(frozen=True)
class PopularItems:
    """How often an item occurred; `half_life` in items that came after it."""

    half_life: float

    def scores(self, learned: SessionTable, given: IntArray, time: float) -> FloatArray:
        """See `SessionPeer`."""
        del given, time
        return learned.counts(self.half_life)


@dataclass(frozen=True)
class Transitions:
    """How often an item came right after the last one of the running session (a Markov chain of first order).

    Attributes:
        half_life: Items, of any session, after which a transition counts half.
    """

    half_life: float

    def scores(self, learned: SessionTable, given: IntArray, time: float) -> FloatArray:
        """See `SessionPeer`."""
        del time
        places = learned.followed(int(given[-1]))
        weights = np.exp2(-(len(learned.items) - 1 - places) / self.half_life)
        return np.bincount(learned.items[places + 1], weights, minlength=learned.item_count).astype(np.float64)


@dataclass(frozen=True)
class Neighborhood:
    """Sessions that share items with the running one.

    Attributes:
        sessions: (c,) their numbers.
        owners: (e,) place in `sessions` of each of their distinct items.
        items, places: (e,) the items, and where each stands first in its session, from 0.
        given: (e,) place of an item in the running session, from 1, the last one if there are several; 0: not in it.
        nearest: (c,) the last item of the running session that each shares, as its place there.
        nearest_place: (c,) where that item stands in the session.
    """

    sessions: IntArray
    owners: IntArray
    items: IntArray
    places: IntArray
    given: IntArray
    nearest: IntArray
    nearest_place: IntArray

    @classmethod
    def of(cls, learned: SessionTable, given: IntArray) -> "Neighborhood":
        """The last sessions that hold one of some items."""
        offsets, holding = learned.by_item
        lists = [holding[max(offsets[item], offsets[item + 1] - _SAMPLE) : offsets[item + 1]] for item in given]
        sessions = np.unique(np.concatenate(lists))[-_SAMPLE:]
        lengths = learned.lengths[sessions]
        owners = np.repeat(np.arange(len(sessions)), lengths)
        items = learned.items[ragged_ranges(learned.offsets[sessions], lengths)]
        places = ragged_ranges(np.zeros(len(sessions), dtype=np.int64), lengths)
        _, once = np.unique(owners * learned.item_count + items, return_index=True)
        owners, items, places = owners[once], items[once], places[once]
        place_of = np.zeros(learned.item_count, dtype=np.int64)
        place_of[given] = np.arange(1, len(given) + 1)
        own = place_of[items]
        nearest, nearest_place = np.zeros(len(sessions), np.int64), np.zeros(len(sessions), np.int64)
        np.maximum.at(nearest, owners, own)
        hit = own == nearest[owners]
        np.maximum.at(nearest_place, owners[hit], places[hit])
        return cls(sessions, owners, items, places, own, nearest, nearest_place)

    def scores(self, similarity: FloatArray, weights: FloatArray, k: int, item_count: int) -> FloatArray:
        """(items,) the sums over the k most similar sessions of similarity (c,) times weight (e,)."""
        chosen = np.zeros(len(similarity), dtype=bool)
        # Of equally similar ones the later.
        chosen[np.argsort(-similarity[::-1], kind="stable")[:k]] = True
        found = np.where(chosen[::-1], similarity, 0.0)[self.owners] * weights
        return np.bincount(self.items, found, minlength=item_count).astype(np.float64)


@dataclass(frozen=True)
class VSkNN:
    """Vector multiplication session-based kNN.

    A session is as similar as the weights of the items that it shares with the running one, which rise to its end. It
    counts the less, the further back the last item that both share, and rare items count more.

    Attributes:
        k: Neighbors.
        linear: Whether an item weighs its place over the length of the running session; else 1 by its distance.
        rarity: What the inverse frequency of an item adds to its score.

    Source: Ludewig & Jannach, "Evaluation of session-based recommendation algorithms" (2018), section 3.3.
    """

    k: int
    linear: bool
    rarity: float

    def scores(self, learned: SessionTable, given: IntArray, time: float) -> FloatArray:
        """See `SessionPeer`."""
        del time
        near, length = Neighborhood.of(learned, given), len(given)
        rising = near.given / length if self.linear else 1.0 / (length + 1 - near.given)
        shares = np.where(near.given > 0, rising, 0.0)
        similarity = np.bincount(near.owners, shares, minlength=len(near.sessions)) / length
        further = similarity / (length + 1 - near.nearest)
        rarity = np.log((len(learned) + 1) / (np.diff(learned.by_item[0])[near.items] + 1.0))
        return near.scores(further, 1 + self.rarity * rarity, self.k, learned.item_count)


@dataclass(frozen=True)
class Stan:
    """Sequence and time aware neighborhood.

    Attributes:
        k: Neighbors.
        recency: Items after which one of the running session weighs 1/e.
        days: Days after which a session weighs 1/e.
        distance: Items around the last shared one at which an item of a neighbor weighs 1/e.

    Source: Garg et al., "Sequence and time aware neighborhood for session-based recommendations" (SIGIR 2019).
    """

    k: int
    recency: float
    days: float
    distance: float

    def scores(self, learned: SessionTable, given: IntArray, time: float) -> FloatArray:
        """See `SessionPeer`."""
        near, length = Neighborhood.of(learned, given), len(given)
        shares = np.where(near.given > 0, np.exp((near.given - length) / self.recency), 0.0)
        similarity = np.bincount(near.owners, shares, minlength=len(near.sessions))
        similarity = similarity / np.sqrt(length * learned.lengths[near.sessions])
        similarity *= np.exp((learned.ends[near.sessions] - time) / _SECONDS_PER_DAY / self.days)
        weights = np.exp(-np.abs(near.places - near.nearest_place[near.owners]) / self.distance)
        return near.scores(similarity, weights, self.k, learned.item_count)


POPULARITY, TRANSITIONS, VSKNN, STAN = "popularity", "transitions", "V-SkNN", "STAN"
# What each is tried with, before anything is measured.
GRIDS: dict[str, list[SessionPeer]] = {
    POPULARITY: [PopularItems(half_life) for half_life in (1_000.0, 10_000.0, 100_000.0, math.inf)],
    TRANSITIONS: [Transitions(half_life) for half_life in (10_000.0, 100_000.0, math.inf)],
    VSKNN: [VSkNN(k, linear, rarity) for k in (100, 500) for linear in (True, False) for rarity in (0.0, 1.0)],
    STAN: [
        Stan(500, recency, days, distance) for recency in (1.0, 4.0) for days in (3.0, 30.0) for distance in (1.0, 4.0)
    ],
}


def asked(
    peer: SessionPeer, learned: SessionTable, questions: Sequence[Question], seen: Sequence[IntArray] | None
) -> IntArray:
    """(questions,) how many items a peer ranks before the target, -1 where it has no score for it; ties are misses."""
    popular = learned.counts(np.inf)
    popular *= 1e-9 / max(popular.sum(), 1.0)
    above = np.full(len(questions), -1)
    for place, question in enumerate(questions):
        scores = peer.scores(learned, question.given, question.time) + popular
        if seen is not None:
            scores[seen[place]] = scores[question.given] = 0
        if scores[question.target] > 0:
            above[place] = (scores >= scores[question.target]).sum() - 1
    return above

"""Experience replay: the newest pairs, and a uniform sample of all pairs so far."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from recsys.model.common.arrays import Float32Array, IntArray
from recsys.model.interactions.history import History
from recsys.model.interactions.keeping import Kept
from recsys.model.learner import CodedBatch, State

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pairs:
    """Users with items that they interacted with.

    Attributes:
        users, items: (n,) int64 codes.
        weights: (n,) float32, positive.
    """

    users: IntArray
    items: IntArray
    weights: Float32Array

    def __len__(self) -> int:
        return len(self.users)

    def take(self, places: IntArray | Bools) -> "Pairs":
        """The pairs at the places (m,), or where `places` (n,) is true."""
        return Pairs(self.users[places], self.items[places], self.weights[places])

    def joined(self, other: "Pairs") -> "Pairs":
        """These, then the others."""
        return Pairs(
            np.concatenate([self.users, other.users]),
            np.concatenate([self.items, other.items]),
            np.concatenate([self.weights, other.weights]),
        )


def of_batch(batch: CodedBatch) -> Pairs:
    """The pairs of a batch, without those of weight 0."""
    weighted = np.flatnonzero(batch.weights)
    return Pairs(batch.users[weighted], batch.items[weighted], batch.weights[weighted].astype(np.float32))


def of_history(history: History) -> Pairs:
    """All pairs of positive weight, user by user."""
    users = np.arange(len(history.by_user))
    rows = history.user_rows(users)
    pairs = Pairs(np.repeat(users, rows.lengths), rows.others.astype(np.int64), rows.weights.astype(np.float32))
    return pairs.take(pairs.weights > 0)


def history_of(pairs: Pairs, like: History) -> History:
    """A history of these pairs alone, with as many users and items as another one."""
    history = History(None)
    history.add_rows(len(like.by_user), len(like.by_item))
    history.add(pairs.users, pairs.items, pairs.weights.astype(np.float64), np.zeros(len(pairs)))
    return history


def sample(pairs: Pairs, count: int, generator: np.random.Generator) -> Pairs:
    """At most `count` of the pairs, drawn without replacement."""
    if len(pairs) <= count:
        return pairs
    return pairs.take(np.sort(generator.choice(len(pairs), count, replace=False)))


class ReplayBuffer:
    """A ring of the newest pairs and a reservoir of all pairs, each of bounded size.

    After n pairs, each of them is in the reservoir with the same probability, min(1, size / n). When users and items
    are forgotten, n becomes the number of pairs that are left, estimated from their share of the reservoir. New pairs
    then enter with the probability that belongs to it, and fill free places first.

    Args:
        recent: Size of the ring.
        reservoir: Size of the reservoir.

    Source: Vitter, "Random sampling with a reservoir" (1985), algorithm R; Diaz-Aviles et al., "Real-time top-n
    recommendation in social streams" (2012) for learning from it.
    """

    def __init__(self, recent: int, reservoir: int) -> None:
        self._recent, self._reservoir = _empty(recent), _empty(reservoir)
        # Pairs that the ring has taken, that the reservoir is a sample of, and that are in it.
        self._taken = self._sampled = self._held = 0

    def recent(self) -> Pairs:
        """The newest pairs, in no particular order."""
        return self._recent.take(np.arange(min(self._taken, len(self._recent))))

    def reservoir(self) -> Pairs:
        """The sample of all pairs."""
        return self._reservoir.take(np.arange(self._held))

    def add(self, pairs: Pairs, generator: np.random.Generator) -> None:
        """Add pairs, in their order."""
        order = np.arange(len(pairs))
        newest = order[max(0, len(pairs) - len(self._recent)) :]
        _put(self._recent, (self._taken + newest) % len(self._recent), pairs.take(newest))
        self._taken += len(pairs)
        ordinals, size = self._sampled + order, len(self._reservoir)
        # The n-th pair draws a place below n; it enters only if the place lies in the reservoir.
        drawn = generator.integers(ordinals + 1)
        entering = np.flatnonzero((ordinals < size) | (drawn < size))
        places, free = drawn[entering], np.arange(self._held, size)[: len(entering)]
        places[: len(free)] = free
        _put(self._reservoir, places, pairs.take(entering))
        self._held = min(size, self._held + len(entering))
        self._sampled += len(pairs)

    def keep(self, kept: Kept) -> None:
        """Forget the pairs of users and items that go."""
        oldest_first = (self._taken + np.arange(len(self._recent))) % len(self._recent)
        order = oldest_first if self._taken > len(self._recent) else np.arange(self._taken)
        newest, sampled = _renumbered(self._recent.take(order), kept), _renumbered(self.reservoir(), kept)
        self._sampled = self._sampled * len(sampled) // max(self._held, 1)
        self._taken, self._held = len(newest), len(sampled)
        self._recent, self._reservoir = _empty(len(self._recent)), _empty(len(self._reservoir))
        _put(self._recent, np.arange(len(newest)), newest)
        _put(self._reservoir, np.arange(len(sampled)), sampled)

    def draw(self, count: int, generator: np.random.Generator) -> Pairs:
        """Draw pairs uniformly with replacement, half from the newest and half from the sample of all."""
        halves = ((self.recent(), count // 2), (self.reservoir(), count - count // 2))
        drawn = (pairs.take(generator.integers(len(pairs), size=size if len(pairs) else 0)) for pairs, size in halves)
        newest, any_ = drawn
        return newest.joined(any_)

    def state(self) -> State:
        """Arrays from which `from_state` continues."""
        state: State = {"counts": np.array([self._taken, self._sampled, self._held])}
        for name, pairs in (("recent", self._recent), ("reservoir", self._reservoir)):
            state |= {f"{name}.users": pairs.users, f"{name}.items": pairs.items, f"{name}.weights": pairs.weights}
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """A buffer from what `state` returned."""
        buffer = cls(0, 0)
        buffer._recent, buffer._reservoir = (
            Pairs(*(state[f"{name}.{column}"].copy() for column in ("users", "items", "weights")))
            for name in ("recent", "reservoir")
        )
        buffer._taken, buffer._sampled, buffer._held = (int(count) for count in state["counts"])
        return buffer


def _empty(size: int) -> Pairs:
    return Pairs(np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.float32))


def _renumbered(pairs: Pairs, kept: Kept) -> Pairs:
    """The pairs whose user and item stay, with the codes that these have from now on."""
    moved = Pairs(kept.users.renumbered[pairs.users], kept.items.renumbered[pairs.items], pairs.weights)
    return moved.take((moved.users >= 0) & (moved.items >= 0))


def _put(target: Pairs, places: IntArray, pairs: Pairs) -> None:
    """Write pairs (n,) to places (n,); where a place occurs twice, the later pair stays."""
    target.users[places], target.items[places], target.weights[places] = pairs.users, pairs.items, pairs.weights

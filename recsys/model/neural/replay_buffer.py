"""Experience replay: the newest pairs, and a uniform sample of all pairs so far."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from recsys.model.common.arrays import Float32Array, IntArray
from recsys.model.interactions.history import History
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

    After n pairs, each of them is in the reservoir with the same probability, min(1, size / n).

    Args:
        recent: Size of the ring.
        reservoir: Size of the reservoir.

    Source: Vitter, "Random sampling with a reservoir" (1985), algorithm R; Diaz-Aviles et al., "Real-time top-n
    recommendation in social streams" (2012) for learning from it.
    """

    def __init__(self, recent: int, reservoir: int) -> None:
        self._recent, self._reservoir = _empty(recent), _empty(reservoir)
        self._count = 0

    @property
    def count(self) -> int:
        """Pairs added so far."""
        return self._count

    def recent(self) -> Pairs:
        """The newest pairs, in no particular order."""
        return self._recent.take(np.arange(min(self._count, len(self._recent))))

    def reservoir(self) -> Pairs:
        """The sample of all pairs."""
        return self._reservoir.take(np.arange(min(self._count, len(self._reservoir))))

    def add(self, pairs: Pairs, generator: np.random.Generator) -> None:
        """Add pairs, in their order."""
        ordinals = self._count + np.arange(len(pairs))
        newest = slice(max(0, len(pairs) - len(self._recent)), None)
        _put(self._recent, ordinals[newest] % len(self._recent), pairs.take(np.arange(len(pairs))[newest]))
        size = len(self._reservoir)
        # The n-th pair draws a place below n; it is kept only if the place lies in the reservoir.
        places = np.where(ordinals < size, ordinals, generator.integers(ordinals + 1))
        kept = np.flatnonzero(places < size)
        _put(self._reservoir, places[kept], pairs.take(kept))
        self._count += len(pairs)

    def draw(self, count: int, generator: np.random.Generator) -> Pairs:
        """Draw pairs uniformly with replacement, half from the newest and half from the sample of all."""
        halves = ((self.recent(), count // 2), (self.reservoir(), count - count // 2))
        drawn = (pairs.take(generator.integers(len(pairs), size=size if len(pairs) else 0)) for pairs, size in halves)
        newest, any_ = drawn
        return newest.joined(any_)

    def state(self) -> State:
        """Arrays from which `from_state` continues."""
        state: State = {"count": np.array([self._count])}
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
        buffer._count = int(state["count"][0])
        return buffer


def _empty(size: int) -> Pairs:
    return Pairs(np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.float32))


def _put(target: Pairs, places: IntArray, pairs: Pairs) -> None:
    """Write pairs (n,) to places (n,); where a place occurs twice, the later pair stays."""
    target.users[places], target.items[places], target.weights[places] = pairs.users, pairs.items, pairs.weights

"""Held-out pairs, which are never trained on, and the unseen items that they are compared with."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.common.arrays import GrowingArray, IntArray
from recsys.model.common.randomness import Purpose, generator
from recsys.model.interactions.history import History
from recsys.model.interactions.keeping import Kept
from recsys.model.learner import State
from recsys.model.neural.negatives import NegativeSampler
from recsys.model.neural.replay_buffer import Bools, Pairs, sample

# Held-out pairs that the loss is measured on, at most.
_MEASURED_PAIRS = 2048
# Steps of splitmix64 (Steele, Lea & Flood 2014), which make every bit of the hash depend on every bit of the pair.
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


class HeldOut:
    """Splits pairs into those to train on and those to measure on, and draws negatives for the latter.

    Users and items are told apart by their numbers in the order of all that there have ever been. Their codes change
    where others are forgotten, and a pair that was trained on must not be measured on then.

    Args:
        settings: The section model.neural and the seed are used.
        device: Where the tensors go.
        state: What `state` returned, to continue from there.
    """

    def __init__(
        self, settings: Settings, device: torch.device, state: Mapping[str, npt.NDArray[Any]] | None = None
    ) -> None:
        self._share, self._seed, self._device = settings.model.neural.held_out, settings.seed, device
        self._users, self._items = (
            GrowingArray(() if state is None else state[side], np.int64) for side in ("users", "items")
        )
        # Users and items that there have ever been.
        self._ever = np.zeros(2, dtype=np.int64) if state is None else state["ever"].copy()

    def grow(self, users: int, items: int) -> None:
        """Have this many users and items."""
        for side, (numbers, count) in enumerate(((self._users, users), (self._items, items))):
            new = count - len(numbers)
            numbers.append(self._ever[side] + np.arange(new))
            self._ever[side] += new

    def keep(self, kept: Kept) -> None:
        """Have only some users and items."""
        self._users.keep(kept.users.codes)
        self._items.keep(kept.items.codes)

    def state(self) -> State:
        """`users` (users,) and `items` (items,): their numbers; `ever` (2,): how many there have been."""
        return {"users": self._users.values, "items": self._items.values, "ever": self._ever}

    def learnable(self, pairs: Pairs) -> Pairs:
        """The pairs that are not held out."""
        return pairs.take(~self._are_held_out(pairs))

    def measured(self, pairs: Pairs, generator: np.random.Generator) -> Pairs:
        """The held-out pairs, or a sample if there are many."""
        return sample(pairs.take(self._are_held_out(pairs)), _MEASURED_PAIRS, generator)

    def _are_held_out(self, pairs: Pairs) -> Bools:
        return is_held_out(self._users.values[pairs.users], self._items.values[pairs.items], self._share, self._seed)

    def against_negatives(
        self, pairs: Pairs, count: int, history: History, items: int, step: StepId
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draw seeded negatives for each pair.

        Args:
            pairs: n pairs.
            count: Negatives of each pair.
            history: All interactions, to tell unseen items.
            items: Number of items.
            step: Generation and number of the batch; they seed the negatives.

        Returns:
            Users (n,); items (n, 1 + count), the pair's own first; and which of them are valid, (n, 1 + count) bool.
        """
        sampler = NegativeSampler(history, items, 0.0)
        drawn = sampler.draw(pairs.users, count, generator(self._seed, step, Purpose.NCF_HELD_OUT))
        columns = (
            pairs.users,
            np.column_stack([pairs.items, drawn.items]),
            np.column_stack([np.ones(len(pairs), dtype=bool), drawn.valid]),
        )
        users, places, valid = (torch.from_numpy(column).to(self._device) for column in columns)
        return users, places, valid


def is_held_out(users: IntArray, items: IntArray, share: float, seed: int) -> Bools:
    """Whether each pair of numbers (n,), (n,) is held out; a hash decides, so the answer never changes."""
    keys = (users.astype(np.uint64) << np.uint64(32)) | items.astype(np.uint64)
    keys += np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
    for shift, multiplier in _MIX:
        keys = (keys ^ (keys >> np.uint64(shift))) * np.uint64(multiplier)
    keys ^= keys >> np.uint64(31)
    # The upper 53 bits, as a number from 0 to 1.
    chosen: Bools = (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share
    return chosen

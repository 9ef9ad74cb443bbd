"""Training examples: pairs of users and items, each with unseen items as negatives."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from recsys.config.model import NeuralSettings
from recsys.model.neural.negatives import NegativeSampler
from recsys.model.neural.replay_buffer import Pairs

# Pairs whose negatives are drawn at once.
_PAIRS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class LabeledPairs:
    """One mini-batch.

    Attributes:
        users: (b,) int64 rows.
        items: (b, n) int64 rows.
        targets: (b, n) float32 from 0 to 1, the target probability that the user interacts with the item.
        weights: (b, n) float32, weight of each in the loss.
    """

    users: torch.Tensor
    items: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


def labeled(
    pairs: Pairs, sampler: NegativeSampler, neural: NeuralSettings, device: torch.device, generator: np.random.Generator
) -> Iterator[LabeledPairs]:
    """Pairs, in their order, each with negatives: `neural.batch_size` pairs at a time, on the device.

    A pair is labeled 1 if its weight is positive and 0 if it is negative, and its weight in the loss is
    log2(1 + |weight|). Negatives are labeled 0 with weight 1, or 0 if they are not valid.
    """
    for begin in range(0, len(pairs), _PAIRS_AT_ONCE):
        block = pairs.take(np.arange(begin, min(begin + _PAIRS_AT_ONCE, len(pairs))))
        drawn = sampler.draw(block.users, neural.negatives, generator)
        labels = np.zeros((len(block), 1 + neural.negatives), dtype=np.float32)
        labels[:, 0] = block.weights > 0
        columns = (
            block.users,
            np.column_stack([block.items, drawn.items]),
            labels,
            np.column_stack([np.log2(1 + np.abs(block.weights)), drawn.valid]).astype(np.float32),
        )
        tensors = (torch.split(torch.from_numpy(column).to(device), neural.batch_size) for column in columns)
        for users, items, targets, weights in zip(*tensors, strict=True):
            yield LabeledPairs(users, items, targets, weights)

"""Processes that train one network together: data parallelism by users, with gradients that are added up."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.distributed as dist

from recsys.model.neural.replay_buffer import Pairs

# Relative difference of squared lengths of weights that are the same.
_SAME = 1e-6


class Peers:
    """The processes of the group that this one has joined (`torch.distributed`).

    Each trains on the pairs of its users, in mini-batches that are smaller by the number of processes. The loss is a
    sum over a mini-batch, so the sum of all gradients is that of one process with the mini-batches joined. All make the
    same steps and have the same weights.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def share(self, pairs: Pairs) -> Pairs:
        """The pairs of the users of this process, some of them repeated: every process gets the same number."""
        owners = pairs.users % self.size
        own = np.flatnonzero(owners == self.rank)
        most = int(np.bincount(owners, minlength=self.size).max())
        return pairs.take(np.resize(own if len(own) else np.arange(len(pairs)), most))

    def add_up(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace the gradient of each parameter that has one by the sum over all processes."""
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = parameter.grad.coalesce() if parameter.grad.is_sparse else parameter.grad
                dist.all_reduce(parameter.grad)

    def joined(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows (n,) of all processes, each of which has as many."""
        found = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(found, rows)
        return torch.cat(found)

    def check_same(self, weights: Iterable[torch.Tensor]) -> None:
        """See that all processes have the same weights, but for rounding on different processors.

        Raises:
            RuntimeError: they do not.
        """
        length = float(torch.stack([tensor.detach().double().square().sum() for tensor in weights]).sum())
        first = self.agreed(length)
        if abs(length - first) > _SAME * first:
            raise RuntimeError(f"process {self.rank} has weights of length {length}, and the first one {first}")

    def agreed(self, number: float) -> float:
        """The number of the first process: what all decide by must not differ in its last bit."""
        told = torch.tensor(number, dtype=torch.float64)
        dist.broadcast(told, 0)
        return float(told)

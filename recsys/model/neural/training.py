"""Training of the network, and the moving average of its weights, from which scores come."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from recsys.config.model import NeuralSettings
from recsys.model.interactions.keeping import Kept
from recsys.model.learner import State
from recsys.model.neural.examples import LabeledPairs
from recsys.model.neural.network import ITEM_TABLES, TABLES, USER_TABLES, NeuMf, WarmStart
from recsys.model.neural.optimizers import (
    grow_rows,
    make_optimizer,
    make_schedule,
    optimizer_state,
    restore_optimizer,
    resume_schedule,
)
from recsys.model.neural.peers import Peers
from recsys.serving.arrays import part, prefixed

# The name that the setting `frozen` has for each table; layers go by the first part of their own name.
_PART_OF = {name: name.partition("_")[2] for name in TABLES}
# A row's average soon forgets its initial value: after n updates it moves by at least 9 / (10 + n) of the way.
_WARM_UP = 10.0


class MovingAverage:
    """The exponential moving average of a network's weights, which is smoother than they are.

    Rows of the tables are averaged at the steps that touch them, so the cost of a step follows the rows it touches. At
    the n-th update of a row, counted from 0, the average moves by max(1 - decay, 9 / (10 + n)) of the way, so that the
    initial value is soon forgotten.

    Args:
        network: A network of the same shape, to hold the averages.
        decay: Share of the average that a step keeps, in the long run.
        counts: Steps that have touched each user, each item, and the layers; None: no step so far.
    """

    def __init__(self, network: NeuMf, decay: float, counts: Sequence[npt.NDArray[np.int64]] | None = None) -> None:
        self.network = network.requires_grad_(False)
        self._decay = decay
        none = np.zeros(0, dtype=np.int64)
        users, items, layers = counts or (none, none, np.zeros(1, dtype=np.int64))
        device = network.output.weight.device
        self._counts = {
            side: torch.from_numpy(counted.copy()).to(device) for side, counted in (("user", users), ("item", items))
        }
        self._layer_steps = int(layers[0])

    def grow(self, live: NeuMf) -> None:
        """Have as many rows as the live network; new ones are copied from it."""
        for name in TABLES:
            before, count = self.network.rows(name), live.rows(name)
            grow_rows(self.network.table(name), count)
            self.network.table(name)[before:count] = live.table(name).detach()[before:count]
        self.network.users, self.network.items = live.users, live.items
        for side, count in (("user", live.users), ("item", live.items)):
            known = self._counts[side]
            if count > len(known):
                self._counts[side] = torch.cat([known, known.new_zeros(max(count, 2 * len(known)) - len(known))])

    def keep(self, kept: Kept) -> None:
        """Have only some users and items."""
        self.network.keep(kept)
        for side, rows in (("user", kept.users), ("item", kept.items)):
            counts = self._counts[side]
            self._counts[side] = counts[torch.from_numpy(rows.codes).to(counts.device)]

    @torch.no_grad()
    def follow(self, live: NeuMf, users: torch.Tensor, items: torch.Tensor, layers: bool) -> None:
        """Move toward the live network.

        Args:
            live: The network after a step.
            users, items: Rows that the step touched, in any order, repeated or not.
            layers: Whether it touched the layers.
        """
        for names, side, touched in ((USER_TABLES, "user", users), (ITEM_TABLES, "item", items)):
            rows = torch.unique(touched)
            counts = self._counts[side]
            moves = self._moves(counts[rows])[:, None]
            counts[rows] += 1
            for name in names:
                average = self.network.table(name)
                before = average[rows]
                average[rows] = before + moves * (live.table(name)[rows] - before)
        if layers:
            move = float(self._moves(torch.tensor(self._layer_steps)))
            self._layer_steps += 1
            for average, parameter in zip(self.network.layers().values(), live.layers().values(), strict=True):
                average.lerp_(parameter, move)

    def touched_users(self) -> torch.Tensor:
        """(users,) bool, whether a user's embeddings have ever been trained."""
        return self._counts["user"][: self.network.users] > 0

    def counts(self) -> list[npt.NDArray[np.int64]]:
        """What the constructor takes."""
        users, items = self._counts["user"][: self.network.users], self._counts["item"][: self.network.items]
        return [users.cpu().numpy(), items.cpu().numpy(), np.array([self._layer_steps])]

    def _moves(self, counts: torch.Tensor) -> torch.Tensor:
        return ((_WARM_UP - 1) / (_WARM_UP + counts)).clamp(min=1 - self._decay)


@dataclass(frozen=True)
class Pace:
    """How large the steps are, and what they change.

    Attributes:
        layers: whether the layers are updated, or only the tables.
        rate: multiplies the learning rate.
        frozen: parts that are not updated, named as in the settings.
    """

    layers: bool = True
    rate: float = 1.0
    frozen: tuple[str, ...] = ()


class Trainer:
    """A network in training, and the moving average of its weights.

    Args:
        neural: Shape of the network and how it is trained.
        factors: Length of the embeddings that are multiplied.
        device: Where it lives.
        bias: Initial bias of the output, the logit of a pair about which nothing is known.
        generator: Draws the initial layers.

    Attributes:
        peers: Processes that make the same steps; None: this one alone.
    """

    def __init__(
        self, neural: NeuralSettings, factors: int, device: torch.device, bias: float, generator: np.random.Generator
    ) -> None:
        self._neural, self._device = neural, device
        self.peers: Peers | None = None
        self.live, average = (NeuMf(factors, neural.mlp_factors, neural.layers, neural.dropout) for _ in range(2))
        self.live.start(bias, generator)
        average.load(self.live.arrays())
        self.live.to(device)
        self.average = MovingAverage(average.to(device), neural.average)
        named = dict(self.live.named_parameters())
        parts = ({name: named[name] for name in TABLES}, self.live.layers())
        # Tables and layers have separate optimizers: tables have sparse gradients and are updated more often.
        self._moved = {
            name: (parameters, make_optimizer(list(parameters.values()), neural, sparse))
            for name, parameters, sparse in (("tables", parts[0], True), ("layers", parts[1], False))
        }
        self._schedules = {name: make_schedule(optimizer, neural) for name, (_, optimizer) in self._moved.items()}

    def grow(self, users: int, items: int, generators: Mapping[str, np.random.Generator]) -> None:
        """Have this many users and items; arguments as for `NeuMf.grow`. `MovingAverage.grow` must follow."""
        self.live.grow(users, items, generators, self._moved["tables"][1])

    def keep(self, kept: Kept) -> None:
        """Have only some users and items."""
        self.live.keep(kept, self._moved["tables"][1])
        self.average.keep(kept)

    def learn(
        self, gradients: Iterable[LabeledPairs], warm: WarmStart | None, pace: Pace, dropping: torch.Generator
    ) -> float:
        """Train on mini-batches; the sum of the losses of all examples.

        Args:
            gradients: Mini-batches; the gradients of `neural.accumulate` of them make one step.
            warm: The factors to which the network learns a correction.
            pace: How large the steps are.
            dropping: Draws the outputs that are dropped.
        """
        for name, parameter in self.live.named_parameters():
            frozen = _PART_OF.get(name, name.partition(".")[0]) in pace.frozen
            parameter.requires_grad_(not frozen and (pace.layers or name in TABLES))
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        pending: list[LabeledPairs] = []
        for examples in gradients:
            total += self._backward(examples, warm, dropping)
            pending.append(examples)
            if len(pending) == self._neural.accumulate:
                self._step(pending, pace)
                pending = []
        if pending:
            self._step(pending, pace)
        return float(total)

    def _backward(self, examples: LabeledPairs, warm: WarmStart | None, dropping: torch.Generator) -> torch.Tensor:
        """Add to the gradients; the loss."""
        mixed = self._device.type == "cuda" and self._neural.mixed_precision
        with torch.autocast(self._device.type, torch.bfloat16, enabled=mixed):
            logits, embeddings = self.live(examples.users, examples.items, warm, dropping)
        loss = functional.binary_cross_entropy_with_logits(
            logits.float(), examples.targets, examples.weights, reduction="sum"
        )
        penalty = torch.stack([read.float().square().sum() for read in embeddings]).sum()
        torch.autograd.backward(loss + self._neural.regularization * penalty)
        return loss.detach()

    def _step(self, pending: Sequence[LabeledPairs], pace: Pace) -> None:
        for name in ("tables", "layers") if pace.layers else ("tables",):
            parameters, optimizer = self._moved[name]
            if self.peers is not None:
                self.peers.add_up(parameters.values())
            for group in optimizer.param_groups:
                # The schedule sets the rate again after each step.
                group["lr"] *= pace.rate
            optimizer.step()
            optimizer.zero_grad()
            self._schedules[name].step()
        users, items = (
            torch.cat([getattr(examples, name).flatten() for examples in pending]) for name in ("users", "items")
        )
        if self.peers is not None:
            users, items = self.peers.joined(users), self.peers.joined(items)
        self.average.follow(self.live, users, items, pace.layers)

    def state(self) -> State:
        """All arrays; `load` continues from them."""
        state: State = prefixed(self.live.arrays(), "live") | prefixed(self.average.network.arrays(), "average")
        state |= dict(zip(("users.steps", "items.steps", "layers.steps"), self.average.counts(), strict=True))
        for name, (parameters, optimizer) in self._moved.items():
            state |= prefixed(optimizer_state(optimizer, parameters, self.live.rows), name)
            state[f"{name}.schedule"] = np.array([self._schedules[name].last_epoch])
        return state

    def load(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what `state` returned."""
        self.live.load(part(state, "live"))
        network = self.average.network
        network.load(part(state, "average"))
        counts = [state[f"{name}.steps"] for name in ("users", "items", "layers")]
        self.average = MovingAverage(network, self._neural.average, counts)
        for name, (parameters, optimizer) in self._moved.items():
            restore_optimizer(optimizer, parameters, part(state, name))
            resume_schedule(self._schedules[name], int(state[f"{name}.schedule"][0]))

"""Neural matrix factorisation: the network, in tables that grow, and the moving average of its weights."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from recsys.config_sections import Neural
from recsys.model.learner import State, part, prefixed
from recsys.model.optimizers import (
    Pace,
    grow_rows,
    make_optimizer,
    make_schedule,
    optimizer_state,
    restore_optimizer,
    resume_schedule,
)

USER_TABLES, ITEM_TABLES = ("user_gmf", "user_mlp"), ("item_gmf", "item_mlp")
TABLES = USER_TABLES + ITEM_TABLES
# What of the network the setting `frozen` calls so; layers go by the first part of their name.
_PART_OF = {name: name.partition("_")[2] for name in TABLES}
# Standard deviation of the embeddings of a new row.
_EMBEDDING_SCALE = 0.01
# A row's average forgets its start at first: after n touches it moves by at least 9 / (10 + n).
_WARM_UP = 10.0


@dataclass(frozen=True)
class WarmStart:
    """Factors of another model, to which a network only adds.

    Attributes:
        user_factors: (users, f) float32.
        item_factors: (items, f) float32.
        scale: What their products are multiplied by to be differences of logits.
    """

    user_factors: torch.Tensor
    item_factors: torch.Tensor
    scale: float

    def embeddings(self, side: str, rows: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        """What embeddings of rows of a side, `user` or `item`, begin at, (rows..., f)."""
        factors = self.user_factors if side == "user" else self.item_factors
        scaled: torch.Tensor = factors[rows] * self.scale**0.5
        return scaled


class NeuMf(torch.nn.Module):
    r"""Two towers over embeddings of their own, joined in one output.

        user_gmf (b, f) * item_gmf (b, n, f) ----------------------------> gmf (b, n, f) --\
                                                                                            output -> logits (b, n)
        user_mlp (b, m), item_mlp (b, n, m) joined -> hidden layers, ReLU -> mlp (b, n, h) -/

    With a warm start the embeddings that are multiplied are the table's plus the scaled factors of another model, as
    they are at the time; the table holds what is learnt beyond them. He et al. copy factors once; in a stream those of
    a model that is solved again with every batch are worth following.

    Rows of the tables past `users` and `items` are spare room.

    Args:
        factors: f, length of the embeddings that are multiplied.
        mlp_factors: m, length of the embeddings that go through the layers.
        layers: Widths of the hidden layers, the last one h.
        dropout: Chance that an output of a hidden layer is dropped in training.

    Source: He et al., "Neural collaborative filtering" (2017), sections 3.2 to 3.4.
    """

    def __init__(self, factors: int, mlp_factors: int, layers: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.users = self.items = 0
        self._dropout = dropout
        widths = {"user_gmf": factors, "user_mlp": mlp_factors, "item_gmf": factors, "item_mlp": mlp_factors}
        for name in TABLES:
            self.register_parameter(name, torch.nn.Parameter(torch.zeros(0, widths[name])))
        inputs = [2 * mlp_factors, *layers[:-1]]
        # Without the common generator of torch: `start` fills them.
        with torch.device("meta"):
            hidden = [torch.nn.Linear(width, next_) for width, next_ in zip(inputs, layers, strict=True)]
            output = torch.nn.Linear(factors + layers[-1], 1)
        self.hidden = torch.nn.ModuleList(layer.to_empty(device="cpu") for layer in hidden)
        self.output: torch.nn.Linear = output.to_empty(device="cpu")

    def table(self, name: str) -> torch.nn.Parameter:
        """A table by its name, (room, width)."""
        parameter: torch.nn.Parameter = getattr(self, name)
        return parameter

    def rows(self, name: str) -> int:
        """How many rows of a parameter are in use."""
        if name in TABLES:
            return self.users if name in USER_TABLES else self.items
        return len(self.get_parameter(name))

    def _linears(self) -> list[torch.nn.Linear]:
        """The hidden layers."""
        return [layer for layer in self.hidden if isinstance(layer, torch.nn.Linear)]

    def layers(self) -> dict[str, torch.nn.Parameter]:
        """All parameters that are no tables, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if name not in TABLES}

    def start(self, bias: float, generator: np.random.Generator) -> None:
        """Fill the layers: Glorot's uniform weights, ones for the products.

        Args:
            bias: The first logit of pairs about which nothing is known.
            generator: What the weights are drawn from.
        """
        with torch.no_grad():
            for layer in (*self._linears(), self.output):
                bound = (6 / (layer.weight.shape[0] + layer.weight.shape[1])) ** 0.5
                drawn = generator.uniform(-bound, bound, layer.weight.shape).astype(np.float32)
                layer.weight.copy_(torch.from_numpy(drawn))
                layer.bias.zero_()
            self.output.weight[:, : self.table("user_gmf").shape[1]] = 1.0
            self.output.bias.fill_(bias)

    def grow(
        self,
        users: int,
        items: int,
        generators: Mapping[str, np.random.Generator],
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        """Have this many users and items, the embeddings of new ones small and random.

        Args:
            users, items: How many there are now; never fewer than before.
            generators: What the rows of each table are drawn from, by its name.
            optimizer: Its state for the tables grows with them.
        """
        counts = dict.fromkeys(USER_TABLES, users) | dict.fromkeys(ITEM_TABLES, items)
        for name, count in counts.items():
            before, table = self.rows(name), self.table(name)
            grow_rows(table, count, optimizer)
            drawn = generators[name].standard_normal((count - before, table.shape[1]), dtype=np.float32)
            table.data[before:count] = torch.from_numpy(drawn * np.float32(_EMBEDDING_SCALE))
        self.users, self.items = users, items

    def forward(
        self,
        users: torch.Tensor,
        items: torch.Tensor,
        warm: WarmStart | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Score items for users.

        Args:
            users: (b,) int64 rows.
            items: (b, n) int64 rows: n items for each user.
            warm: What the embeddings that are multiplied begin at; None: 0.
            generator: What decides which outputs are dropped, on the device of the weights; None: none are.

        Returns:
            Logits (b, n) that a user takes to an item, and what was read from the tables.
        """
        user_gmf, user_mlp = read_users = [self._embed(name, users)[:, None] for name in USER_TABLES]
        item_gmf, item_mlp = read_items = [self._embed(name, items) for name in ITEM_TABLES]
        if warm is not None:
            user_gmf = user_gmf + warm.embeddings("user", users)[:, None]
            item_gmf = item_gmf + warm.embeddings("item", items)
        first, *others = self._linears()
        # The layer over the joined embeddings in two halves: that of the user is computed once for all items.
        of_user, of_item = torch.split(first.weight, user_mlp.shape[-1], dim=1)
        outputs = functional.linear(user_mlp, of_user, first.bias) + functional.linear(item_mlp, of_item)
        outputs = self._activated(outputs, generator)
        for layer in others:
            outputs = self._activated(layer(outputs), generator)
        logits = self.output(torch.cat([user_gmf * item_gmf, outputs], dim=-1)).squeeze(-1)
        return logits, read_users + read_items

    def _embed(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        return functional.embedding(rows, self.table(name), sparse=True)

    def _activated(self, outputs: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        active = functional.relu(outputs)
        if generator is None or not self._dropout:
            return active
        drawn = torch.rand(active.shape, generator=generator, device=active.device)
        return active * (drawn >= self._dropout) / (1 - self._dropout)

    def arrays(self) -> State:
        """All weights in use, by name, as views where they are on the CPU."""
        return {
            name: parameter.detach()[: self.rows(name)].cpu().numpy() for name, parameter in self.named_parameters()
        }

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Undo `arrays`."""
        for name, parameter in self.named_parameters():
            parameter.data = torch.from_numpy(arrays[name].copy()).to(parameter.device)
        self.users, self.items = (len(self.table(name)) for name in ("user_gmf", "item_gmf"))


class MovingAverage:
    """The exponential moving average of a network's weights, which is smoother than they are.

    Rows of the tables are averaged at the steps that touch them, so a step costs what it touches. The n-th time, from
    0, the average moves by max(1 - decay, 9 / (10 + n)) of the way, so that the start is soon forgotten.

    Args:
        network: A network of the same shape, which holds the averages.
        decay: What is kept of the average at each step, in the long run.
        counts: Steps that touched each user and each item, and the layers; without them none did.
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
        """Have the rows of the live network; new ones are as they are there."""
        for name in TABLES:
            before, count = self.network.rows(name), live.rows(name)
            grow_rows(self.network.table(name), count)
            self.network.table(name)[before:count] = live.table(name).detach()[before:count]
        self.network.users, self.network.items = live.users, live.items
        for side, count in (("user", live.users), ("item", live.items)):
            known = self._counts[side]
            if count > len(known):
                self._counts[side] = torch.cat([known, known.new_zeros(max(count, 2 * len(known)) - len(known))])

    @torch.no_grad()
    def follow(self, live: NeuMf, users: torch.Tensor, items: torch.Tensor, layers: bool) -> None:
        """Move towards the live network.

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
        """(users,) bool, whose embeddings were ever learnt."""
        return self._counts["user"][: self.network.users] > 0

    def counts(self) -> list[npt.NDArray[np.int64]]:
        """What the constructor takes."""
        users, items = self._counts["user"][: self.network.users], self._counts["item"][: self.network.items]
        return [users.cpu().numpy(), items.cpu().numpy(), np.array([self._layer_steps])]

    def _moves(self, counts: torch.Tensor) -> torch.Tensor:
        return ((_WARM_UP - 1) / (_WARM_UP + counts)).clamp(min=1 - self._decay)


@dataclass(frozen=True)
class Examples:
    """What one gradient is computed from.

    Attributes:
        users: (b,) int64 rows.
        items: (b, n) int64 rows.
        targets: (b, n) float32 from 0 to 1, what the chance should be that the user takes to the item.
        weights: (b, n) float32, what each counts.
    """

    users: torch.Tensor
    items: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


class Trainer:
    """A network that learns, and the moving average of its weights.

    Args:
        neural: How it is made and learns.
        factors: Length of the embeddings that are multiplied.
        device: Where it lives.
        bias: The first logit of pairs about which nothing is known.
        generator: What its layers are drawn from.
    """

    def __init__(
        self, neural: Neural, factors: int, device: torch.device, bias: float, generator: np.random.Generator
    ) -> None:
        self._neural, self._device = neural, device
        self.live, average = (NeuMf(factors, neural.mlp_factors, neural.layers, neural.dropout) for _ in range(2))
        self.live.start(bias, generator)
        average.load(self.live.arrays())
        self.live.to(device)
        self.average = MovingAverage(average.to(device), neural.average)
        named = dict(self.live.named_parameters())
        parts = ({name: named[name] for name in TABLES}, self.live.layers())
        # Tables and layers have optimisers of their own: tables have sparse gradients, and move more often.
        self._moved = {
            name: (parameters, make_optimizer(list(parameters.values()), neural, sparse))
            for name, parameters, sparse in (("tables", parts[0], True), ("layers", parts[1], False))
        }
        self._schedules = {name: make_schedule(optimizer, neural) for name, (_, optimizer) in self._moved.items()}

    def grow(self, users: int, items: int, generators: Mapping[str, np.random.Generator]) -> None:
        """Have this many users and items; arguments as for `NeuMf.grow`. `settle` must follow."""
        self.live.grow(users, items, generators, self._moved["tables"][1])

    def learn(
        self, gradients: Iterable[Examples], warm: WarmStart | None, pace: Pace, dropping: torch.Generator
    ) -> float:
        """Follow gradients; the sum of the losses of all examples.

        Args:
            gradients: The examples of each; `neural.accumulate` gradients make a step.
            warm: What the network adds to.
            pace: How far to follow them.
            dropping: What decides which outputs are dropped.
        """
        for name, parameter in self.live.named_parameters():
            frozen = _PART_OF.get(name, name.partition(".")[0]) in pace.frozen
            parameter.requires_grad_(not frozen and (pace.layers or name in TABLES))
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        pending: list[Examples] = []
        for examples in gradients:
            total += self._backward(examples, warm, dropping)
            pending.append(examples)
            if len(pending) == self._neural.accumulate:
                self._step(pending, pace)
                pending = []
        if pending:
            self._step(pending, pace)
        return float(total)

    def _backward(self, examples: Examples, warm: WarmStart | None, dropping: torch.Generator) -> torch.Tensor:
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

    def _step(self, pending: Sequence[Examples], pace: Pace) -> None:
        for name in ("tables", "layers") if pace.layers else ("tables",):
            optimizer = self._moved[name][1]
            for group in optimizer.param_groups:
                # The schedule sets it anew after each step.
                group["lr"] *= pace.rate
            optimizer.step()
            optimizer.zero_grad()
            self._schedules[name].step()
        users, items = (
            torch.cat([getattr(examples, name).flatten() for examples in pending]) for name in ("users", "items")
        )
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

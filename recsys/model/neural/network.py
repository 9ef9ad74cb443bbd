"""Neural matrix factorization: the network, with tables that grow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from recsys.model.interactions.keeping import Kept
from recsys.model.learner import State
from recsys.model.neural.optimizers import grow_rows, keep_rows

USER_TABLES, ITEM_TABLES = ("user_gmf", "user_mlp"), ("item_gmf", "item_mlp")
TABLES = USER_TABLES + ITEM_TABLES
# Standard deviation of the embeddings of a new row.
_EMBEDDING_SCALE = 0.01


@dataclass(frozen=True)
class WarmStart:
    """Factors of another model, to which the network learns a correction.

    Attributes:
        user_factors: (users, f) float32.
        item_factors: (items, f) float32.
        scale: Factor from their inner products to differences of logits.
    """

    user_factors: torch.Tensor
    item_factors: torch.Tensor
    scale: float

    def embeddings(self, side: str, rows: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        """Scaled factors (rows..., f) of rows of a side, `user` or `item`, which its embeddings are added to."""
        factors = self.user_factors if side == "user" else self.item_factors
        scaled: torch.Tensor = factors[rows] * self.scale**0.5
        return scaled


class NeuMf(torch.nn.Module):
    r"""Two towers over embeddings of their own, joined in one output.

        user_gmf (b, f) * item_gmf (b, n, f) ----------------------------> gmf (b, n, f) --\
                                                                                            output -> logits (b, n)
        user_mlp (b, m), item_mlp (b, n, m) joined -> hidden layers, ReLU -> mlp (b, n, h) -/

    With a warm start, the GMF embeddings are the sum of the table and of the scaled current factors of another model;
    the table holds the learned correction. He et al. copy the factors once. In a stream it pays to follow them, because
    that model is updated with every batch.

    Rows of the tables beyond `users` and `items` are spare room.

    Args:
        factors: f, length of the GMF embeddings.
        mlp_factors: m, length of the MLP embeddings.
        layers: Widths of the hidden layers, the last one h.
        dropout: Probability that an output of a hidden layer is dropped in training.

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
        # Not initialized by the global generator of torch: `start` fills them.
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
        """Number of rows of a parameter that are in use."""
        if name in TABLES:
            return self.users if name in USER_TABLES else self.items
        return len(self.get_parameter(name))

    def _linears(self) -> list[torch.nn.Linear]:
        """The hidden layers."""
        return [layer for layer in self.hidden if isinstance(layer, torch.nn.Linear)]

    def layers(self) -> dict[str, torch.nn.Parameter]:
        """All parameters but the tables, by name."""
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
        """Have this many users and items; the embeddings of new ones are small and random.

        Args:
            users, items: New numbers of rows, never lower than before.
            generators: Draw the new rows of each table, by its name.
            optimizer: Its state of the tables grows along.
        """
        counts = dict.fromkeys(USER_TABLES, users) | dict.fromkeys(ITEM_TABLES, items)
        for name, count in counts.items():
            before, table = self.rows(name), self.table(name)
            grow_rows(table, count, optimizer)
            drawn = generators[name].standard_normal((count - before, table.shape[1]), dtype=np.float32)
            table.data[before:count] = torch.from_numpy(drawn * np.float32(_EMBEDDING_SCALE))
        self.users, self.items = users, items

    def keep(self, kept: Kept, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Have only some users and items; the optimizer's state of the tables follows."""
        for name in TABLES:
            rows = torch.from_numpy((kept.users if name in USER_TABLES else kept.items).codes)
            keep_rows(self.table(name), rows.to(self.table(name).device), optimizer)
        self.users, self.items = len(kept.users), len(kept.items)

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
            warm: Factors that the GMF embeddings are added to; None: none.
            generator: Draws the outputs that are dropped, on the device of the weights; None: no dropout.

        Returns:
            Logits (b, n) of an interaction, and the embeddings that were read.
        """
        user_gmf, user_mlp = read_users = [self._embed(name, users)[:, None] for name in USER_TABLES]
        item_gmf, item_mlp = read_items = [self._embed(name, items) for name in ITEM_TABLES]
        if warm is not None:
            user_gmf = user_gmf + warm.embeddings("user", users)[:, None]
            item_gmf = item_gmf + warm.embeddings("item", items)
        outputs = self._layered(user_mlp, item_mlp, generator)
        logits = self.output(torch.cat([user_gmf * item_gmf, outputs], dim=-1)).squeeze(-1)
        return logits, read_users + read_items

    def near_factors(self, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Factors whose inner products approximate the logits, for candidate generation.

        They are the GMF part of the output, and for each item the output of the MLP part for the mean user.

        Args:
            known: (users,) bool, whether a user's embeddings have ever been trained.

        Returns:
            (users, f + 1), zero for users who are not known, and (items, f + 1).
        """
        user_gmf, user_mlp = (self.table(name)[: self.users] for name in USER_TABLES)
        item_gmf, item_mlp = (self.table(name)[: self.items] for name in ITEM_TABLES)
        of_products, of_layers = torch.split(
            self.output.weight, [user_gmf.shape[1], self.output.in_features - user_gmf.shape[1]], dim=1
        )
        mean = (user_mlp * known[:, None]).sum(dim=0) / known.sum().clamp(min=1)
        of_items = functional.linear(self._layered(mean[None], item_mlp, None), of_layers)
        mask = known[:, None].to(user_gmf.dtype)
        return torch.cat([user_gmf * of_products * mask, mask], dim=1), torch.cat([item_gmf, of_items], dim=1)

    def _layered(
        self, user_mlp: torch.Tensor, item_mlp: torch.Tensor, generator: torch.Generator | None
    ) -> torch.Tensor:
        """Output (..., h) of the hidden layers for concatenated embeddings (..., m)."""
        first, *others = self._linears()
        # The first layer is split in two halves, so that the user's half is computed once for all items.
        of_user, of_item = torch.split(first.weight, user_mlp.shape[-1], dim=1)
        outputs = functional.linear(user_mlp, of_user, first.bias) + functional.linear(item_mlp, of_item)
        outputs = self._activated(outputs, generator)
        for layer in others:
            outputs = self._activated(layer(outputs), generator)
        return outputs

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

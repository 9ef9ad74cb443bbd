"""Neural collaborative filtering, in two stages."""

from typing import ClassVar

import numpy as np

from .arrays import Array, Arrays
from .axes import ITEMS, USERS, Axes, Declared, NewItem
from .factors import AlsScorer, factors_of
from .ranking import DenseScorer
from .top import largest


class NeuralScorer(DenseScorer):
    """Candidates by products of factors, ranked by a network; the others behind them, in the order of their products.

    `candidates` (users,) int64 holds each user's number of candidates. `user_factors` and `item_factors` are those of
    `als`; the network is `neural.user_gmf`, `neural.user_mlp`, `neural.item_gmf`, `neural.item_mlp` (rows, width), one
    `neural.hidden.N.weight` and `.bias` for each layer, `neural.output.weight` and `.bias`, all float32.

    A cold item's factors are predicted from its text, as those of `als` are, so they decide whom it becomes a candidate
    for. The network has learned nothing about it and ranks it as an item of mean embeddings.
    """

    axes: ClassVar[Declared] = {
        **AlsScorer.axes,
        "candidates": Axes((USERS,)),
        "neural.user_gmf": Axes((USERS, "factors")),
        "neural.user_mlp": Axes((USERS, "mlp factors")),
        "neural.item_gmf": Axes((ITEMS, "factors"), NewItem.MEAN),
        "neural.item_mlp": Axes((ITEMS, "mlp factors"), NewItem.MEAN),
        "neural.hidden.N.weight": Axes(("outputs", "inputs")),
        "neural.hidden.N.bias": Axes(("outputs",)),
        "neural.output.weight": Axes(("one", "inputs")),
        "neural.output.bias": Axes(("one",)),
    }

    def __init__(self, arrays: Arrays) -> None:
        self._users, self._items = arrays["user_factors"], arrays["item_factors"]
        self._candidates, self.items = arrays["candidates"], len(self._items)
        self._user_gmf, self._item_gmf = (arrays[f"neural.{side}_gmf"] for side in ("user", "item"))
        layers = sum(name.startswith("neural.hidden.") for name in arrays) // 2
        names = [*(f"hidden.{number}" for number in range(layers)), "output"]
        weights, *others = (arrays[f"neural.{name}.weight"].T for name in names)
        self._biases = [arrays[f"neural.{name}.bias"] for name in names]
        # The first layer in two halves, each computed once for all users and for all items.
        users, items = arrays["neural.user_mlp"], arrays["neural.item_mlp"]
        self._user_inputs = users @ weights[: users.shape[1]] + self._biases[0]
        self._item_inputs = items @ weights[users.shape[1] :]
        self._weights = others

    def score(self, rows: Array) -> Array:
        """See `Scorer`."""
        scores: Array = factors_of(self._users, rows) @ self._items.T
        # User by user, so that the candidates of all users are never in memory together.
        for place in np.flatnonzero(scores.any(axis=1)).tolist():
            scores[place] = self._ranked(int(rows[place]), scores[place])
        return scores

    def logits(self, row: int, items: Array) -> Array:
        """Logits (n,) of the network for items (n,) and one user."""
        outputs = np.maximum(self._user_inputs[row] + self._item_inputs[items], 0)
        for weights, bias in zip(self._weights[:-1], self._biases[1:-1], strict=True):
            outputs = np.maximum(outputs @ weights + bias, 0)
        joined = np.concatenate([self._user_gmf[row] * self._item_gmf[items], outputs], axis=1)
        found: Array = (joined @ self._weights[-1] + self._biases[-1])[:, 0]
        return found

    def _ranked(self, row: int, first: Array) -> Array:
        """Scores (items,) of a user whose products are `first` (items,)."""
        count = min(int(self._candidates[row]), len(first))
        items = largest(first, count)
        logits = self.logits(row, items)
        scores: Array = first - first[items].min() + (logits.min() - 1)
        scores[items] = logits
        return scores

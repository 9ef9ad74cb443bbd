"""Neural collaborative filtering, in two stages."""

from copy import copy
from typing import ClassVar, Self

import numpy as np

from .arrays import Array, Arrays, Lists
from .axes import ITEMS, USERS, Axes, Declared, NewItem
from .factors import AlsScorer, Asked, factors_of, folded_in
from .fold_in import FoldIn
from .ranking import Contributions, DenseScorer, Reason
from .top import largest


class NeuralScorer(DenseScorer):
    """Candidates by products of factors, ranked by a network; the others behind them, in the order of their products.

    `candidates` (users,) int64 holds each user's number of candidates. `user_factors` and `item_factors` are those of
    `als`; the network is `neural.user_gmf`, `neural.user_mlp`, `neural.item_gmf`, `neural.item_mlp` (rows, width), one
    `neural.hidden.N.weight` and `.bias` for each layer, `neural.output.weight` and `.bias`, all float32.

    A cold item's factors are predicted from its text, as those of `als` are, so they decide whom it becomes a candidate
    for. The network has learned nothing about it and ranks it as an item of mean embeddings.

    Recent items change the factors, and so the candidates. The network ranks them with the embeddings that it has of
    the user; users whom it does not know are ranked by the products alone.
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
        self._fold_in, self._asked = FoldIn.of(arrays), Asked.plain()
        # The first layer in two halves, each computed once for all users and for all items.
        users, items = arrays["neural.user_mlp"], arrays["neural.item_mlp"]
        self._user_inputs = users @ weights[: users.shape[1]] + self._biases[0]
        self._item_inputs = items @ weights[users.shape[1] :]
        self._weights = others

    def score(self, rows: Array) -> Array:
        """See `Scorer`."""
        scores, known = factors_of(self._users, rows) @ self._items.T, self._asked.version_rows(rows)
        # User by user, so that the candidates of all users are never in memory together.
        for place in np.flatnonzero(scores.any(axis=1) & (known >= 0)).tolist():
            scores[place] = self._ranked(int(known[place]), scores[place])
        found: Array = scores
        return found

    def with_recent(self, rows: Array, recent: Lists) -> Self:
        """See `VersionedScorer`."""
        view = copy(self)
        view._users = folded_in(self._fold_in, factors_of(self._users, rows), rows, recent)
        view._asked = Asked(rows, recent)
        return view

    def factors(self, rows: Array) -> Array:
        """See `VersionedScorer`."""
        return factors_of(self._users, rows)

    def contributions(self, rows: Array, lists: Lists) -> list[Contributions]:
        """See `VersionedScorer`: the parts of the logit, or what ranks an item behind the candidates."""
        factors, known = factors_of(self._users, rows), self._asked.version_rows(rows)
        found = list[Contributions]()
        for user, row in enumerate(known.tolist()):
            items = lists.items[lists.offsets[user] : lists.offsets[user + 1]]
            first = factors[user] @ self._items.T
            if row < 0 or not first.any():
                found += [{"factors": product} for product in first[items].tolist()]
                continue
            candidates, scores = self._candidates_of(row, first), self._ranked(row, first)
            products, parts = self._parts(row, items)
            for item, product, part in zip(items.tolist(), products.tolist(), parts.tolist(), strict=True):
                if item in candidates:
                    found.append({"gmf": product, "mlp": part, "bias": float(self._biases[-1][0])})
                else:
                    own = float(first[item])
                    found.append({"factors": own, "behind_candidates": float(scores[item]) - own})
        return found

    def reasons(self, rows: Array, lists: Lists) -> list[list[Reason]]:
        """See `VersionedScorer`: those of the factors."""
        return self._asked.reasons(self._fold_in, rows, lists)

    def logits(self, row: int, items: Array) -> Array:
        """Logits (n,) of the network for items (n,) and one user."""
        joined = np.concatenate([self._user_gmf[row] * self._item_gmf[items], self._outputs(row, items)], axis=1)
        found: Array = (joined @ self._weights[-1] + self._biases[-1])[:, 0]
        return found

    def _outputs(self, row: int, items: Array) -> Array:
        """(n, width) outputs of the last hidden layer."""
        outputs: Array = np.maximum(self._user_inputs[row] + self._item_inputs[items], 0)
        for weights, bias in zip(self._weights[:-1], self._biases[1:-1], strict=True):
            outputs = np.maximum(outputs @ weights + bias, 0)
        return outputs

    def _parts(self, row: int, items: Array) -> tuple[Array, Array]:
        """What the two towers add to the logits of items (n,), each (n,)."""
        products = self._user_gmf[row] * self._item_gmf[items]
        width = products.shape[1]
        outputs = self._outputs(row, items) @ self._weights[-1][width:]
        return (products @ self._weights[-1][:width])[:, 0], outputs[:, 0]

    def _candidates_of(self, row: int, first: Array) -> Array:
        """Items (c,) of a user whose products are `first` (items,) that the network ranks."""
        return largest(first, min(int(self._candidates[row]), len(first)))

    def _ranked(self, row: int, first: Array) -> Array:
        """Scores (items,) of a user whose products are `first` (items,)."""
        items = self._candidates_of(row, first)
        logits = self.logits(row, items)
        scores: Array = first - first[items].min() + (logits.min() - 1)
        scores[items] = logits
        return scores

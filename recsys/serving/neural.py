"""Neural collaborative filtering, in two stages."""

from copy import copy
from functools import cached_property
from typing import ClassVar, Self

import numpy as np

from .arrays import Array, Arrays, Lists, ragged_ranges
from .axes import ITEMS, USERS, Axes, Declared, NewItem
from .factors import AlsScorer, Asked, factors_of, folded_in
from .fold_in import FoldIn
from .products import Products
from .ranking import Contributions, DenseScorer, DenseScores, Ranked, Reason
from .topk import best_of_segments
from .walks import contained, looked_up

# What the network computes for so many candidates stays in the cache, and the calls still cost little; users of so
# many candidates are ranked together.
_PAIRS_AT_ONCE, _USERS_AT_ONCE = 1 << 13, 64


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

    users_at_once = _USERS_AT_ONCE

    def __init__(self, arrays: Arrays) -> None:
        self._users, self.products = arrays["user_factors"], Products(arrays["item_factors"])
        self.candidates, self.items = arrays["candidates"], len(self.products)
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
        return self.of_users(rows).all()

    def of_users(self, rows: Array) -> "NeuralScores":
        """The scores of users (n,), none of which is computed yet."""
        return NeuralScores(self, self.factors(rows), self._asked.version_rows(rows))

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
        scores = self.of_users(rows)
        products, ranked = scores.products_at(lists), scores.hold(lists)
        behind = (scores.at(lists) - products).tolist()
        by_network, bias = scores.by_network[lists.owners].tolist(), float(self._biases[-1][0])
        found: list[Contributions] = [{"factors": product} for product in products.tolist()]
        for place in np.flatnonzero(by_network).tolist():
            found[place]["behind_candidates"] = behind[place]
        places = np.flatnonzero(ranked)
        known = self._asked.version_rows(rows)[lists.owners[places]]
        parts = zip(*(part.tolist() for part in self._parts(known, lists.items[places])), strict=True)
        for place, (product, part) in zip(places.tolist(), parts, strict=True):
            found[place] = {"gmf": product, "mlp": part, "bias": bias}
        return found

    def reasons(self, rows: Array, lists: Lists) -> list[list[Reason]]:
        """See `VersionedScorer`: those of the factors."""
        return self._asked.reasons(self._fold_in, rows, lists)

    def logits(self, rows: int | Array, items: Array) -> Array:
        """Logits (p,) of the network for items (p,) and one user, or a user (p,) for each."""
        joined = np.concatenate([self._user_gmf[rows] * self._item_gmf[items], self._outputs(rows, items)], axis=1)
        found: Array = (joined @ self._weights[-1] + self._biases[-1])[:, 0]
        return found

    def _outputs(self, rows: int | Array, items: Array) -> Array:
        """(p, width) outputs of the last hidden layer."""
        outputs: Array = np.maximum(self._user_inputs[rows] + self._item_inputs[items], 0)
        for weights, bias in zip(self._weights[:-1], self._biases[1:-1], strict=True):
            outputs = np.maximum(outputs @ weights + bias, 0)
        return outputs

    def _parts(self, rows: Array, items: Array) -> tuple[Array, Array]:
        """What the two towers add to the logits of items (p,), each (p,)."""
        products = self._user_gmf[rows] * self._item_gmf[items]
        width = products.shape[1]
        outputs = self._outputs(rows, items) @ self._weights[-1][width:]
        return (products @ self._weights[-1][:width])[:, 0], outputs[:, 0]


class NeuralScores:
    """The scores of n users for all items: logits of their candidates, and products of factors behind them.

    Args:
        scorer: The version.
        users: (n, f) float32 factors.
        rows: (n,) rows of the network, -1 for users whom it does not know.

    Attributes:
        by_network: (n,) bool, whether the network ranks a user's candidates; of others the products are the scores.
    """

    def __init__(self, scorer: NeuralScorer, users: Array, rows: Array) -> None:
        self._scorer, self._users, self._rows = scorer, users, rows
        self.by_network: Array = (rows >= 0) & users.any(axis=1)

    def rank(self, k: Array, left_out: Lists, wanted: Lists) -> Ranked:
        """See `Scorer`. Whose list the candidates fill needs no score of other items."""
        items = self._scorer.items
        candidates, logits, _ = self._candidates
        closed = contained(*left_out, *candidates, items)
        open_ = candidates.lengths - np.bincount(candidates.owners[closed], minlength=len(k))
        asked = np.minimum(k, items - left_out.lengths)
        filled = self.by_network & (open_ >= asked) & (wanted.lengths == 0)
        lengths = np.where(filled, asked, 0)
        shape = len(k), int(lengths.max(initial=0))
        best, found = np.zeros(shape), np.full(shape, -1, dtype=np.int32)
        best_of_segments(np.where(closed, -np.inf, logits.astype(np.float64)), *candidates[::-1], lengths, best, found)
        rest = np.flatnonzero(~filled)
        others = DenseScores(self._all(rest)).rank(k[rest], left_out.of_users(rest), wanted.of_users(rest))
        informed = filled.copy()
        informed[rest] = others.informed
        scores = best.astype(np.float32)
        lists = Ranked(found, scores, lengths, others.above, items - left_out.lengths, informed)
        return lists.with_lists(rest, others)

    def at(self, lists: Lists) -> Array:
        """(c,) float64 scores of items."""
        candidates, logits, shifts = self._candidates
        products = self._scorer.products.at(self._users, lists).astype(np.float32) + shifts[lists.owners]
        ranked = looked_up(*candidates, logits.astype(np.float64), *lists, self._scorer.items)
        found: Array = np.where(self.hold(lists), ranked, products)
        return found

    def all(self) -> Array:
        """(n, items) float32."""
        return self._all(np.arange(len(self._users)))

    def hold(self, lists: Lists) -> Array:
        """(c,) bool: whether items are candidates of their users."""
        found: Array = contained(*self._candidates[0], *lists, self._scorer.items)
        return found

    def products_at(self, lists: Lists) -> Array:
        """(c,) float64 products of factors."""
        return self._scorer.products.at(self._users, lists)

    @cached_property
    def _candidates(self) -> tuple[Lists, Array, Array]:
        """Candidates, none of other users; their logits (p,) float32; and what is added to products (n,) float32."""
        # The last one is of users whom the network does not know.
        wanted = np.append(self._scorer.candidates, 0)[self._rows]
        counts = np.where(self.by_network, np.minimum(wanted, self._scorer.items), 0)
        nothing = Lists.empty(len(counts))
        best = self._scorer.products.best(self._users, counts, nothing, nothing)
        lists = Lists.of(best.lengths, best.items[np.arange(best.items.shape[1]) < best.lengths[:, None]])
        users = self._rows[lists.owners]
        parts = [slice(begin, begin + _PAIRS_AT_ONCE) for begin in range(0, len(users), _PAIRS_AT_ONCE)] or [slice(0)]
        logits = np.concatenate([self._scorer.logits(users[part], lists.items[part]) for part in parts])
        shifts, some = np.zeros(len(counts), dtype=np.float32), np.flatnonzero(best.lengths)
        if len(some):
            # Products begin a step below the last candidate.
            lowest = np.minimum.reduceat(logits, lists.offsets[some])
            shifts[some] = lowest - 1 - best.scores[some, best.lengths[some] - 1].astype(np.float32)
        return lists, logits, shifts

    def _all(self, places: Array) -> Array:
        """(m, items) float32 scores of some users (m,)."""
        candidates, logits, shifts = self._candidates
        scores = self._scorer.products.all(self._users[places]) + shifts[places, None]
        lengths = candidates.lengths[places]
        pairs = ragged_ranges(candidates.offsets[places], lengths)
        scores[np.repeat(np.arange(len(places)), lengths), candidates.items[pairs]] = logits[pairs]
        return scores

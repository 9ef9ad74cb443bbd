"""The scorer of sequences: what comes after a user's latest items, in their order, by a recurrent network."""

from copy import copy
from typing import ClassVar, Self

import numpy as np

from .arrays import Array, Arrays, Lists, latest_of
from .axes import ITEMS, USERS, Axes, Declared, Loss, NewItem
from .jit import compiled
from .ranking import Contributions, DenseScorer
from .topk import all_products, products_at
from .walks import put_first

SEQUENCE_FEATURES = ("sequence", "sequence_match")
# Logits run over more units than other features of the re-ranker.
_SCALE = 0.5


class SequenceScorer(DenseScorer):
    """Logits of a softmax over all items: the product of a user's vector and the item's, and the item's bias.

    A user's vector is a linear map of the last state of a gated recurrent unit (GRU), which reads the vectors of the
    user's latest items, oldest first. It is computed when it is asked for, by loops that add in one order. Users
    without items have logits of 0.

    Source: Hidasi et al., "Session-based recommendations with recurrent neural networks" (ICLR 2016); the GRU is that
    of Cho et al. (2014) in the variant of cuDNN.
    """

    axes: ClassVar[Declared] = {
        # Codes of items, one higher, newest first, 0 for none.
        "recent": Axes((USERS, "last items")),
        "vectors": Axes((ITEMS, "dimensions"), NewItem.TEXT, Loss.BY_ROW),
        "bias": Axes((ITEMS,), NewItem.MEAN, Loss.SINGLE),
        # Gates are those of reset, then of update, then what is new.
        "input_weights": Axes(("gates", "dimensions")),
        "input_bias": Axes(("gates",)),
        "state_weights": Axes(("gates", "dimensions")),
        "state_bias": Axes(("gates",)),
        "output_weights": Axes(("dimensions", "dimensions")),
        "output_bias": Axes(("dimensions",)),
    }

    def __init__(self, arrays: Arrays) -> None:
        self._recent, self._bias = arrays["recent"], arrays["bias"]
        self._vectors = np.ascontiguousarray(arrays["vectors"], dtype=np.float32)
        self.items = len(self._bias)
        # Weights, (from, to), and biases of inputs, of states and of the output.
        self._layers = tuple(
            (np.ascontiguousarray(arrays[f"{layer}_weights"].T), arrays[f"{layer}_bias"])
            for layer in ("input", "state", "output")
        )

    def following(self, rows: Array, lists: Lists) -> Array:
        """(2, c) features of items (c,) of users (n,), see `SEQUENCE_FEATURES`: logits, with the bias and without."""
        told, matches = self._matches(rows, lists)
        found: Array = np.where(told, [matches + self._bias[lists.items], matches], 0.0) * _SCALE
        return found

    def at(self, rows: Array, lists: Lists) -> Array:
        """See `Scorer`."""
        told, matches = self._matches(rows, lists)
        found: Array = np.where(told, (matches + self._bias[lists.items]).astype(np.float32), 0.0)
        return found

    def score(self, rows: Array) -> Array:
        """Logits; see `Scorer`."""
        latest = latest_of(self._recent, rows)
        scores = all_products(_encoded(latest, self._vectors, *self._layers), self._vectors)
        told = np.asarray(latest.any(axis=1))
        found: Array = np.where(told[:, None], scores.astype(np.float64) + self._bias, 0.0).astype(np.float32)
        return found

    def with_recent(self, rows: Array, recent: Lists) -> Self:
        """See `VersionedScorer`."""
        view = copy(self)
        view._recent = latest_of(self._recent, rows)
        put_first(view._recent, recent.offsets, recent.items)
        return view

    def contributions(self, rows: Array, lists: Lists) -> list[Contributions]:
        """See `VersionedScorer`."""
        told, matches = self._matches(rows, lists)
        biases = np.where(told, self._bias[lists.items], 0.0).tolist()
        return [{"match": match, "bias": bias} for match, bias in zip(matches.tolist(), biases, strict=True)]

    def _matches(self, rows: Array, lists: Lists) -> tuple[Array, Array]:
        """(c,) whether the user of an item has any latest ones, and the product of their vectors, 0 where not."""
        latest = latest_of(self._recent, rows)
        users = _encoded(latest, self._vectors, *self._layers)
        told = np.asarray(latest.any(axis=1))
        return told[lists.owners], products_at(users, self._vectors, *lists)


@compiled
def _encoded(
    latest: Array,
    vectors: Array,
    inputs: tuple[Array, Array],
    states: tuple[Array, Array],
    outputs: tuple[Array, Array],
) -> Array:
    """(n, d) float32 vectors of users, zeros for those without items.

    Args:
        latest: (n, latest) int32 codes, one higher, newest first, 0 for none.
        vectors: (items, d) float32.
        inputs, states: Weights (d, 3 d) and biases (3 d,) of the gates reset, update and new.
        outputs: Weights (d, d) and biases (d,).
    """
    width = vectors.shape[1]
    users = np.zeros((len(latest), width), np.float32)
    state, one = np.empty(width, np.float32), np.float32(1)
    own, past = np.empty(3 * width, np.float32), np.empty(3 * width, np.float32)
    for user in range(len(latest)):
        state[:] = 0
        length = 0
        while length < latest.shape[1] and latest[user, length] > 0:
            length += 1
        for place in range(length - 1, -1, -1):
            item = latest[user, place] - 1
            own[:], past[:] = inputs[1], states[1]
            for axis in range(width):
                value, before = vectors[item, axis], state[axis]
                for gate in range(3 * width):
                    own[gate] += inputs[0][axis, gate] * value
                    past[gate] += states[0][axis, gate] * before
            for axis in range(width):
                reset = one / (one + np.exp(-(own[axis] + past[axis])))
                update = one / (one + np.exp(-(own[width + axis] + past[width + axis])))
                new = np.tanh(own[2 * width + axis] + reset * past[2 * width + axis])
                state[axis] = (one - update) * new + update * state[axis]
        if length:
            users[user] = outputs[1]
            for axis in range(width):
                for other in range(width):
                    users[user, other] += outputs[0][axis, other] * state[axis]
    return users

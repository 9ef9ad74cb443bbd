"""Factors for items that nobody had yet, from their text: a ridge regression that follows the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recsys.config.sections import Items
from recsys.errors import ConfigError
from recsys.model.common.arrays import Float32Array, FloatArray, IntArray
from recsys.model.interactions.vocab import Vocabulary, pack_ids, unpack_ids

Arrays = Mapping[str, npt.NDArray[Any]]

# Numbers are rounded to these units before they are multiplied. With embeddings of length 1, at most 4096 items and
# factors below 64, sums of their products then need no more than the 53 bits of a float64: they are exact.
_EMBEDDING_UNIT, _FACTOR_UNIT = 2.0**-15, 2.0**-20

# Arrays of a version with one entry per item, by kind: name, axis of the items, and what
# stands there for an item that nobody had yet, a number or the array that holds it; a mixture may lack some of them.
_Entry = tuple[str, int, float | str]
_FACTORS = {"als": "item_factors", "mixture": "als.item_factors"}
_PER_ITEM: dict[str, list[_Entry]] = {
    "als": [],
    "mixture": [
        ("trend.counts", 1, 0.0),
        ("trend.segment_counts", 2, 0.0),
        # As if the item had appeared just now.
        ("trend.first", 0, "trend.clock"),
        ("trend.last", 0, "trend.clock"),
        ("cooccurrence.neighbors", 0, 0.0),
        ("cooccurrence.strengths", 0, 0.0),
        ("cooccurrence.totals", 0, 0.0),
        ("cooccurrence.share", 0, 0.0),
        ("repeat.occasions", 1, 0.0),
        ("repeat.intervals", 1, 0.0),
        ("repeat.share", 0, 0.0),
    ],
}
_PER_ITEM_OF_ALL: list[_Entry] = [("item_popularity", 0, 0.0)]


@dataclass(frozen=True)
class Texts:
    """The embedded texts of a catalogue.

    Attributes:
        items: n ids.
        embeddings: (n, d) float32 unit vectors.
    """

    items: Vocabulary
    embeddings: Float32Array

    @classmethod
    def of(cls, ids: Sequence[str], embeddings: Float32Array) -> "Texts":
        """From n distinct ids and their embeddings (n, d)."""
        return cls(Vocabulary(ids), embeddings)

    def only(self, ids: Sequence[str]) -> "Texts":
        """The part about some items; ids without a text are left out."""
        rows = self.items.lookup(ids)
        kept = np.flatnonzero(rows >= 0)
        return Texts.of([ids[place] for place in kept.tolist()], self.embeddings[rows[kept]])


class ColdStart:
    """Learns W, by which an item's embedding x gives its factors as x W, from items that have both.

    Teachers are the `newest` items of those with a text and at least `min_events` users: a new item is more like the
    last new ones than like the catalogue, whose old favorites have factors of a length that few reach. W minimizes
    sum |x W - y|^2 + regularization |W|^2 over them, y being a teacher's factors, so W = (A + regularization I)^-1 B
    with A = sum x x' and B = sum x y'. It predicts what items of such a text have come to lately, on average; most new
    items therefore rank behind what is popular, and only those whose like were taken up at once come into lists.

    When teachers come and go, or their factors change, A and B are corrected by those rows alone. The sums are exact,
    embeddings counting to 2^-15 and factors to 2^-20, so they are the same to the last bit as if made anew: what is
    predicted depends on the teachers there are now, not on those there were.

    Source: the map from content to latent factors is that of Gantner et al. 2010, "Learning attribute-to-feature
    mappings for cold-start recommendations", for text and with a window.

    Args:
        settings: Who teaches, and the penalty.
        dimensions: Length d of an embedding.
        factors: Length f of an item's factors.
    """

    def __init__(self, settings: Items, dimensions: int, factors: int) -> None:
        self._settings = settings
        self._codes: IntArray = np.zeros(0, dtype=np.int64)
        self._inputs: FloatArray = np.zeros((0, dimensions))
        self._targets: FloatArray = np.zeros((0, factors))
        self._gram = torch.zeros(dimensions, dimensions, dtype=torch.float64)
        self._moments = torch.zeros(dimensions, factors, dtype=torch.float64)

    def __len__(self) -> int:
        """How many items teach."""
        return len(self._codes)

    @property
    def equations(self) -> tuple[FloatArray, FloatArray]:
        """A (d, d), without the penalty, and B (d, f)."""
        return self._gram.numpy(), self._moments.numpy()

    def teachers(self, users: IntArray, described: npt.NDArray[np.bool_]) -> IntArray:
        """Codes (n,) of the items that should teach, rising.

        Args:
            users: (items,) how many users had each item; codes are in the order in which items appeared.
            described: (items,) whether an item has a text.
        """
        return np.flatnonzero((users >= self._settings.min_events) & described)[-self._settings.newest :]

    def learn(self, codes: IntArray, embeddings: Float32Array, factors: Float32Array) -> int:
        """Have these teachers from now on, and no others.

        Args:
            codes: (n,) codes of items, rising.
            embeddings: (n, d) unit vectors.
            factors: (n, f) numbers below 64 in size; larger ones make the sums inexact.

        Returns:
            The rows by which the equations were corrected.
        """
        inputs, targets = _rounded(embeddings, _EMBEDDING_UNIT), _rounded(factors, _FACTOR_UNIT)
        _, before, now = np.intersect1d(self._codes, codes, assume_unique=True, return_indices=True)
        same = (self._inputs[before] == inputs[now]).all(axis=1) & (self._targets[before] == targets[now]).all(axis=1)
        gone = np.delete(np.arange(len(self._codes)), before[same])
        come = np.delete(np.arange(len(codes)), now[same])
        self._add(self._inputs[gone], self._targets[gone], -1)
        self._add(inputs[come], targets[come], 1)
        self._codes, self._inputs, self._targets = codes.copy(), inputs, targets
        return len(gone) + len(come)

    def predict(self, embeddings: Float32Array) -> Float32Array:
        """Factors (n, f) float32 of items with embeddings (n, d), zero without teachers."""
        penalty = self._settings.regularization * torch.eye(len(self._gram), dtype=torch.float64)
        weights = torch.cholesky_solve(self._moments, torch.linalg.cholesky(self._gram + penalty))
        predicted = torch.from_numpy(_rounded(embeddings, _EMBEDDING_UNIT)) @ weights
        return predicted.to(torch.float32).numpy()

    def _add(self, inputs: FloatArray, targets: FloatArray, sign: int) -> None:
        """Correct the equations by teachers (n, d), (n, f): 1 adds them, -1 takes them out."""
        left, right = torch.from_numpy(inputs), torch.from_numpy(targets)
        self._gram += sign * (left.T @ left)
        self._moments += sign * (left.T @ right)


def extend_served(arrays: Arrays, cold: ColdStart, catalogue: Texts) -> dict[str, npt.NDArray[Any]]:
    """Have a version know the items of a catalogue that nobody had yet, so that it recommends them at once.

    Items that somebody had keep their own factors, few as their users may be: that nobody else took to them since they
    came says more than their text.

    Args:
        arrays: What `OnlineModel.served` returned.
        cold: Learns from them what texts stand for.
        catalogue: All items with a text. Only ones that can be had should be in it.

    Returns:
        The arrays, with new items at the end of all that have one entry per item, in the order of the catalogue, their
        popularity 0. Without teachers there is nothing to tell about new items, and the arrays are as they were.

    Raises:
        ConfigError: versions of this kind cannot be extended.
    """
    kind = arrays["kind"].tobytes().decode()
    if _FACTORS.get(kind) not in arrays:
        raise ConfigError(f"setting 'items.path' is of no use to a model of kind '{kind}': leave it out")
    known = unpack_ids(arrays["item_ids_bytes"], arrays["item_ids_offsets"])
    rows = catalogue.items.lookup(known)
    codes = cold.teachers(np.bincount(arrays["seen_items"], minlength=len(known)), rows >= 0)
    factors = arrays[_FACTORS[kind]]
    cold.learn(codes, catalogue.embeddings[rows[codes]], factors[codes])
    new = np.delete(np.arange(len(catalogue.items)), rows[rows >= 0])
    extended = dict(arrays)
    if not len(cold) or not len(new):
        return extended
    extended[_FACTORS[kind]] = np.concatenate([factors, cold.predict(catalogue.embeddings[new])])
    for name, axis, fill in [*_PER_ITEM[kind], *_PER_ITEM_OF_ALL]:
        if name in arrays:
            value = float(arrays[fill][0]) if isinstance(fill, str) else fill
            extended[name] = _appended(arrays[name], axis, value, len(new))
    ids = catalogue.items.ids
    packed = pack_ids([*known, *(ids[place] for place in new)])
    extended["item_ids_bytes"], extended["item_ids_offsets"] = packed
    return extended


def _appended(array: npt.NDArray[Any], axis: int, value: float, count: int) -> npt.NDArray[Any]:
    """An array with `count` more entries along an axis."""
    shape = [*array.shape[:axis], count, *array.shape[axis + 1 :]]
    return np.concatenate([array, np.full(shape, value, dtype=array.dtype)], axis=axis)


def _rounded(values: Float32Array, unit: float) -> FloatArray:
    """Values as multiples of a power of two."""
    return np.round(values.astype(np.float64) / unit) * unit

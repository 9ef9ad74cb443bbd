"""Factors of cold items from their text: a ridge regression that follows the model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from recsys.config.sections import Items
from recsys.errors import ConfigError
from recsys.model.common.arrays import Float32Array, FloatArray, IntArray
from recsys.model.interactions.described import Described
from recsys.model.interactions.vocab import Vocabulary
from recsys.serving import Served
from recsys.serving.arrays import Array
from recsys.serving.axes import NewItem, declared_name, with_new_items
from recsys.serving.version import declared_axes

# Numbers are rounded to these units before they are multiplied. With embeddings of length 1, at most 4096 items and
# factors below 64, sums of their products then need no more than the 53 bits of a float64: they are exact.
_EMBEDDING_UNIT, _FACTOR_UNIT = 2.0**-15, 2.0**-20


@dataclass(frozen=True)
class Texts:
    """The embedded texts of a catalog.

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
    """Learns the map W from an item's embedding x to its factors x W, from items that have both.

    It is trained on the `newest` items among those with a text and at least `min_events` users, called teachers: a cold
    item resembles the latest new items more than old favorites, whose factors are longer than most items' ever become.
    W minimizes sum |x W - y|^2 + regularization |W|^2 over the teachers, where y are a teacher's factors, so
    W = (A + regularization I)^-1 B with A = sum x x' and B = sum x y'. It predicts what items of such a text reached
    lately, on average. Most cold items therefore rank behind popular ones, and only those whose like became popular at
    once enter the lists.

    When teachers come and go, or their factors change, A and B are corrected by those rows alone. Embeddings are
    rounded to 2^-15 and factors to 2^-20, which makes the sums exact: they equal to the last bit those computed from
    scratch, so predictions depend on the present teachers only, not on earlier ones.

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
        """Number of teachers."""
        return len(self._codes)

    @property
    def equations(self) -> tuple[FloatArray, FloatArray]:
        """A (d, d), without the penalty, and B (d, f)."""
        return self._gram.numpy(), self._moments.numpy()

    def teachers(self, users: IntArray, described: npt.NDArray[np.bool_]) -> IntArray:
        """Codes (n,) of the teachers, ascending.

        Args:
            users: (items,) number of users of each item; codes are in the order in which items appeared.
            described: (items,) whether an item has a text.
        """
        return np.flatnonzero((users >= self._settings.min_events) & described)[-self._settings.newest :]

    def learn(self, codes: IntArray, embeddings: Float32Array, factors: Float32Array) -> int:
        """Replace the teachers by these.

        Args:
            codes: (n,) codes of items, ascending.
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


class ColdItems:
    """Adds the cold items of a catalog to versions, so that they are recommended at once.

    Every array of factors that runs along items has a `ColdStart` of its own, which follows the versions. What else a
    version holds of an item is filled as its scorer declares, see `recsys.serving.axes`.

    Args:
        settings: Who teaches, and the penalty.
    """

    def __init__(self, settings: Items) -> None:
        self._settings = settings
        self._learned: dict[str, ColdStart] = {}

    def extend(self, served: Served, catalog: Texts, described: Described | None = None) -> Served:
        """A version that knows the items of a catalog that nobody has interacted with.

        Items with interactions keep their own factors, however few users they have: so few interactions since they
        appeared are better evidence than their text.

        Args:
            served: The version.
            catalog: All items with a text. Only items that are available should be in it.
            described: The same items with the vectors that the model learns from; None if it learns from none.

        Returns:
            The version with the cold items after its own, in the order of the catalog, their popularity 0. Without
            teachers nothing can be predicted, and the version is unchanged.

        Raises:
            ConfigError: versions of this kind cannot be extended.
        """
        axes = declared_axes(served.kind)
        new_item = {name: axes[declared_name(name)].new_item for name in served.arrays}
        of_text, of_vector = (
            [name for name, kind in new_item.items() if kind is wanted] for wanted in (NewItem.TEXT, NewItem.VECTOR)
        )
        if not of_text and not of_vector:
            raise ConfigError(f"setting 'items.path' is of no use to a model of kind '{served.kind}': leave it out")
        rows = catalog.items.lookup(served.item_ids)
        users = np.bincount(served.arrays["seen_items"], minlength=len(served.item_ids))
        new = np.delete(np.arange(len(catalog.items)), rows[rows >= 0])
        if not len(new):
            return served
        predicted: dict[str, Array] = {}
        for name in of_text:
            factors = served.arrays[name]
            shape = (catalog.embeddings.shape[1], factors.shape[1])
            cold = self._learned.setdefault(name, ColdStart(self._settings, *shape))
            codes = cold.teachers(users, rows >= 0)
            cold.learn(codes, catalog.embeddings[rows[codes]], factors[codes])
            if not len(cold):
                return served
            predicted[name] = cold.predict(catalog.embeddings[new])
        ids = catalog.items.ids
        for name in of_vector:
            assert described is not None, "the model learns from vectors"
            added = described.vectors[described.items.lookup([ids[place] for place in new.tolist()])]
            # A model that no batch has brought vectors yet has none of any length.
            predicted[name] = added[:, : served.arrays[name].shape[1]]
        return replace(
            served,
            item_ids=[*served.item_ids, *(ids[place] for place in new.tolist())],
            arrays=with_new_items(served.arrays, axes, len(new), predicted),
        )


def _rounded(values: Float32Array, unit: float) -> FloatArray:
    """Values as multiples of a power of two."""
    return np.round(values.astype(np.float64) / unit) * unit

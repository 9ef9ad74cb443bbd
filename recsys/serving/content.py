"""The scorer of item vectors, such as those of their texts: how alike items are to what a user had last."""

from copy import copy
from typing import ClassVar, Self

import numpy as np

from .arrays import Array, Arrays, Lists, latest_of
from .axes import ITEMS, USERS, Axes, Declared, NewItem
from .jit import compiled, compiled_fast
from .ranking import Contributions, DenseScorer, Reason, strongest
from .walks import put_first

CONTENT_FEATURES = ("content_mean", "content_most")
# A coded number of a vector stands for so many of these parts of the mean size of its numbers.
_PARTS, _MOST = 32, 127
# Each of a user's latest items counts so many times as much as the next more recent one.
_FADING = 0.9
# Cosines run from -1 to 1, other features of the re-ranker over several units.
_MEAN_SCALE, _MOST_SCALE = 3.0, 2.0


class ContentScorer(DenseScorer):
    """Cosines between the vector of an item and those of a user's latest items, all of them centered.

    Vectors of texts have much in common, which says nothing, so the mean of all vectors is taken away from each first.
    Items without a vector, and users without such items, have cosines of 0.

    Sums of products of coded vectors are whole numbers that single precision holds: they are the same in any order.
    """

    axes: ClassVar[Declared] = {
        "vectors": Axes((ITEMS, "dimensions"), NewItem.VECTOR),
        # Codes of items, one higher, 0 for none.
        "recent": Axes((USERS, "last items")),
        # The sum of the vectors from which the center is computed, and their number.
        "total": Axes(("dimensions",)),
        "described": Axes(("one",)),
    }

    def __init__(self, arrays: Arrays) -> None:
        self._vectors, self._recent = arrays["vectors"], arrays["recent"]
        self.items = len(self._vectors)
        count = max(float(arrays["described"][0]), 1.0)
        center = arrays["total"] / count
        # Of each vector: its product with the center, and its length once that is taken away.
        self._along, self._lengths = _centered(self._vectors, center)
        self._beside = float((center * center).sum())

    def alike(self, rows: Array, lists: Lists) -> Array:
        """(2, c) features of items (c,) of users (n,), see `CONTENT_FEATURES`.

        The cosine to the mean of the directions of the latest items, and the cosine to the most similar one of them.
        """
        return _alike(*lists, self._latest(rows), self._vectors, self._along, self._lengths, self._beside)

    def score(self, rows: Array) -> Array:
        """The cosine to the mean of the latest items; see `Scorer`."""
        lists = Lists.of(np.full(len(rows), self.items), np.tile(np.arange(self.items), len(rows)))
        scores: Array = self.alike(rows, lists)[0].reshape(len(rows), self.items).astype(np.float32)
        return scores

    def with_recent(self, rows: Array, recent: Lists) -> Self:
        """See `VersionedScorer`."""
        view = copy(self)
        view._recent = self._latest(rows)
        put_first(view._recent, recent.offsets, recent.items)
        return view

    def contributions(self, rows: Array, lists: Lists) -> list[Contributions]:
        """See `VersionedScorer`."""
        return [{"content": mean} for mean in self.alike(rows, lists)[0].tolist()]

    def reasons(self, rows: Array, lists: Lists) -> list[list[Reason]]:
        """See `VersionedScorer`: those of the latest items that an item is most like."""
        latest, found = self._latest(rows), list[list[Reason]]()
        for user, item in zip(lists.owners.tolist(), lists.items.tolist(), strict=True):
            own = latest[user][latest[user] > 0].astype(np.int64) - 1
            # Each of them alone is the mean of itself.
            pairs = Lists.of(np.ones(len(own)), np.full(len(own), item))
            alone = _alike(
                *pairs, own[:, None].astype(np.int32) + 1, self._vectors, self._along, self._lengths, self._beside
            )
            found.append(strongest("content", own, alone[1] / _MOST_SCALE))
        return found

    def _latest(self, rows: Array) -> Array:
        """(n, latest) codes of users' latest items, newest first; a copy."""
        return latest_of(self._recent, rows)


def coded(vectors: Array) -> Array:
    """(n, d) int8: directions of vectors (n, d), in steps of a 32nd of the mean size of a number of a vector.

    A vector of zeros, or one with a number that is not finite, has no direction: it becomes one of zeros. What is
    larger than four times the mean size is cut. The products of two coded vectors add up to 1024 d at most, which
    single precision holds for d up to 16,384.
    """
    wide = np.where(np.isfinite(vectors).all(axis=1, keepdims=True), vectors, 0).astype(np.float64)
    wide /= np.maximum(np.abs(wide).max(axis=1, keepdims=True, initial=0), 1e-300)
    sizes = np.sqrt(np.mean(wide * wide, axis=1, keepdims=True)) if wide.shape[1] else np.ones((len(wide), 1))
    steps = np.rint(wide * (_PARTS / np.where(sizes > 0, sizes, 1)))
    return np.clip(steps, -_MOST, _MOST).astype(np.int8)


@compiled
def _centered(vectors: Array, center: Array) -> tuple[Array, Array]:
    """(items,) products of vectors (items, d) int8 with the center (d,), and lengths without it, 0 without a vector."""
    along, lengths = np.zeros(len(vectors)), np.zeros(len(vectors))
    beside = 0.0
    for place in range(len(center)):
        beside += center[place] * center[place]
    for item in range(len(vectors)):
        product, square = 0.0, 0.0
        for place in range(len(center)):
            value = float(vectors[item, place])
            product += value * center[place]
            square += value * value
        along[item] = product
        # What is left of a vector at the center is only what was rounded.
        left = square - 2 * product + beside
        lengths[item] = np.sqrt(left) if square > 0 and left > 1e-9 * square else 0.0
    return along, lengths


@compiled_fast
def _alike(
    offsets: Array,
    items: Array,
    latest: Array,
    vectors: Array,
    along: Array,
    lengths: Array,
    beside: float,
) -> Array:
    """(2, c): what `ContentScorer.alike` returns.

    Args:
        offsets, items: Offsets (n + 1,) and int32 items (c,) of users.
        latest: (n, latest) int32 codes of their latest items, one higher, newest first, 0 for none.
        vectors: (items, d) int8; along, lengths: see `_centered`.
        beside: Square of the length of the center.
    """
    found = np.zeros((2, len(items)))
    width, dimensions = latest.shape[1], vectors.shape[1]
    own, one = np.empty((width, dimensions), np.float32), np.empty(dimensions, np.float32)
    codes, weights = np.empty(width, np.int64), np.empty(width)
    for user in range(len(latest)):
        count, weight = 0, 1.0
        for place in range(width):
            code = latest[user, place] - 1
            if code >= 0 and lengths[code] > 0:
                codes[count], weights[count] = code, weight
                for axis in range(dimensions):
                    own[count, axis] = vectors[code, axis]
                count += 1
            weight *= _FADING
        # Square of the length of the weighted sum of the directions.
        square = 0.0
        for left in range(count):
            for right in range(count):
                product = np.float32(0)
                for axis in range(dimensions):
                    product += own[left, axis] * own[right, axis]
                both = product - along[codes[left]] - along[codes[right]] + beside
                square += weights[left] * weights[right] * both / (lengths[codes[left]] * lengths[codes[right]])
        size = np.sqrt(max(square, 1e-12))
        for place in range(offsets[user], offsets[user + 1]):
            item = items[place]
            if count == 0 or lengths[item] == 0:
                continue
            for axis in range(dimensions):
                one[axis] = vectors[item, axis]
            mean, most = 0.0, -1.0
            for other in range(count):
                product = np.float32(0)
                for axis in range(dimensions):
                    product += one[axis] * own[other, axis]
                code = codes[other]
                cosine = (product - along[item] - along[code] + beside) / (lengths[item] * lengths[code])
                mean += weights[other] * cosine
                most = max(most, cosine)
            found[0, place], found[1, place] = _MEAN_SCALE * mean / size, _MOST_SCALE * most
    return found

"""How alike items are, by the factors of a version or by what follows what."""

from collections.abc import Callable, Collection
from typing import Protocol

import numpy as np

from recsys.serving.arrays import Array, Arrays
from recsys.serving.similar import COMPARING

_PREFIXES = ("", *(f"{member}." for member in COMPARING))

# Places (n,) of one item for each user, among the user's items (n, p), to its similarity to all of them, (n, p).
ToOthers = Callable[[Array], Array]


class Similarity(Protocol):
    """Compares items."""

    @property
    def width(self) -> int:
        """Numbers that one item is compared by."""

    def among(self, items: Array) -> ToOthers:
        """Compares the items (n, p) of n users with one another, each user's with this user's."""


class Cosines:
    """Cosine of factors; an item about which nothing is known is like no other.

    Args:
        factors: (items, f).
    """

    def __init__(self, factors: Array) -> None:
        lengths = np.linalg.norm(factors, axis=1, keepdims=True)
        self._unit = np.divide(factors, lengths, where=lengths > 0, out=np.zeros_like(factors))

    @property
    def width(self) -> int:
        """See `Similarity`."""
        return int(self._unit.shape[1])

    def among(self, items: Array) -> ToOthers:
        """See `Similarity`."""
        own, users = self._unit[items], np.arange(len(items))
        return lambda places: np.matmul(own, own[users, places][:, :, None])[:, :, 0]


class Shares:
    """The share that an item has among those that follow the other one, whichever way it is larger.

    Args:
        neighbors: (items, m), rows of items, one higher, 0 for none.
        shares: (items, m).
    """

    def __init__(self, neighbors: Array, shares: Array) -> None:
        self._neighbors, self._shares = neighbors, shares

    @property
    def width(self) -> int:
        """See `Similarity`."""
        return int(self._neighbors.shape[1])

    def among(self, items: Array) -> ToOthers:
        """See `Similarity`."""
        codes, near, shares = items + 1, self._neighbors[items], self._shares[items]
        users = np.arange(len(items))

        def similarity(places: Array) -> Array:
            code = codes[users, places][:, None, None]
            backward = np.where(near == code, shares, 0).max(axis=2, initial=0)
            same = near[users, places][:, None, :] == codes[:, :, None]
            forward = np.where(same, shares[users, places][:, None, :], 0).max(axis=2, initial=0)
            found: Array = np.maximum(backward, forward)
            return found

        return similarity


def compares(names: Collection[str]) -> bool:
    """Whether a version with arrays of these names compares items."""
    return any(f"{prefix}{name}" in names for prefix in _PREFIXES for name in ("item_factors", "neighbors"))


def factors_of(arrays: Collection[str]) -> tuple[str, str] | None:
    """Names of the factors of users and of items among those of a version's arrays; None if it has none."""
    found = next((prefix for prefix in _PREFIXES if f"{prefix}item_factors" in arrays), None)
    return None if found is None else (f"{found}user_factors", f"{found}item_factors")


def similarity_of(arrays: Arrays) -> Similarity | None:
    """How a version compares items, as `nearest_items` does; None if it does not."""
    for prefix in _PREFIXES:
        if f"{prefix}item_factors" in arrays:
            return Cosines(arrays[f"{prefix}item_factors"])
        if f"{prefix}neighbors" in arrays:
            neighbors, strengths, totals = (arrays[f"{prefix}{name}"] for name in ("neighbors", "strengths", "totals"))
            total = totals[:, None]
            return Shares(neighbors, np.divide(strengths, total, where=total > 0, out=np.zeros(strengths.shape)))
    return None

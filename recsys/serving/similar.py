"""Which items are like another one: nearest by factors, or by what follows them."""

import numpy as np

from .arrays import Array, Arrays

# Members of a mixture, the one that compares items best first; a learner alone has no name.
COMPARING = ("als", "ncf", "cooccurrence")
_PREFIXES = ("", *(f"{member}." for member in COMPARING))


def nearest_items(arrays: Arrays, row: int, k: int) -> tuple[Array, Array] | None:
    """The items most like another one.

    Args:
        arrays: Of a version, or of a live model.
        row: Row of the item.
        k: How many are wanted, at most.

    Returns:
        Rows of items (n,), best first, of equal ones the first row first, and their scores (n,): the cosine of the
        factors, or the share of an item among those that followed. None if the arrays compare no items.
    """
    for prefix in _PREFIXES:
        if f"{prefix}item_factors" in arrays:
            rows, scores = _by_cosine(arrays[f"{prefix}item_factors"].astype(np.float64), row)
        elif f"{prefix}neighbors" in arrays:
            neighbors, strengths, totals = (arrays[f"{prefix}{name}"] for name in ("neighbors", "strengths", "totals"))
            places = np.flatnonzero(neighbors[row])
            # Codes are kept one higher, 0 for none.
            rows, scores = neighbors[row, places].astype(np.int64) - 1, strengths[row, places] / totals[row]
        else:
            continue
        order = np.lexsort((rows, -scores))[:k]
        return rows[order], scores[order].astype(np.float64)
    return None


def vectors(arrays: Arrays) -> Array | None:
    """The factors (items, f) that items are compared by; None if the arrays hold none."""
    return next((arrays[f"{prefix}item_factors"] for prefix in _PREFIXES if f"{prefix}item_factors" in arrays), None)


def _by_cosine(factors: Array, row: int) -> tuple[Array, Array]:
    """The other items about which something is known, and their cosines."""
    lengths = np.linalg.norm(factors, axis=1)
    if not lengths[row]:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    rows = np.flatnonzero(lengths > 0)
    rows = rows[rows != row]
    scores: Array = factors[rows] @ factors[row] / (lengths[rows] * lengths[row])
    return rows, scores

"""Which items are like another one: nearest by factors, or by what follows them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.model.als.incremental_als import IncrementalAls
from recsys.model.common.arrays import FloatArray, IntArray
from recsys.model.learner import Learner, State
from recsys.model.mixture.mixture import Mixture
from recsys.model.neural.ncf import NeuralCf
from recsys.model.recommender import OnlineModel

# Members of a mixture, the one that compares items best first.
_COMPARING = ("als", "ncf", "cooccurrence")


def item_arrays(model: OnlineModel) -> State:
    """What `nearest_items` reads, of a live model; nothing if its kind compares no items."""
    learner = model.learner
    members: Mapping[str, Learner] = learner.members if isinstance(learner, Mixture) else {"": learner}
    member = next((members[name] for name in _COMPARING if name in members), members.get(""))
    als = member.teacher if isinstance(member, NeuralCf) else member
    if isinstance(als, IncrementalAls):
        # What is served solves all users, too.
        return {"item_factors": als.item_factors.cpu().numpy()}
    return {} if member is None else member.served(model.history)


def nearest_items(arrays: Mapping[str, npt.NDArray[Any]], row: int, k: int) -> tuple[IntArray, FloatArray] | None:
    """The items most like another one.

    Args:
        arrays: Of a registered version, or from `item_arrays`.
        row: Row of the item.
        k: How many are wanted, at most.

    Returns:
        Rows of items (n,), best first, of equal ones the first row first, and their scores (n,): the cosine of the
        factors, or the share of an item among those that followed. None if the arrays compare no items.
    """
    for prefix in ("", *(f"{member}." for member in _COMPARING)):
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


def _by_cosine(factors: FloatArray, row: int) -> tuple[IntArray, FloatArray]:
    """The other items about which something is known, and their cosines."""
    lengths = np.linalg.norm(factors, axis=1)
    if not lengths[row]:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    rows = np.flatnonzero(lengths > 0)
    rows = rows[rows != row]
    scores: FloatArray = factors[rows] @ factors[row] / (lengths[rows] * lengths[row])
    return rows, scores

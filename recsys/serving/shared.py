"""A ranking that is the same for all users, but for what each of them leaves out."""

import numpy as np

from .arrays import Array, Lists
from .ranking import Ranked, missing
from .walks import at_least, first_open


class SharedScores:
    """Scores that are the same for all users.

    Args:
        scores: (items,) float32.
    """

    def __init__(self, scores: Array) -> None:
        self.scores = scores
        self._order = np.argsort(-scores, kind="stable").astype(np.int32)
        self._descending = -scores[self._order]

    def rank(self, k: Array, left_out: Lists, wanted: Lists) -> Ranked:
        """See `Scorer`; as many users as there are in `k`."""
        items, count = len(self.scores), len(k)
        sizes = np.full(count, items)
        places, lengths = first_open(self._order[None], sizes, np.minimum(k, items), *left_out, items)
        found = np.where(places < 0, np.int32(-1), np.append(self._order, np.int32(-1))[places])
        scores = np.where(places < 0, np.float32(0), np.append(self.scores, np.float32(0))[found])
        own, closed = self.scores[wanted.items], missing(wanted, left_out, items)
        beside = self.scores[left_out.items]
        above = self.reached(own) - 1
        above -= at_least(wanted.offsets, own, left_out.offsets, beside, np.ones(len(beside), dtype=bool))
        open_items = items - left_out.lengths
        return Ranked(found, scores, lengths, np.where(closed, -1, above), open_items, np.ones(count, dtype=bool))

    def reached(self, scores: Array) -> Array:
        """(w,) int64, how many items score at least so much."""
        return np.searchsorted(self._descending, -scores, side="right")

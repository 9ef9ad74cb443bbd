"""Which rows a batch solves: those with the most to gain, and all others in turn, within a budget.

By Zipf's law a batch touches most of the popular rows, and these hold most of the history, so solving all of them
would cost a full sweep. But a row of 10,000 interactions with 3 new ones hardly moves. So a batch of n events may read
`budget` * n interactions per side. A part of that goes to the batch's own rows, in the order of what solving them takes
off the loss (see `expected_gains`). The rest goes to all rows in turn, in the order of their codes: `turn_budget` of it
at least. So a row waits for its turn for a fixed share of the history. The schedule is a function of the log alone.
"""

from dataclasses import dataclass

import numpy as np

from recsys.model.common.arrays import FloatArray, IntArray
from recsys.model.interactions.keeping import KeptRows

# One part in so many of the budget is kept for the rows whose turn it is.
_TURN_PART = 2


@dataclass
class Turn:
    """Position of the round-robin over all rows.

    Attributes:
        cursor: the next row.
        credit: interactions that may still be read; a long row waits until there are enough.
    """

    cursor: int = 0
    credit: int = 0

    def keep(self, rows: KeptRows) -> None:
        """Go on with the first row that stays, from the next one on."""
        self.cursor = int(np.searchsorted(rows.codes, self.cursor)) % max(len(rows), 1)

    def take(self, costs: IntArray, granted: int) -> IntArray:
        """The rows whose turn it is.

        Args:
            costs: (all rows,) interactions read when a row is solved, at least 1 each.
            granted: interactions added to the credit.

        Returns:
            (n,) rows, each once.
        """
        if not len(costs):
            return np.zeros(0, dtype=np.int64)
        self.credit += granted
        # Every row costs something, so more rows than the credit are never needed.
        window = (self.cursor + np.arange(min(self.credit, len(costs)))) % len(costs)
        spent = np.cumsum(costs[window])
        taken = int(np.searchsorted(spent, self.credit, side="right"))
        if taken == len(costs):
            self.credit = 0  # Every row is up to date, so no credit is carried over.
        elif taken:
            self.credit -= int(spent[taken - 1])
        self.cursor = (self.cursor + taken) % len(costs)
        return window[:taken]


def turn_budget(budget: int) -> int:
    """What of a budget of interactions is kept for the rows whose turn it is."""
    return budget // _TURN_PART


def expected_gains(unsolved: FloatArray, total: FloatArray) -> FloatArray:
    """What solving rows would take off the loss, but for a factor that all rows of a side share.

    A row's new pairs change the gradient of its loss by the sum of alpha w (1 - score) y, and the curvature of its loss
    is the penalty plus the sum of alpha w y y' over all of its pairs, both of which grow with its weight. The best step
    gains gradient^2 / (2 curvature). With pairs that are alike, and scores of new pairs that are small, that is
    unsolved^2 / total.

    Args:
        unsolved: (n,) weight received since the rows were last solved.
        total: (n,) weight of the whole rows.

    Returns:
        (n,) gains; infinity for rows that were never solved, of which all weight is new, and for those without weight.
    """
    gains: FloatArray = np.divide(unsolved**2, total, out=np.full(len(total), np.inf), where=unsolved < total)
    return gains


def most_promising(rows: IntArray, gains: FloatArray, costs: IntArray, budget: int) -> IntArray:
    """Rows of a batch to be solved now: those with the most to gain within the budget, and all never solved before.

    Args:
        rows: (n,) distinct rows.
        gains: (n,) what solving each would gain; infinity: it has to be solved.
        costs: (n,) interactions read when a row is solved.
        budget: interactions that may be read; a row that needs more waits for its turn.

    Returns:
        (m,) rows, ascending.
    """
    due = np.isinf(gains)
    fits = np.flatnonzero((costs <= budget) | due)
    order = fits[np.lexsort((rows[fits], -gains[fits]))]
    taken = order[(np.cumsum(costs[order]) <= budget) | due[order]]
    return np.sort(rows[taken])

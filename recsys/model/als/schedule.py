"""Which rows a batch solves: those that changed most, and all others in turn, within a budget.

By Zipf's law a batch touches most of the popular rows, and these hold most of the history, so solving all of them
would cost a full sweep. But a row of 10,000 interactions with 3 new ones hardly moves. So a batch of n events may read
`budget` * n interactions per side. Half of that goes to the batch's own rows, in the order of the share of their weight
that is new, because that predicts how far they move. The rest goes to all rows in turn, in the order of their codes. A
row is therefore solved at the latest after as many events as make up 2 / budget of the history: its wait is a fixed
share of the history. The schedule is a function of the log alone.
"""

from dataclasses import dataclass

import numpy as np

from recsys.model.common.arrays import FloatArray, IntArray
from recsys.model.interactions.keeping import KeptRows


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


def new_shares(unsolved: FloatArray, total: FloatArray) -> FloatArray:
    """Share of the weight of rows that is new since they were last solved.

    Args:
        unsolved: (n,) weight received since then.
        total: (n,) weight of the whole row.

    Returns:
        (n,) shares, 1 for rows without weight.
    """
    shares: FloatArray = np.divide(unsolved, total, out=np.ones(len(total)), where=total > 0)
    return shares


def most_changed(rows: IntArray, shares: FloatArray, costs: IntArray, budget: int) -> IntArray:
    """Rows of a batch to be solved now: the most changed ones within the budget, and all that were never solved.

    Args:
        rows: (n,) distinct rows.
        shares: (n,) share of each row's weight that is new since it was last solved; 1: all of it.
        costs: (n,) interactions read when a row is solved.
        budget: interactions that may be read; a row that needs more waits for its turn.

    Returns:
        (m,) rows, ascending.
    """
    fits = np.flatnonzero((costs <= budget) | (shares >= 1))
    order = fits[np.lexsort((rows[fits], -shares[fits]))]
    taken = order[(np.cumsum(costs[order]) <= budget) | (shares[order] >= 1)]
    return np.sort(rows[taken])

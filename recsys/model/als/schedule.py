"""Which rows a batch solves: those that changed most, and all others in turn, within a budget.

By Zipf's law a batch touches most of the popular rows, and their histories are most of the history: solving all of
them would cost a sweep. A row of 10,000 interactions with 3 new ones hardly moves, though. So a batch of n events may
read `budget` * n interactions a side. Half of that goes to the batch's own rows in the order of the share of their
weight that is new, which is what their movement follows. The rest goes to all rows in turn, in the order of their
codes. A row is therefore solved at the latest after as many events as make up 2 / budget of the history: it never waits
for more than a fixed share of what the model knows. Everything follows from the log alone.
"""

from dataclasses import dataclass

import numpy as np

from recsys.model.common.arrays import FloatArray, IntArray


@dataclass
class Turn:
    """Where the solving in turn has come to.

    Attributes:
        cursor: row that is next.
        credit: interactions that may be read and were not yet; a long row waits until there are enough of them.
    """

    cursor: int = 0
    credit: int = 0

    def take(self, costs: IntArray, granted: int) -> IntArray:
        """The rows whose turn it is.

        Args:
            costs: (all rows,) interactions read when a row is solved, at least 1 each.
            granted: what is added to the credit.

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
            self.credit = 0  # Everything is up to date: there is nothing to save for.
        elif taken:
            self.credit -= int(spent[taken - 1])
        self.cursor = (self.cursor + taken) % len(costs)
        return window[:taken]


def new_shares(unsolved: FloatArray, total: FloatArray) -> FloatArray:
    """Share of rows' weight that is new since they were solved.

    Args:
        unsolved: (n,) weight taken in since.
        total: (n,) weight of the whole row.

    Returns:
        (n,) shares, 1 for rows without weight.
    """
    shares: FloatArray = np.divide(unsolved, total, out=np.ones(len(total)), where=total > 0)
    return shares


def most_changed(rows: IntArray, shares: FloatArray, costs: IntArray, budget: int) -> IntArray:
    """Rows of a batch to be solved at once: the most changed ones within the budget, and all that never were solved.

    Args:
        rows: (n,) distinct rows.
        shares: (n,) share of each row's weight that is new since it was last solved; at 1 all of it is.
        costs: (n,) interactions read when a row is solved.
        budget: interactions to be read; a row that takes more is left to its turn.

    Returns:
        (m,) rows, ascending.
    """
    fits = np.flatnonzero((costs <= budget) | (shares >= 1))
    order = fits[np.lexsort((rows[fits], -shares[fits]))]
    taken = order[(np.cumsum(costs[order]) <= budget) | (shares[order] >= 1)]
    return np.sort(rows[taken])

"""Running sessions within a batch: what a user did first in it, and what came last."""

from dataclasses import dataclass

import numpy as np

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.common.arrays import IntArray
from recsys.model.common.randomness import Purpose, generator
from recsys.model.common.sampling import of_sampled_users
from recsys.model.learner import CodedBatch
from recsys.serving import Lists

# Users of a batch, at most, from whom is learned what comes next; and items that each of them has had just now.
_MOST_USERS, _MOST_ITEMS = 100, 20


@dataclass(frozen=True)
class RunningSessions:
    """What n users did in a batch up to their last item in it, and that item.

    Attributes:
        users: (n,) codes, ascending.
        given: Their items, latest last.
        targets: (n,) the item that came next.
    """

    users: IntArray
    given: Lists
    targets: IntArray

    @classmethod
    def of(cls, batch: CodedBatch, known_items: int, settings: Settings, step: StepId) -> "RunningSessions":
        """Those of sampled users who had at least one known item before their last one.

        What happened at the same time has no order in the log, so its order is drawn.

        Args:
            batch: The batch.
            known_items: Items that the model knew before it.
            settings: `recommend.exclude_seen`, `evaluation.users_per_batch` and `seed` are used.
            step: Of the batch.
        """
        drawing, once = generator(settings.seed, step, Purpose.RUNNING_SESSIONS), settings.recommend.exclude_seen
        rows = np.flatnonzero(of_sampled_users(batch.users, batch.weights, settings, step) & (batch.weights > 0))
        rows = rows[np.lexsort((drawing.random(len(rows)), batch.times[rows], batch.users[rows]))]
        users, items = batch.users[rows], batch.items[rows]
        last = np.diff(users, append=-1) != 0
        # An item right after itself is no next item.
        asked = last & ((np.diff(users, prepend=-1) != 0) | (np.diff(items, prepend=-1) != 0))
        asked &= batch.new_pairs[rows] | (not once)
        targets = np.full(batch.user_count, -1)
        targets[users[asked]] = items[asked]
        before = ~last & (items == targets[users])
        targets[users[before & once]] = -1
        given = np.flatnonzero(~last & (items < known_items) & (targets[users] >= 0))
        those = np.sort(drawing.permutation(np.unique(users[given]))[:_MOST_USERS])
        given = given[np.isin(users[given], those)]
        lengths = np.unique(users[given], return_counts=True)[1]
        # Those of a user stand together; the last ones count.
        from_end = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(given))
        lists = Lists.of(np.minimum(lengths, _MOST_ITEMS), items[given[from_end <= _MOST_ITEMS]])
        return cls(those, lists, targets[those])

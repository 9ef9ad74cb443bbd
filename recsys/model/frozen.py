"""A served model, held beside the live one so that both are measured on the same batches."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from recsys.model.common.arrays import GrowingArray, IntArray
from recsys.model.interactions.vocab import Vocabulary
from recsys.serving import Lists, Ranked, Served, VersionScorer


class FrozenModel:
    """A registered version, scored against the codes of the live vocabularies.

    Args:
        served: What `OnlineModel.served` returned, the same as in the registered artifact.
    """

    def __init__(self, served: Served) -> None:
        self._users, self._items = Vocabulary(served.user_ids), Vocabulary(served.item_ids)
        self._scorer = VersionScorer(served.kind, served.arrays)
        # The live vocabulary, and the row of each of its items, -1 if this version does not know it.
        self._live = Vocabulary()
        self._rows = GrowingArray((), np.int64)

    def knows(self, user_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether this version has learned from each of n users."""
        known: npt.NDArray[np.bool_] = self._users.lookup(user_ids) >= 0
        return known

    def ranked(self, user_ids: Sequence[str], items: Vocabulary, k: int, seen: Lists, wanted: Lists) -> Ranked:
        """The best of the live items that this version knows.

        Args:
            user_ids: n ids.
            items: The live vocabulary. One that grows costs as much as it has grown, another one costs its length.
            k: Length of the lists.
            seen: Live codes of items that are left out.
            wanted: Live codes of items whose ranks are asked for; -1 stands above those this version does not know.
        """
        rows = self._rows_of(items)
        codes = np.full(len(self._items), -1)
        codes[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
        known = rows[wanted.items] >= 0
        asked = Lists.of(np.bincount(wanted.owners[known], minlength=len(user_ids)), rows[wanted.items[known]])
        users = self._users.lookup(user_ids)
        ranked = self._scorer.rank(users, np.full(len(users), k), self._left_out(seen, rows, codes), asked)
        above = np.full(len(known), -1)
        above[known] = ranked.above
        return replace(ranked, items=np.where(ranked.items < 0, -1, np.append(codes, -1)[ranked.items]), above=above)

    def _left_out(self, seen: Lists, rows: IntArray, codes: IntArray) -> Lists:
        """Rows of seen items, and of all that are not live, ascending for each user."""
        users, hidden = len(seen.offsets) - 1, np.flatnonzero(codes < 0)
        owners = np.concatenate([seen.owners, np.repeat(np.arange(users), len(hidden))])
        own = np.concatenate([rows[seen.items], np.tile(hidden, users)])
        owners, own = owners[own >= 0], own[own >= 0]
        return Lists.of(np.bincount(owners, minlength=users), own[np.lexsort((own, owners))])

    def _rows_of(self, items: Vocabulary) -> IntArray:
        """Row of each live item, -1 if this version does not know it."""
        if items is not self._live:
            self._live, self._rows = items, GrowingArray((), np.int64)
        self._rows.append(self._items.lookup(items.since(len(self._rows))))
        rows: IntArray = self._rows.values
        return rows

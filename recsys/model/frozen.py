"""A served model, held beside the live one so that both are measured on the same batches."""

from collections.abc import Sequence

import numpy as np
import torch

from recsys.model.common.arrays import GrowingArray
from recsys.model.interactions.vocab import Vocabulary
from recsys.serving import Served, VersionScorer


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

    def scores(self, user_ids: Sequence[str], items: Vocabulary) -> torch.Tensor:
        """Scores of users against the live items.

        Args:
            user_ids: n ids.
            items: The live vocabulary. One that grows costs as much as it has grown, another one costs its length.

        Returns:
            (n, items) float32 on the CPU, -inf for items this version does not know.
        """
        if items is not self._live:
            self._live, self._rows = items, GrowingArray((), np.int64)
        self._rows.append(self._items.lookup(items.since(len(self._rows))))
        own = self._scorer.score(self._users.lookup(user_ids))
        rows = self._rows.values
        known = np.flatnonzero(rows >= 0)
        scores = np.full((len(user_ids), len(rows)), -np.inf, dtype=np.float32)
        scores[:, known] = own[:, rows[known]]
        return torch.from_numpy(scores)

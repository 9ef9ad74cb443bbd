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
        # Row of each live item, -1 if this version does not know it. The live vocabulary only grows at its end.
        self._rows = GrowingArray((), np.int64)

    def scores(self, user_ids: Sequence[str], items: Vocabulary) -> torch.Tensor:
        """Scores of users against the live items.

        Args:
            user_ids: n ids.
            items: The live vocabulary; always the same one.

        Returns:
            (n, items) float32 on the CPU, -inf for items this version does not know.
        """
        self._rows.append(self._items.lookup(items.since(len(self._rows))))
        own = self._scorer.score(self._users.lookup(user_ids))
        rows = self._rows.values
        known = np.flatnonzero(rows >= 0)
        scores = np.full((len(user_ids), len(rows)), -np.inf, dtype=np.float32)
        scores[:, known] = own[:, rows[known]]
        return torch.from_numpy(scores)

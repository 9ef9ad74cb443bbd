"""A served model, held beside the live one so that both are measured on the same batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recsys.model.arrays import GrowingArray, IntArray
from recsys.model.vocab import Vocabulary, unpack_ids


class FrozenFactors:
    """The arrays of a registered version, scored against the codes of the live vocabularies.

    Args:
        users, items: Vocabularies of the version.
        user_factors: (users, factors) float32, zero rows for users without factors.
        item_factors: (items, factors) float32.
        popularity: (items,) the version's own popularity: its answer for users without factors.
    """

    def __init__(
        self,
        users: Vocabulary,
        items: Vocabulary,
        user_factors: npt.NDArray[np.float32],
        item_factors: npt.NDArray[np.float32],
        popularity: npt.NDArray[np.float32],
    ) -> None:
        self._users, self._items = users, items
        self._user_factors, self._item_factors = torch.from_numpy(user_factors), torch.from_numpy(item_factors)
        self._popularity = torch.from_numpy(popularity)
        # Row of each live item, -1 if this version does not know it. The live vocabulary only grows at its end.
        self._rows = GrowingArray((), np.int64)

    @classmethod
    def from_served(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "FrozenFactors":
        """From the arrays of `snapshot.served_arrays`, the same as in the registered artifact."""
        return cls(
            Vocabulary(unpack_ids(arrays["user_ids_bytes"], arrays["user_ids_offsets"])),
            Vocabulary(unpack_ids(arrays["item_ids_bytes"], arrays["item_ids_offsets"])),
            arrays["user_factors"],
            arrays["item_factors"],
            arrays["item_popularity"],
        )

    def scores(self, user_ids: Sequence[str], items: Vocabulary) -> torch.Tensor:
        """Scores of users against the live items.

        Args:
            user_ids: n ids.
            items: The live vocabulary; always the same one.

        Returns:
            (n, items) float32 on the CPU, -inf for items this version does not know.
        """
        self._rows.append(self._items.lookup(items.since(len(self._rows))))
        codes = self._users.lookup(user_ids)
        own = score_rows(take_rows(self._user_factors, codes), self._item_factors, self._popularity)
        unknown = own.new_full((len(own), 1), -torch.inf)
        rows = self._rows.values
        columns = torch.from_numpy(np.where(rows < 0, own.shape[1], rows))
        return torch.cat([own, unknown], dim=1).index_select(1, columns)


def take_rows(factors: torch.Tensor, codes: IntArray) -> torch.Tensor:
    """Rows of factors (n, factors) by code (n,), zero for code -1."""
    taken = factors.new_zeros(len(codes), factors.shape[1])
    known = np.flatnonzero(codes >= 0)
    places = torch.from_numpy(known).to(factors.device)
    taken[places] = factors[torch.from_numpy(codes[known]).to(factors.device)]
    return taken


def score_rows(user_factors: torch.Tensor, item_factors: torch.Tensor, popularity: torch.Tensor) -> torch.Tensor:
    """Scores (n, items) of users by their factors (n, factors), or by popularity (items,) if those are all zero."""
    scores = user_factors @ item_factors.T
    return torch.where((user_factors == 0).all(dim=1, keepdim=True), popularity, scores)

"""Items with a vector each, and which of them a batch has to bring."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from recsys.contracts import Contents, InteractionBatch, StepId
from recsys.model.interactions.vocab import Vocabulary


@dataclass(frozen=True)
class Described:
    """Vectors of items, such as those of a catalog.

    Attributes:
        items: n ids.
        vectors: (n, d) int8, see `recsys.serving.content.coded`.
    """

    items: Vocabulary
    vectors: npt.NDArray[np.int8]

    def of(self, item_ids: Sequence[str]) -> Contents:
        """The vectors of some items (m,); those without one are left out."""
        return self.unlike(item_ids, np.zeros((len(item_ids), 0), dtype=np.int8))

    def unlike(self, item_ids: Sequence[str], known: npt.NDArray[np.int8]) -> Contents:
        """The vectors of those of some items (m,) that have had another one, or none.

        Args:
            item_ids: m ids.
            known: (m, d) what each has had, zeros for none; d may be 0.
        """
        rows = self.items.lookup(item_ids)
        found = np.flatnonzero(rows >= 0)
        if known.shape[1]:
            found = found[(self.vectors[rows[found]] != known[found]).any(axis=1)]
        return Contents([item_ids[place] for place in found.tolist()], self.vectors[rows[found]])

    def handed_out(
        self, batches: Iterable[tuple[StepId, InteractionBatch]]
    ) -> Iterator[tuple[StepId, InteractionBatch]]:
        """Batches, each with the vectors of the items that come first in it, in the place of those it had."""
        seen: set[str] = set()
        for step, batch in batches:
            new = [item for item in dict.fromkeys(batch.item_ids) if item not in seen]
            seen.update(new)
            yield step, replace(batch, contents=self.of(new))


def with_vectors(
    catalog: Described | None, batches: Iterable[tuple[StepId, InteractionBatch]]
) -> Iterable[tuple[StepId, InteractionBatch]]:
    """`Described.handed_out`; without a catalog the batches as they are."""
    return batches if catalog is None else catalog.handed_out(batches)

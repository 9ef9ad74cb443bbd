"""What a generation has learned of the log at its begin: everything, unless a rebuild was told otherwise.

The ledger row of the rebuild says so, because the model of the generation can be recovered from the log at any time.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from recsys.config.operation import Rebuild
from recsys.contracts import InteractionBatch, Left, StepId

_AS_OF, _WITHOUT = "as of batch ", "without "


@dataclass(frozen=True)
class Scope:
    """What a rebuild learns.

    Attributes:
        as_of: step of the model that it goes back to; None: it trains.
        batches: ids of the batches that it leaves out.
        users: ids of the users that it leaves out.
    """

    as_of: StepId | None = None
    batches: tuple[int, ...] = ()
    users: tuple[str, ...] = ()

    @classmethod
    def of_settings(cls, settings: Rebuild, generation: int) -> "Scope":
        """The scope that the settings ask for.

        Args:
            settings: see `config.operation.Rebuild`.
            generation: the current one.
        """
        as_of = None if settings.as_of_batch is None else StepId(generation, settings.as_of_batch)
        return cls(as_of, tuple(sorted(set(settings.without_batches))), tuple(sorted(set(settings.without_users))))

    @classmethod
    def of_decisions(cls, decisions: Iterable[str]) -> "Scope":
        """Read from the ledger what `decisions` wrote there."""
        scope = cls()
        for decision in decisions:
            if decision.startswith(_AS_OF):
                generation, _, batch_id = decision.removeprefix(_AS_OF).partition("-")
                scope = cls(as_of=StepId(int(generation), int(batch_id)))
            elif decision.startswith(_WITHOUT):
                left_out = json.loads(decision.removeprefix(_WITHOUT))
                scope = cls(None, tuple(left_out["batches"]), tuple(left_out["users"]))
        return scope

    def decisions(self) -> tuple[str, ...]:
        """The lines for the ledger; none for the whole log."""
        if self.as_of is not None:
            return (f"{_AS_OF}{self.as_of}",)
        if not self.batches and not self.users:
            return ()
        return (_WITHOUT + json.dumps({"batches": self.batches, "users": self.users}, ensure_ascii=False),)

    def of(self, batches: Iterable[tuple[StepId, InteractionBatch]]) -> Iterator[tuple[StepId, InteractionBatch]]:
        """The batches without what is left out."""
        left_out = set(self.users)
        for step, batch in batches:
            if step.batch_id not in self.batches:
                yield step, without(batch, left_out) if left_out else batch


def without(batch: InteractionBatch, users: set[str]) -> InteractionBatch:
    """What of a batch is not of these users."""
    kept = np.array([user not in users for user in batch.user_ids], dtype=bool)
    batch = batch if kept.all() else batch.subset(np.flatnonzero(kept))
    if users.isdisjoint(batch.left.user_ids):
        return batch
    left = [pair for pair in zip(batch.left.user_ids, batch.left.item_ids, strict=True) if pair[0] not in users]
    return replace(batch, left=Left([user for user, _ in left], [item for _, item in left], batch.left.impressions))

"""A challenger on trial: what its batches add up to, and what the gate says after each of them."""

from collections.abc import Mapping
from datetime import datetime

import numpy as np

from recsys.config.sections import Gate
from recsys.contracts import StepId, TrialBatch, TrialKey
from recsys.model.evaluation.gate import UNDECIDED, Evidence, GateResult, judge
from recsys.model.evaluation.prequential import BatchEvaluation
from recsys.model.evaluation.rivals import Rivals

# Under these names the two versions are measured.
CHALLENGER, CHAMPION = "challenger", "champion"
# Metric of a batch: seconds in which the challenger ranked for one of its users.
USER_SECONDS = "gate/user_seconds"


class Trial:
    """One trial. The same batches in the same order give the same verdict, which stays.

    Args:
        key: which versions.
        gate: the settings.

    Attributes:
        result: of the last look.
        looks: number of batches that were measured.
    """

    def __init__(self, key: TrialKey, gate: Gate) -> None:
        self.key = key
        self.result = GateResult(UNDECIDED, ("it was not measured",), {"users": 0.0, "batches": 0.0})
        self.looks = 0
        self._gate = gate
        self._codes: dict[str, int] = {}
        self._batches: list[TrialBatch] = []
        self._users: list[int] = []
        self._coverage: list[float] = []
        self._user_seconds: list[float] = []

    def add(self, batch: TrialBatch, figures: Mapping[str, float]) -> GateResult:
        """Add a batch, and look.

        Args:
            batch: what was measured; of this trial, and later than the batches before.
            figures: the metrics of the batch.
        """
        if self.result.decided:
            return self.result
        self._batches.append(batch)
        self._users += [self._codes.setdefault(user, len(self._codes)) for user in batch.user_ids]
        self.looks += 1
        self._note_limits(figures)
        self.result = judge(self._evidence(), self._gate, last=self.looks >= self._gate.max_batches)
        return self.result

    def end(self) -> GateResult:
        """Decide with what there is."""
        if not self.result.decided:
            self.result = judge(self._evidence(), self._gate, last=True)
        return self.result

    def _note_limits(self, figures: Mapping[str, float]) -> None:
        own, other = (
            next((value for name, value in figures.items() if name.startswith(f"{version}/coverage_at_")), None)
            for version in (CHALLENGER, CHAMPION)
        )
        if own is not None and other:
            self._coverage.append(own / other)
        if USER_SECONDS in figures:
            self._user_seconds.append(figures[USER_SECONDS])

    def _evidence(self) -> Evidence:
        batches = self._batches

        def joined(name: str) -> np.ndarray:
            parts = [getattr(batch, name) for batch in batches]
            return np.concatenate(parts) if parts else np.empty(0)

        return Evidence(
            users=np.array(self._users, dtype=np.int64),
            batches=self.looks,
            version=joined("ndcg"),
            champion=None if self.key.against is None else joined("against"),
            popularity=joined("popularity"),
            known=joined("known").astype(bool),
            coverage=float(np.mean(self._coverage)) if self._coverage else None,
            # The fastest: what disturbs a measurement of time only adds to it.
            user_seconds=min(self._user_seconds, default=None),
        )


def trial_batch(
    key: TrialKey, evaluation: BatchEvaluation, rivals: Rivals, step: StepId, at: datetime
) -> TrialBatch | None:
    """What a batch adds to a trial, users in the order of their ids; None if its versions were not measured on it."""
    ndcg = evaluation.ndcg
    if CHALLENGER not in ndcg or (key.against is not None and CHAMPION not in ndcg):
        return None
    ids = evaluation.user_ids
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    user_ids = [ids[place] for place in order.tolist()]
    return TrialBatch(
        key=key,
        step=step,
        user_ids=user_ids,
        ndcg=ndcg[CHALLENGER][order],
        against=None if key.against is None else ndcg[CHAMPION][order],
        popularity=ndcg["popularity"][order],
        known=rivals[CHALLENGER if key.against is None else CHAMPION].knows(user_ids),
        at=at,
    )

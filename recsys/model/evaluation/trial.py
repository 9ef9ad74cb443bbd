"""A challenger on trial, or a champion that is watched: what the batches add up to, and what the gate says of it."""

from collections.abc import Mapping
from datetime import datetime

import numpy as np

from recsys.config.sections import Gate
from recsys.contracts import StepId, TrialBatch, TrialKey
from recsys.model.common.arrays import FloatArray
from recsys.model.evaluation.gate import REJECTED, UNDECIDED, Evidence, GateResult, judge, watch
from recsys.model.evaluation.prequential import BatchEvaluation
from recsys.model.evaluation.rivals import Rivals

# Under these names versions are measured.
CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"
# Metric of a batch: seconds in which the challenger ranked for one of its users.
USER_SECONDS = "gate/user_seconds"
_NOT_MEASURED = GateResult(UNDECIDED, ("it was not measured",), {"users": 0.0, "batches": 0.0})


class _Comparison:
    """Two versions, measured batch by batch on the same users.

    Args:
        key: which versions.
        gate: the settings.

    Attributes:
        result: of the last look.
        looks: number of batches that were measured.
    """

    def __init__(self, key: TrialKey, gate: Gate) -> None:
        self.key = key
        self.result = _NOT_MEASURED
        self.looks = 0
        self._gate = gate
        self._batches: list[TrialBatch] = []
        self._codes: dict[str, int] = {}
        self._users: list[int] = []

    def _take(self, batch: TrialBatch) -> None:
        self.looks += 1
        self._batches.append(batch)
        self._users += [self._codes.setdefault(user, len(self._codes)) for user in batch.user_ids]

    def _added_up(
        self, version: str, champion: str | None, coverage: float | None = None, user_seconds: float | None = None
    ) -> Evidence:
        """What the batches add up to.

        Args:
            version, champion: what of the batches is the NDCG of each; None: there is no champion.
            coverage, user_seconds: see `Evidence`.
        """
        return Evidence(
            users=np.array(self._users, dtype=np.int64),
            batches=self.looks,
            version=self._joined(version),
            champion=None if champion is None else self._joined(champion),
            popularity=self._joined("popularity"),
            known=self._joined("known").astype(bool),
            coverage=coverage,
            user_seconds=user_seconds,
        )

    def _joined(self, name: str) -> FloatArray:
        parts = [getattr(batch, name) for batch in self._batches]
        return np.concatenate(parts) if parts else np.empty(0)


class Trial(_Comparison):
    """One trial. The same batches in the same order give the same verdict, which stays.

    Args:
        key: which versions.
        gate: the settings.

    Attributes:
        result: of the last look.
        measured_as: the name of the version on trial in the evaluation.
        metrics: of the ledger, by the name of the figure.
    """

    measured_as = CHALLENGER
    metrics: Mapping[str, str] = {
        "estimate": "gate/estimate",
        "lower": "gate/lower",
        "upper": "gate/upper",
        "users": "gate/users",
    }

    def __init__(self, key: TrialKey, gate: Gate) -> None:
        super().__init__(key, gate)
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
        self._take(batch)
        self._note_limits(figures)
        self.result = judge(self._evidence(), self._gate, last=self.looks >= self._gate.max_batches)
        return self.result

    def end(self) -> GateResult:
        """Decide with what there is."""
        if not self.result.decided:
            self.result = judge(self._evidence(), self._gate, last=True)
        return self.result

    def beginning(self) -> str:
        """That it begins, in one line."""
        beside = "popularity" if self.key.against is None else f"version {self.key.against}"
        return f"gate: challenger {self.key.version} is measured beside {beside} from here on"

    def decision(self) -> str:
        """The verdict in one line."""
        return decision(self.key, self.result)

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
        return self._added_up(
            "ndcg",
            None if self.key.against is None else "against",
            coverage=float(np.mean(self._coverage)) if self._coverage else None,
            # The fastest: what disturbs a measurement of time only adds to it.
            user_seconds=min(self._user_seconds, default=None),
        )


class ChampionWatch(_Comparison):
    """The first batches of a champion, beside the version that it replaced. The same batches give the same verdict.

    Args:
        key: the version before, measured against the champion.
        gate: the settings.

    Attributes:
        result: of the last look; rejected: the champion is worse than what it replaced.
        measured_as: the name of the version before in the evaluation.
        metrics: of the ledger, by the name of the figure.
    """

    measured_as = PREVIOUS
    metrics: Mapping[str, str] = {
        "estimate": "watch/estimate",
        "lower": "watch/lower",
        "upper": "watch/upper",
        "users": "watch/users",
    }

    def add(self, batch: TrialBatch, figures: Mapping[str, float]) -> GateResult:
        """Add a batch, and look; see `Trial`."""
        if self.result.decided:
            return self.result
        self._take(batch)
        evidence = self._added_up(version="against", champion="ndcg")
        self.result = watch(evidence, self._gate, last=self.looks >= self._gate.watch_batches)
        return self.result

    def beginning(self) -> str:
        """That it begins, in one line."""
        return f"gate: champion {self.key.against} is watched beside version {self.key.version}, which it replaced"

    def decision(self) -> str:
        """The verdict in one line."""
        fares = "falls behind" if self.result.verdict == REJECTED else "holds its own beside"
        return f"gate: champion {self.key.against} {fares} version {self.key.version}: {'; '.join(self.result.reasons)}"


def decision(key: TrialKey, result: GateResult) -> str:
    """The verdict on a challenger in one line."""
    beside = "without a champion" if key.against is None else f"beside version {key.against}"
    return f"gate: challenger {key.version} {beside}: {result.verdict}: {'; '.join(result.reasons)}"


def trial_batch(
    key: TrialKey,
    evaluation: BatchEvaluation,
    rivals: Rivals,
    step: StepId,
    at: datetime,
    measured_as: str = CHALLENGER,
) -> TrialBatch | None:
    """What a batch adds to a trial, users in the order of their ids; None if its versions were not measured on it."""
    ndcg = evaluation.ndcg
    if measured_as not in ndcg or (key.against is not None and CHAMPION not in ndcg):
        return None
    ids = evaluation.user_ids
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    user_ids = [ids[place] for place in order.tolist()]
    return TrialBatch(
        key=key,
        step=step,
        user_ids=user_ids,
        ndcg=ndcg[measured_as][order],
        against=None if key.against is None else ndcg[CHAMPION][order],
        popularity=ndcg["popularity"][order],
        known=rivals[measured_as if key.against is None else CHAMPION].knows(user_ids),
        at=at,
    )

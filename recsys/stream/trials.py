"""The trial of a stream: a function of the table `trials` and the ledger, so a restart finds its verdict.

The rows of a batch are appended before its row of the ledger, under the batch id as transaction version. Rows that a
crash left behind without a row of the ledger stand: a batch that comes again does not measure a second time.
"""

from collections.abc import Sequence
from dataclasses import replace

from recsys.config import Settings
from recsys.contracts import LedgerRow, StepId, TrialBatch, TrialKey
from recsys.model.evaluation.gate import GateResult
from recsys.model.evaluation.prequential import BatchEvaluation
from recsys.model.evaluation.rivals import Rivals
from recsys.model.evaluation.trial import CHALLENGER, USER_SECONDS, Trial, trial_batch
from recsys.tables import trials
from recsys.tables.delta import Tables

# Metrics of the ledger, by the name of the figure.
_METRICS = {"estimate": "gate/estimate", "lower": "gate/lower", "upper": "gate/upper", "users": "gate/users"}


class Trials:
    """The trial that runs, if one does, and what it adds to tables and ledger.

    Args:
        settings: all settings.
        tables: the Delta tables.
        rows: the last rows of the ledger, in order; the caller adds later ones.

    Attributes:
        running: the trial; None if none runs.
    """

    def __init__(self, settings: Settings, tables: Tables, rows: Sequence[LedgerRow]) -> None:
        self.running: Trial | None = None
        self._settings = settings
        self._tables = tables
        self._rows = rows
        self._ahead: dict[StepId, TrialBatch] = {}
        self._pending: list[TrialBatch] = []

    def run(self, key: TrialKey, after: StepId) -> None:
        """Let a trial run in the place of any other, from the next batch on or from where the tables have it.

        Args:
            key: the trial; nothing is done if it runs.
            after: the batch before its first one.
        """
        if self.running is not None and self.running.key == key:
            return
        self.running = Trial(key, self._settings.gate)
        self._ahead = {}
        ledger = {row.step: row.metrics for row in self._rows}
        for batch in trials.read(self._tables, key, after):
            if self._rows and batch.step <= self._rows[-1].step:
                self.running.add(batch, ledger.get(batch.step, {}))
            else:
                self._ahead[batch.step] = batch

    def end(self) -> None:
        """Forget the trial."""
        self.running = None

    def judged(self, row: LedgerRow, evaluation: BatchEvaluation, rivals: Rivals) -> LedgerRow:
        """Add a batch to the trial, and say in its row of the ledger what the gate makes of it.

        Args:
            row: of the batch, which is not in the ledger yet.
            evaluation: what was measured on the batch.
            rivals: with what it was measured.
        """
        trial = self.running
        if trial is None or trial.result.decided:
            return row
        batch = self._ahead.pop(row.step, None)
        if batch is None:
            batch = trial_batch(trial.key, evaluation, rivals, row.step, row.ingested_at)
            if batch is None:
                return row
            self._pending.append(batch)
        seconds = evaluation.seconds.get(CHALLENGER)
        # Measured by the clock, so no replay measures the same: the gate goes by what the ledger has.
        metrics = row.metrics | ({} if seconds is None else {USER_SECONDS: seconds / len(evaluation.user_ids)})
        begins = () if trial.looks else (beginning(trial.key),)
        result = trial.add(batch, metrics)
        metrics |= {name: result.figures[figure] for figure, name in _METRICS.items() if figure in result.figures}
        ends = (decision(trial.key, result),) if result.decided else ()
        return replace(row, metrics=metrics, decisions=(*row.decisions, *begins, *ends))

    def append(self, application: str, txn_version: int) -> bool:
        """Append what was measured since the last time; returns whether there was anything."""
        pending, self._pending = self._pending, []
        if pending:
            trials.append(self._tables, pending, application, txn_version)
        return bool(pending)


def beginning(key: TrialKey) -> str:
    """The beginning of a trial in one line."""
    beside = "popularity" if key.against is None else f"version {key.against}"
    return f"gate: challenger {key.version} is measured beside {beside} from here on"


def decision(key: TrialKey, result: GateResult) -> str:
    """A verdict in one line."""
    beside = "without a champion" if key.against is None else f"beside version {key.against}"
    return f"gate: challenger {key.version} {beside}: {result.verdict}: {'; '.join(result.reasons)}"

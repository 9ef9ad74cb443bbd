"""The trial of a stream: a function of the table `trials` and the ledger, so a restart finds its verdict.

The same holds for the watch over a new champion. The rows of a batch are appended before its row of the ledger, under
the batch id as transaction version. Rows that a crash left behind without a row of the ledger stand: a batch that comes
again does not measure a second time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from recsys.config import Settings
from recsys.contracts import LedgerRow, StepId, TrialBatch, TrialKey
from recsys.model.evaluation.prequential import BatchEvaluation
from recsys.model.evaluation.rivals import Rivals
from recsys.model.evaluation.trial import CHALLENGER, USER_SECONDS, ChampionWatch, Trial, trial_batch
from recsys.tables import trials
from recsys.tables.delta import Tables


@dataclass
class _Course:
    """A trial or a watch, and its rows that a crash left ahead of the ledger."""

    trial: Trial | ChampionWatch
    ahead: dict[StepId, TrialBatch]


class Trials:
    """The trial and the watch that run, if they do, and what they add to tables and ledger.

    Args:
        settings: all settings.
        tables: the Delta tables.
        rows: the last rows of the ledger, in order; the caller adds later ones.
    """

    def __init__(self, settings: Settings, tables: Tables, rows: Sequence[LedgerRow]) -> None:
        self._settings = settings
        self._tables = tables
        self._rows = rows
        self._trial: _Course | None = None
        self._watch: _Course | None = None
        self._pending: list[TrialBatch] = []

    @property
    def running(self) -> Trial | None:
        """The trial; None if none runs."""
        trial = None if self._trial is None else self._trial.trial
        assert trial is None or isinstance(trial, Trial)
        return trial

    @property
    def watching(self) -> ChampionWatch | None:
        """The watch; None if none runs."""
        watch = None if self._watch is None else self._watch.trial
        assert watch is None or isinstance(watch, ChampionWatch)
        return watch

    def run(self, key: TrialKey, after: StepId) -> None:
        """Let a trial run in the place of any other, from the next batch on or from where the tables have it.

        Args:
            key: the trial; nothing is done if it runs.
            after: the batch before its first one.
        """
        if self.running is None or self.running.key != key:
            self._trial = self._resumed(Trial(key, self._settings.gate), after)

    def watch(self, key: TrialKey, after: StepId) -> None:
        """Watch a champion, as `run` does a trial.

        Args:
            key: the version before, measured against the champion.
            after: a batch before the first one.
        """
        if self.watching is None or self.watching.key != key:
            self._watch = self._resumed(ChampionWatch(key, self._settings.gate), after)

    def end(self) -> None:
        """Forget the trial."""
        self._trial = None

    def look_away(self) -> None:
        """Forget the watch."""
        self._watch = None

    def judged(self, row: LedgerRow, evaluation: BatchEvaluation, rivals: Rivals) -> LedgerRow:
        """Add a batch to what runs, and say in its row of the ledger what the gate makes of it.

        Args:
            row: of the batch, which is not in the ledger yet.
            evaluation: what was measured on the batch.
            rivals: with what it was measured.
        """
        for course in (self._trial, self._watch):
            if course is not None and not course.trial.result.decided:
                row = self._added(course, row, evaluation, rivals)
        return row

    def append(self, application: str, txn_version: int) -> bool:
        """Append what was measured since the last time; returns whether there was anything."""
        pending, self._pending = self._pending, []
        if pending:
            trials.append(self._tables, pending, application, txn_version)
        return bool(pending)

    def _resumed(self, trial: Trial | ChampionWatch, after: StepId) -> _Course:
        """A trial with the batches of the tables that the ledger has."""
        course = _Course(trial, {})
        ledger = {row.step: row.metrics for row in self._rows}
        for batch in trials.read(self._tables, trial.key, after):
            if self._rows and batch.step <= self._rows[-1].step:
                trial.add(batch, ledger.get(batch.step, {}))
            else:
                course.ahead[batch.step] = batch
        return course

    def _added(self, course: _Course, row: LedgerRow, evaluation: BatchEvaluation, rivals: Rivals) -> LedgerRow:
        trial = course.trial
        batch = course.ahead.pop(row.step, None)
        if batch is None:
            batch = trial_batch(trial.key, evaluation, rivals, row.step, row.ingested_at, trial.measured_as)
            if batch is None:
                return row
            self._pending.append(batch)
        metrics = dict(row.metrics)
        if trial.measured_as == CHALLENGER and CHALLENGER in evaluation.seconds:
            # Measured by the clock, so no replay measures the same: the gate goes by what the ledger has.
            metrics[USER_SECONDS] = evaluation.seconds[CHALLENGER] / len(evaluation.user_ids)
        begins = () if trial.looks else (trial.beginning(),)
        result = trial.add(batch, metrics)
        metrics |= {name: result.figures[figure] for figure, name in trial.metrics.items() if figure in result.figures}
        ends = (trial.decision(),) if result.decided else ()
        return replace(row, metrics=metrics, decisions=(*row.decisions, *begins, *ends))

"""Searches settings that rank better on the first part of a log, and measures the best ones on the rest.

Optuna proposes (a tree-structured Parzen estimator: Bergstra et al., "Algorithms for hyper-parameter optimization",
NeurIPS 2011). A trial replays the first part of the log with the proposed settings. Its value is how far its mean
NDCG@k is above that of the configured settings on the same batches, so it can be compared after any batch: a trial that
is behind the median of those before it is stopped early. Nothing is random but by `seed`; only `tune.seconds`, which
depends on the machine, can make two searches differ.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import optuna
from optuna.trial import TrialState
from tqdm import tqdm

from recsys.config import Settings
from recsys.config.sections import Gate
from recsys.config.settings import with_values
from recsys.errors import InputError, SolveError
from recsys.evaluate import WARM_UP_SHARE
from recsys.model.evaluation.gate import Interval
from recsys.tuning.replay import Log, Quality, replay
from recsys.tuning.space import Dimension, Value, space_of

# Complete trials before one can be stopped, and the share of its evaluated batches before it can.
_COMPLETE_FIRST, _MEASURED_FIRST = 4, 1 / 3
# A point that was tried before is passed over. So many are asked for each trial: a small space may have no other one.
_ASKED = 5


class TrialEnd(StrEnum):
    """How a trial ended."""

    COMPLETE = "complete"
    # It was behind.
    PRUNED = "pruned"
    # `tune.seconds` were over.
    LATE = "late"
    # The equations of the model have no finite solution with these values.
    FAILED = "failed"


@dataclass(frozen=True)
class TuningTrial:
    """Settings that were tried.

    Attributes:
        number: 0 for the configured settings.
        values: Values of the searched settings, by dotted key.
        quality: What was measured on the first part of the log, or until the trial was stopped.
        state: How it ended.
        seconds: How long it took.
    """

    number: int
    values: dict[str, Value]
    quality: Quality
    state: TrialEnd
    seconds: float


@dataclass(frozen=True)
class Unseen:
    """The best settings beside the configured ones, on the batches that the search did not see.

    Attributes:
        current, tuned: What was measured with each.
        gain: Mean over users of the difference of NDCG@k, with bounds.
        users: On how many users.
    """

    current: Quality
    tuned: Quality
    gain: Interval
    users: int

    def doubt(self, gate: Gate) -> str | None:
        """Why the best settings are not shown to be better; None if they are.

        Means over users and over batches may differ in their sign where few users have most of the batches: it takes
        both.
        """
        if self.users < gate.min_users:
            return f"fewer users than gate.min_users {gate.min_users}"
        if self.gain.lower <= 0:
            return "no more than noise"
        return None if self.tuned.mean > self.current.mean else "better by user, but not in the mean over batches"


@dataclass(frozen=True)
class Tuning:
    """Result of a search.

    Attributes:
        trials: In order, that of the configured settings first.
        searched: Number of batches that the search saw.
        best: The complete trial that ranked best on them.
        unseen: How it did on the rest; None if the configured settings were the best.
        changed: Values that differ from the configured ones, by dotted key; of the best trial.
        holds: Whether it was better on the rest by more than noise.
    """

    trials: tuple[TuningTrial, ...]
    searched: int
    best: TuningTrial
    unseen: Unseen | None
    changed: dict[str, Value]
    holds: bool


def tune(settings: Settings, log: Log, tell: Callable[[TuningTrial], None]) -> Tuning:
    """Search on the first part of a log, and compare the best settings with the configured ones on the rest.

    Args:
        settings: The configured settings; `tune.*` says what is searched, and for how long.
        log: The batches.
        tell: Is called after each trial.

    Raises:
        ConfigError: see `space_of`.
        InputError: the log has too few batches, or nobody could be measured in a part of it.
        SolveError: the configured model cannot be solved.
    """
    space, searched = space_of(settings), log.searched(settings.tune.share)
    trials = []
    for trial in _Search(settings, log, space, searched).trials():
        tell(trial)
        trials.append(trial)
    complete = [trial for trial in trials if trial.state == TrialEnd.COMPLETE]
    best = max(complete, key=lambda trial: trial.quality.mean)
    configured = trials[0].values
    changed = {key: value for key, value in best.values.items() if value != configured[key]}
    if not changed:
        return Tuning(tuple(trials), searched, best, None, changed, holds=False)
    current, tuned = (
        _replayed(one, log, log.count, searched, name)
        for one, name in ((settings, "current"), (with_values(settings, changed), "tuned"))
    )
    gain, users = tuned.gain(current, error=1 - settings.gate.confidence)
    unseen = Unseen(current, tuned, gain, users)
    return Tuning(tuple(trials), searched, best, unseen, changed, unseen.doubt(settings.gate) is None)


class _Search:
    """Tries settings on the first batches of a log, one after the other.

    Args:
        settings: The configured settings.
        log: The batches.
        space: What is searched.
        searched: How many batches, from the first on, a trial replays.
    """

    def __init__(self, settings: Settings, log: Log, space: Sequence[Dimension], searched: int) -> None:
        self._settings, self._log, self._space, self._searched = settings, log, space, searched
        self._warm_up = searched // WARM_UP_SHARE
        seconds = settings.tune.seconds
        self._end = math.inf if seconds is None else time.monotonic() + seconds
        # What the configured settings have measured; None while they are tried.
        self._current: Quality | None = None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        first = math.ceil(_MEASURED_FIRST * (searched - self._warm_up))
        self._study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=settings.seed),
            pruner=optuna.pruners.MedianPruner(_COMPLETE_FIRST, n_warmup_steps=first),
        )
        self._study.enqueue_trial({dimension.key: dimension.current for dimension in space})

    def trials(self) -> Iterator[TuningTrial]:
        """The trials, that of the configured settings first, until there are enough or the time is up.

        Raises:
            InputError: nobody could be measured.
            SolveError: the configured model cannot be solved.
        """
        most, tried = self._settings.tune.trials, set[tuple[Value, ...]]()
        for _ in range(_ASKED * most):
            if len(tried) == most or (tried and time.monotonic() >= self._end):
                return
            asked = self._study.ask()
            values = {one.key: one.values[asked.suggest_int(one.key, 0, len(one.values) - 1)] for one in self._space}
            if tuple(values.values()) in tried:
                self._study.tell(asked, state=TrialState.FAIL)
                continue
            trial = self._tried(asked, len(tried), values)
            tried.add(tuple(values.values()))
            self._current = self._current or trial.quality
            if math.isnan(self._current.mean):
                new = " that is new to them" if self._settings.recommend.exclude_seen else ""
                raise InputError(f"nobody could be measured: no user has an item of positive weight{new}")
            if trial.state == TrialEnd.COMPLETE:
                self._study.tell(asked, trial.quality.mean - self._current.mean)
            else:
                self._study.tell(asked, state=TrialState.PRUNED if trial.state == TrialEnd.PRUNED else TrialState.FAIL)
            yield trial

    def _tried(self, asked: optuna.Trial, number: int, values: dict[str, Value]) -> TuningTrial:
        """Replay the batches with some values; the configured ones, which come first, are never stopped."""
        quality, started, state = Quality(), time.monotonic(), TrialEnd.COMPLETE
        settings = with_values(self._settings, values)
        replayed = replay(settings, self._log.read(self._searched), self._warm_up)
        name = f"trial {number + 1} of {self._settings.tune.trials}"
        try:
            for quality in _shown(replayed, self._searched, name):
                state = self._state_of(asked, quality)
                if state != TrialEnd.COMPLETE:
                    break
        except SolveError:
            if self._current is None:
                raise
            state = TrialEnd.FAILED
        return TuningTrial(number, values, quality, state, time.monotonic() - started)

    def _state_of(self, asked: optuna.Trial, quality: Quality) -> TrialEnd:
        """Report to Optuna how a trial does so far, and whether it is to be stopped."""
        batches, current = len(quality.by_batch), self._current or quality
        ahead = quality.mean - current.mean_of_first(batches)
        if not math.isnan(ahead):
            asked.report(ahead, batches)
        if self._current is None or batches == len(current.by_batch):
            return TrialEnd.COMPLETE
        if asked.should_prune():
            return TrialEnd.PRUNED
        return TrialEnd.LATE if time.monotonic() >= self._end else TrialEnd.COMPLETE


def _replayed(settings: Settings, log: Log, batches: int, first: int, name: str) -> Quality:
    """What was measured over a whole replay."""
    *_, quality = _shown(replay(settings, log.read(batches), first), batches, name)
    return quality


def _shown(replayed: Iterator[Quality], batches: int, name: str) -> Iterator[Quality]:
    """The replay, with a progress bar."""
    return iter(tqdm(replayed, name, batches, leave=False, unit=" batches", dynamic_ncols=True, disable=None))

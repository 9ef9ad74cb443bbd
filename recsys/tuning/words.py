"""What a search tells people, line by line."""

from collections.abc import Mapping, Sequence

from recsys.config import Settings
from recsys.tuning.search import TrialEnd, Tuning, TuningTrial, Unseen
from recsys.tuning.space import Value

_ENDS = {
    TrialEnd.PRUNED: "stopped, it was behind",
    TrialEnd.LATE: "stopped, tune.seconds are over",
    TrialEnd.FAILED: "failed, the model has no finite solution",
}


def after_trial(trials: Sequence[TuningTrial], k: int) -> str:
    """The line about the last of some trials."""
    configured, trial = trials[0], trials[-1]
    begin = f"trial {trial.number:>3}: NDCG@{k} {trial.quality.mean:.4f}"
    if trial is configured:
        return f"{begin}  the configured settings  ({trial.seconds:.1f} s)"
    now = configured.quality.mean_of_first(len(trial.quality.by_batch))
    end = f"; {_ENDS[trial.state]}" if trial.state in _ENDS else ""
    tried = _named(differing(trial, configured))
    return f"{begin} ({_change(now, trial.quality.mean)})  {tried}  ({trial.seconds:.1f} s{end})"


def differing(trial: TuningTrial, configured: TuningTrial) -> dict[str, Value]:
    """The values of a trial that are not the configured ones."""
    return {key: value for key, value in trial.values.items() if value != configured.values[key]}


def result(tuning: Tuning, settings: Settings, output: str) -> list[str]:
    """The last lines: what was gained where the search looked and where it did not, and what to do next."""
    ndcg, first = f"NDCG@{settings.recommend.k}", tuning.trials[0].quality.mean
    began = (
        f"search: {len(tuning.trials)} trials on the first {tuning.searched} batches; {ndcg} {first:.4f} as configured"
    )
    if tuning.unseen is None:
        return [f"{began}, and none was better", "keep the configured settings: no file is written"]
    unseen, best = tuning.unseen, tuning.best
    lines = [
        f"{began}, {best.quality.mean:.4f} with trial {best.number} ({_change(first, best.quality.mean)})",
        f"unseen: the other {len(unseen.tuned.by_batch)} batches; {ndcg} {unseen.current.mean:.4f} as configured, "
        f"{unseen.tuned.mean:.4f} with trial {best.number} ({_change(unseen.current.mean, unseen.tuned.mean)})",
        _by_user(unseen, settings),
    ]
    if not tuning.holds:
        return [*lines, f"keep the configured settings: {unseen.doubt(settings.gate)}; no file is written"]
    configured = tuning.trials[0].values
    changes = [f"{key} (was {_text(configured[key])}, is {_text(value)})" for key, value in tuning.changed.items()]
    return [
        *lines,
        f"written to {output}: {', '.join(changes)}",
        f"next: stop the stream; run jobs/rebuild.py with the settings of this job and --config {output} after its "
        "own, because what changes needs a rebuild; then start the stream with the same",
    ]


def _by_user(unseen: Unseen, settings: Settings) -> str:
    gain = unseen.gain
    return (
        f"by user: {gain.estimate:+.4f} in [{gain.lower:+.4f}, {gain.upper:+.4f}], each bound with "
        f"{settings.gate.confidence:.0%} confidence, {unseen.users:,} users"
    )


def _change(before: float, after: float) -> str:
    return f"{after / before - 1:+.1%}" if before else "was 0"


def _named(values: Mapping[str, Value]) -> str:
    return " ".join(f"{key}={_text(value)}" for key, value in values.items()) or "the same"


def _text(value: Value) -> str:
    return "null" if value is None else f"{value:g}"

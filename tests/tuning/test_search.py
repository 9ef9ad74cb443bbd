"""The search: it never looks at the rest of the log, repeats to the bit, and keeps what is no better."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from bench.harness import streams
from recsys.config import Settings
from recsys.config.sections import Gate
from recsys.config.settings import with_values
from recsys.contracts import InteractionBatch, StepId
from recsys.errors import InputError
from recsys.model.evaluation.gate import interval
from recsys.model.evaluation.prequential import evaluate
from recsys.model.recommender import OnlineModel
from recsys.tuning.replay import Log, Quality, replay
from recsys.tuning.search import TrialEnd, Tuning, TuningTrial, Unseen, tune
from recsys.tuning.words import after_trial, result
from tests.bench.helpers import generated, small_settings

Steps = list[tuple[StepId, InteractionBatch]]
# So large that factors are all but 0: any other value ranks better.
TOO_LARGE = 100.0


def steps_of(events: pd.DataFrame, size: int = 60) -> Steps:
    return [(StepId(0, number), batch) for number, batch in enumerate(streams.batches(events, size))]


def log_of(steps: Steps) -> Log:
    return Log(len(steps), lambda count: iter(steps[:count]))


def bad_settings(**sections: dict[str, object]) -> Settings:
    wanted = {"tune": {"trials": 4, "keys": ["model.regularization"]}, "gate": {"min_users": 20}, **sections}
    settings = small_settings(**wanted, recommend={"exclude_seen": False, "k": 5})
    return with_values(settings, {"model.kind": "als", "model.regularization": TOO_LARGE})


def told(trials: Sequence[TuningTrial]) -> list[tuple[object, ...]]:
    return [(trial.number, trial.values, trial.state, trial.quality.by_batch) for trial in trials]


def ignore(trial: TuningTrial) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def tuned() -> Tuning:
    return tune(bad_settings(), log_of(steps_of(generated(1_200))), ignore)


@pytest.mark.parametrize(("count", "share", "searched"), [(10, 0.5, 5), (11, 0.5, 6), (20, 0.25, 5), (20, 0.75, 15)])
def test_a_log_is_cut_by_its_batches(count: int, share: float, searched: int) -> None:
    assert Log(count, lambda count: []).searched(share) == searched


@pytest.mark.parametrize(("count", "share"), [(0, 0.5), (9, 0.5), (20, 0.2), (20, 0.9)])
def test_a_part_that_is_too_short_is_refused(count: int, share: float) -> None:
    with pytest.raises(InputError, match=rf"the log has {count} batches, of which tune\.share {share:g} searches"):
        Log(count, lambda count: []).searched(share)


def test_a_replay_is_the_prequential_evaluation() -> None:
    """As `evaluate` measures it, batch by batch, and as it adds up by user."""
    settings, steps = small_settings(model={"kind": "als", "factors": 4}), steps_of(generated(360))
    *_, quality = replay(settings, steps, first=2)
    model, expected = OnlineModel(settings), []
    for number, (step, batch) in enumerate(steps):
        if number >= 2:
            expected.append(evaluate(batch, model, {}, settings, step)["model/ndcg_at_20"])
        model.update(batch, step)
    assert quality.by_batch == expected
    assert quality.mean == pytest.approx(np.mean(expected))
    assert quality.mean_of_first(2) == pytest.approx(np.mean(expected[:2]))


def test_users_count_once_and_only_where_both_were_measured() -> None:
    one, other = Quality(), Quality()
    one.add(["a", "b"], np.array([0.4, 1.0]))
    one.add(["c", "a"], np.array([0.3, 0.6]))
    one.add([], np.empty(0))
    other.add(["b", "a"], np.array([0.5, 0.1]))
    gain, users = one.gain(other, 0.05)
    assert users == 2
    assert gain == interval(np.array([0.5 - 0.1, 1.0 - 0.5]), 0.05)
    assert one.mean == pytest.approx((0.7 + 0.45) / 2)
    assert math.isnan(one.by_batch[2])
    with pytest.raises(InputError, match="nobody could be measured"):
        one.gain(Quality(), 0.05)


def test_what_is_better_is_found_and_holds(tuned: Tuning) -> None:
    assert tuned.searched == 10
    assert tuned.trials[0].values == {"model.regularization": TOO_LARGE}
    assert tuned.holds
    assert tuned.changed.keys() == {"model.regularization"}
    assert tuned.changed["model.regularization"] != TOO_LARGE
    unseen = tuned.unseen
    assert unseen is not None
    assert len(unseen.tuned.by_batch) == len(unseen.current.by_batch) == 10
    assert 0 < unseen.gain.lower < unseen.gain.estimate
    assert unseen.tuned.mean > unseen.current.mean
    lines = result(tuned, bad_settings(), "my-tuned.yaml")
    assert "written to my-tuned.yaml: model.regularization (was 100, is 0.0" in lines[-2]
    assert "jobs/rebuild.py" in lines[-1]


def test_the_search_does_not_look_at_the_rest(tuned: Tuning) -> None:
    """The rest is another stream: the trials are the same, to the bit, and only the comparison differs."""
    steps = steps_of(generated(1_200))
    other = steps[:10] + [(step, batch) for step, batch in steps_of(generated(1_200, seed=1))[10:]]
    found = tune(bad_settings(), log_of(other), ignore)
    assert told(found.trials) == told(tuned.trials)
    assert found.unseen is not None
    assert tuned.unseen is not None
    assert found.unseen.current.by_batch != tuned.unseen.current.by_batch
    differing = tune(bad_settings(), log_of(steps_of(generated(1_200, seed=1))), ignore)
    assert told(differing.trials) != told(tuned.trials)


def test_settings_that_are_no_better_are_kept() -> None:
    """A fair coin: what the search finds on noise does not hold on the rest."""
    draw = np.random.default_rng(0)
    noise = pd.DataFrame(
        {
            "user": [f"u{code}" for code in draw.integers(0, 50, 1_200)],
            "item": [f"i{code}" for code in draw.integers(0, 40, 1_200)],
            "weight": 1.0,
            "time": 3600.0 * np.arange(1_200),
        }
    )
    settings = with_values(bad_settings(), {"model.regularization": 0.003})
    found = tune(settings, log_of(steps_of(noise)), ignore)
    assert not found.holds
    assert "keep the configured settings" in result(found, settings, "tuned.yaml")[-1]


def test_too_few_users_prove_nothing(tuned: Tuning) -> None:
    settings = bad_settings(gate={"min_users": 1_000})
    found = tune(settings, log_of(steps_of(generated(1_200))), ignore)
    assert told(found.trials) == told(tuned.trials)
    assert not found.holds
    assert "fewer users than gate.min_users 1000" in result(found, settings, "tuned.yaml")[-1]


def test_it_takes_users_and_batches() -> None:
    """Many users come once and gain; one who comes in every batch, alone in most, loses more."""
    gate, current, tuned = Gate(min_users=20), Quality(), Quality()
    crowd = [f"u{number}" for number in range(200)]
    for quality, change in ((current, 0.0), (tuned, 0.1)):
        quality.add(crowd, np.full(200, 0.3 + change))
        for _ in range(9):
            quality.add(["regular"], np.array([0.8 - 2 * change]))
    gain, users = tuned.gain(current, 0.05)
    assert gain.lower > 0
    assert tuned.mean < current.mean
    assert Unseen(current, tuned, gain, users).doubt(gate) == "better by user, but not in the mean over batches"
    assert Unseen(tuned, current, *current.gain(tuned, 0.05)).doubt(gate) == "no more than noise"


def test_the_time_of_a_search_is_bounded_but_for_the_configured_settings() -> None:
    settings = bad_settings(tune={"seconds": 1e-9, "keys": ["model.regularization"]})
    found = tune(settings, log_of(steps_of(generated(600))), ignore)
    assert [trial.state for trial in found.trials] == [TrialEnd.COMPLETE]
    assert found.unseen is None
    assert result(found, settings, "tuned.yaml")[-1] == "keep the configured settings: no file is written"


def test_a_trial_that_is_behind_is_stopped() -> None:
    """Most values are alike, so the one that is far behind the median is stopped before its end."""
    settings = bad_settings(tune={"trials": 14, "keys": ["model.regularization", "model.alpha"]})
    settings = with_values(settings, {"model.regularization": 0.003})
    lines, trials = [], list[TuningTrial]()

    def tell(trial: TuningTrial) -> None:
        trials.append(trial)
        lines.append(after_trial(trials, 5))

    tune(settings, log_of(steps_of(generated(1_200))), tell)
    stopped = [trial for trial in trials if trial.state == TrialEnd.PRUNED]
    assert stopped
    assert all(len(trial.quality.by_batch) < len(trials[0].quality.by_batch) for trial in stopped)
    assert len({tuple(trial.values.values()) for trial in trials}) == len(trials)
    assert "stopped, it was behind" in lines[stopped[0].number]


def test_nobody_to_measure_is_refused() -> None:
    disliked = generated(600).assign(weight=-1.0)
    with pytest.raises(InputError, match="nobody could be measured: no user has an item of positive weight"):
        tune(bad_settings(), log_of(steps_of(disliked)), ignore)

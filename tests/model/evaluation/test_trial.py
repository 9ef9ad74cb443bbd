"""A trial is a function of its batches; the verdict comes with the first look that decides, and stays."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from recsys.config.sections import Gate
from recsys.contracts import StepId, TrialBatch, TrialKey
from recsys.model.evaluation.gate import EXPIRED, PASSED, REJECTED, UNDECIDED
from recsys.model.evaluation.prequential import evaluate_users
from recsys.model.evaluation.rivals import Rivals
from recsys.model.evaluation.trial import CHALLENGER, CHAMPION, USER_SECONDS, ChampionWatch, Trial, trial_batch
from recsys.model.recommender import OnlineModel
from tests.model.als.test_incremental_als import learn
from tests.model.helpers import clustered_batches, make_settings

GATE = Gate(max_batches=3, min_users=50, tolerance=0.1, watch_batches=4)
AT = datetime(2026, 1, 1, tzinfo=UTC)
KEY = TrialKey("recsys", "2", "1")


def measured(number: int, gain: float, key: TrialKey = KEY, users: int = 100) -> TrialBatch:
    """A batch in which the version does better by `gain` than what it is measured against."""
    draw = np.random.default_rng(number)
    against = draw.uniform(0.3, 0.5, users)
    version = against + gain + draw.normal(0, 0.02, users)
    known = np.ones(users, dtype=bool)
    ids = [f"u{user}" for user in range(users)]
    beside = None if key.against is None else against
    return TrialBatch(key, StepId(0, number), ids, version, beside, 0.5 * against, known, AT)


def test_the_first_look_that_decides_is_the_last() -> None:
    trial = Trial(KEY, GATE)
    assert trial.result.verdict == UNDECIDED
    assert trial.add(measured(1, gain=0.05), {}).verdict == PASSED
    verdict = trial.result
    assert trial.add(measured(2, gain=-0.3), {}) is verdict
    assert trial.end() is verdict
    assert trial.looks == 1


def test_a_trial_that_decides_nothing_expires_and_every_replay_says_so() -> None:
    batches = [measured(number, gain=-0.04) for number in range(5)]
    replays = [Trial(KEY, GATE), Trial(KEY, GATE)]
    found = [[trial.add(batch, {}) for batch in batches] for trial in replays]
    assert found[0] == found[1]
    assert [result.verdict for result in found[0]] == [UNDECIDED, UNDECIDED, *[EXPIRED] * 3]
    assert found[0][2].figures["batches"] == 3
    assert found[0][2].figures["users"] == 100, "who comes again counts once"


@pytest.mark.parametrize(
    ("gains", "verdicts"),
    [
        # `gains`: of the version before over the champion, batch by batch.
        ([0.2, 0.2], [REJECTED, REJECTED]),
        ([0.0, 0.0, 0.0, 0.0, 0.3], [UNDECIDED] * 3 + [PASSED] * 2),
        ([-0.2, 0.3, 0.3, 0.3], [UNDECIDED, UNDECIDED, REJECTED, REJECTED]),
    ],
    ids=["worse from the start", "no worse", "worse later"],
)
def test_a_champion_is_watched_until_it_falls_behind_or_for_so_many_batches(
    gains: list[float], verdicts: list[str]
) -> None:
    before = TrialKey("recsys", "1", "2")
    watch = ChampionWatch(before, GATE)
    assert [watch.add(measured(at, gain, before), {}).verdict for at, gain in enumerate(gains)] == verdicts
    assert watch.looks == verdicts.index(verdicts[-1]) + 1


def test_a_champion_is_not_sent_back_for_a_few_users() -> None:
    key = TrialKey("recsys", "1", "2")
    watch = ChampionWatch(key, GATE)
    for number in range(GATE.watch_batches):
        result = watch.add(measured(number, 0.3, key, users=GATE.min_users - 1), {})
    assert result.verdict == PASSED
    assert (
        watch.decision()
        == "gate: champion 2 holds its own beside version 1: measured on 49 users, and gate.min_users is 50"
    )


def test_limits_are_those_of_the_batches() -> None:
    """Coverage is a mean; the time is that of the fastest batch, because what disturbs a clock only adds to it."""
    figures = {"challenger/coverage_at_9": 0.2, "champion/coverage_at_9": 0.5, USER_SECONDS: 0.3}
    trial = Trial(KEY, GATE)
    result = trial.add(measured(1, gain=0.05), figures)
    assert result.verdict == UNDECIDED
    assert "coverage 0.40 of the champion's" in result.reasons[1]
    assert "0.3000 s for a user" in result.reasons[2]
    better = {**figures, "challenger/coverage_at_9": 0.4, USER_SECONDS: 0.01}
    result = trial.add(measured(2, gain=0.05), better)
    assert result.verdict == PASSED
    assert (result.figures["coverage"], result.figures["user_seconds"]) == (pytest.approx(0.6), 0.01)


def test_a_batch_adds_what_both_versions_did_for_each_user() -> None:
    settings = make_settings(recommend={"k": 2, "exclude_seen": False})
    batches = clustered_batches(3, 80)
    model = learn(OnlineModel(settings), batches[:1])
    first = model.served()
    learn(model, batches[1:2], first=1)
    rivals, step = Rivals({CHAMPION: first, CHALLENGER: model.served()}), StepId(0, 2)
    evaluation = evaluate_users(batches[2], model, rivals, settings, step)
    batch = trial_batch(KEY, evaluation, rivals, step, AT)
    assert batch is not None
    assert batch.against is not None
    assert batch.user_ids == sorted(evaluation.user_ids), "as the table gives them back"
    assert len(batch.user_ids) == evaluation.figures["evaluated_users"]
    assert batch.ndcg.mean() == pytest.approx(evaluation.figures["challenger/ndcg_at_2"])
    assert batch.against.mean() == pytest.approx(evaluation.figures["champion/ndcg_at_2"])
    assert batch.popularity.mean() == pytest.approx(evaluation.figures["popularity/ndcg_at_2"])
    assert batch.known.tolist() == [user in first.user_ids for user in batch.user_ids]
    alone = trial_batch(replace(KEY, against=None), evaluation, rivals, step, AT)
    assert alone is not None
    assert alone.against is None
    unmeasured = evaluate_users(batches[2], model, Rivals({CHAMPION: first}), settings, step)
    assert trial_batch(KEY, unmeasured, rivals, step, AT) is None

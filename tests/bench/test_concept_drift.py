"""The bench of concept drift: what is planted, how recovery is counted, and what it prints."""

import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from bench.quality import concept_drift as bench
from bench.quality.concept_drift import Course, PlantedStream
from recsys.config.model import ConceptDrift

SMALL = PlantedStream(users=200, items=80, groups=4, events=300, change=12, batches=16)


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (1 / 3, 45, 90), (1.0, 200, 200)])
def test_the_planted_share_of_users_changes_groups_at_the_change(share: float, low: int, high: int) -> None:
    preferences = []
    batches = bench.planted(SMALL, share, seed=0)
    assert [int(batch.events.sum()) for batch in batches] == [SMALL.events] * SMALL.batches
    for part in (batches[: SMALL.change], batches[SMALL.change :]):
        counts = np.zeros((SMALL.users, SMALL.groups))
        for batch in part:
            groups = [int(item.removeprefix("i")) % SMALL.groups for item in batch.item_ids]
            np.add.at(counts, ([int(user.removeprefix("u")) for user in batch.user_ids], groups), batch.events)
        preferences.append(counts)
    # One event in nine goes astray, so that a user of few events may seem to have moved, or not to have.
    sure = [np.sort(counts, axis=1)[:, -1] >= 0.7 * counts.sum(1) for counts in preferences]
    moved = (preferences[0].argmax(1) != preferences[1].argmax(1))[sure[0] & sure[1]]
    share_moved = moved.mean() * SMALL.users
    assert low - 10 <= share_moved <= high + 10


def test_recovery_is_counted_to_the_first_three_batches_that_are_good_enough() -> None:
    before = [0.5] * 10
    assert Course(np.array([*before, 0.1, 0.2, 0.3, 0.6, 0.6, 0.1]), 5, 0.0, []).recovery(15) == 2
    assert Course(np.array([*before, 0.46, 0.45, 0.46]), 5, 0.0, []).recovery(15) == 0
    assert Course(np.array([*before, 0.4, 0.4, 0.4, 0.4]), 5, 0.0, []).recovery(15) == 4


def test_the_fixed_rule_switches_all_bounds_off_and_the_regulated_one_none() -> None:
    scenario = bench.SCENARIOS[0]
    fixed, regulated = (bench.settings_of(scenario, rule).concept_drift for rule in ("fixed", "regulated"))
    assert regulated == ConceptDrift()
    assert {fixed.max_effort, fixed.max_learning_rate} == {1.0}
    assert {fixed.max_halvings, fixed.refresh_every_batches} == {0}


def test_it_prints_what_it_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "made" / "concept_drift.png"
    monkeypatch.setattr(sys, "argv", ["concept_drift", "--quick", "--plot", str(plot)])
    monkeypatch.setattr(bench, "SCENARIOS", bench.SCENARIOS[:2])
    monkeypatch.setattr(bench, "RULES", {rule: bench.RULES[rule] for rule in ("fixed", "regulated")})
    bench.main()
    lines = capsys.readouterr().out.splitlines()
    assert any("surprise rose from" in line for line in lines)
    last = {name: float(figure) for name, figure in (word.split("=") for word in lines[-1].split())}
    assert last["recovery_regulated"] < last["recovery_fixed"] == 20
    assert matplotlib.image.imread(plot).shape[0] > 300

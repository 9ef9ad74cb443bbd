"""Concept drift: when a change is found, what is done about it, and that it is a function of the stream."""

import itertools
import math
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.config.model import ConceptDrift
from recsys.contracts import InteractionBatch, StepId
from recsys.model.drift.surprise import AS_USUAL, Decision, DriftController, has_risen, measure_surprise, skill_lost
from recsys.model.interactions.history import History
from recsys.model.recommender import OnlineModel
from tests.model.als.test_incremental_als import assert_same_state, learn
from tests.model.helpers import DAY, make_batch, make_settings

QUIET = [0.10, 0.11, 0.09, 0.10, 0.12, 0.10, 0.09, 0.11, 0.10, 0.10] * 3
SURPRISES = st.lists(st.floats(0, 1) | st.just(math.nan), max_size=80)
SETTINGS = ConceptDrift()


def observe(drift_controller: DriftController, surprises: Sequence[float]) -> list[Decision]:
    return [drift_controller.observe(surprise) for surprise in surprises]


def rises_by_hand(surprises: Sequence[float], threshold: float) -> bool:
    """Page's test written out."""
    if len(surprises) < 18:
        return False
    rises = [surprises[at] - statistics.median(surprises[at - 8 : at]) for at in range(8, len(surprises))]
    middle = statistics.median(rises)
    deviation = max(statistics.median(abs(rise - middle) for rise in rises) / 0.6745, 0.005)
    counted = [min(max(rise / deviation, 0.0), 4.0) for rise in rises]
    excess, least = 0.0, math.inf
    for number, value in enumerate(counted, start=1):
        excess += value - statistics.fmean(counted[:number]) - 1
        least = min(least, excess)
        if number >= 10 and excess - least > threshold:
            return True
    return False


@given(st.integers(0, 40), st.integers(0, 2**32 - 1), st.floats(0, 0.3), st.integers(0, 40), st.floats(0.5, 8))
def test_rises_are_those_of_the_definition(length: int, seed: int, height: float, at: int, threshold: float) -> None:
    surprises = 0.2 + 0.02 * np.random.default_rng(seed).standard_normal(length)
    surprises[at:] += height
    assert has_risen(surprises, threshold) == rises_by_hand(surprises.tolist(), threshold)


@given(st.lists(st.floats(0, 1), min_size=18, max_size=40))
def test_a_fall_is_no_change(surprises: list[float]) -> None:
    assert not has_risen(np.sort(surprises)[::-1], SETTINGS.threshold)


@given(st.integers(0, 39), st.floats(0, 1), st.floats(0, 1))
def test_one_odd_batch_is_no_change(at: int, usual: float, odd: float) -> None:
    surprises = np.full(40, usual)
    surprises[at] = odd
    assert not has_risen(surprises, SETTINGS.threshold)


def test_noise_is_no_change() -> None:
    for seed in range(20):
        drift_controller = DriftController(SETTINGS)
        noise = 0.2 + 0.03 * np.random.default_rng(seed).standard_normal(200)
        assert observe(drift_controller, noise.tolist()) == [AS_USUAL] * 200


@pytest.mark.parametrize("usual", [QUIET, np.geomspace(0.45, 0.1, 25).tolist()])
def test_a_lasting_rise_is_found_with_its_second_batch(usual: list[float]) -> None:
    *before, decision = observe(DriftController(SETTINGS), [*usual, 0.4, 0.38])
    assert before == [AS_USUAL] * (len(usual) + 1)
    assert (decision.effort, decision.learning_rate, decision.refresh, decision.halvings) == (2.0, 2.0, False, 4)
    (reason,) = decision.reasons
    assert reason.startswith("surprise rose from 0.1")
    assert reason.endswith("to 0.400 (Page-Hinkley): history counts 1/16, effort x2, learning rate x2")


def test_all_falls_back_to_normal_with_sweeps_in_between() -> None:
    settings = ConceptDrift(batches=4, max_effort=3.0, max_learning_rate=1.0, refresh_every_batches=2)
    _, changed, *after = observe(DriftController(settings, QUIET), [0.4] * 8)
    assert changed.effort == 3.0
    assert [decision.effort for decision in after] == [2.5, 2.0, 1.5, 1.0, 1.0, 1.0]
    assert [decision.refresh for decision in after] == [False, True, False, True, False, False]
    assert [decision.reasons for decision in after] == [
        ("1 after the change: effort x2.5",),
        ("2 after the change: effort x2, everything solved again",),
        ("3 after the change: effort x1.5",),
        ("4 after the change: everything solved again",),
        (),
        (),
    ]


def test_what_the_bounds_forbid_is_not_done_but_the_change_is_told() -> None:
    settings = ConceptDrift(max_effort=1, max_learning_rate=1, max_halvings=0, refresh_every_batches=0)
    decision = observe(DriftController(settings, QUIET), [0.4, 0.4])[-1]
    assert decision == Decision(reasons=("surprise rose from 0.100 to 0.400 (Page-Hinkley): the bounds allow nothing",))


@given(st.lists(st.floats(0, 1), max_size=20), SURPRISES)
def test_decisions_stay_within_the_bounds_and_give_reasons(noise: list[float], surprises: list[float]) -> None:
    usual = [0.1 + value / 50 for value in noise]
    for decision in observe(DriftController(SETTINGS), [*usual, *surprises]):
        assert 1 <= decision.effort <= SETTINGS.max_effort
        assert 1 <= decision.learning_rate <= SETTINGS.max_learning_rate
        assert 0 <= decision.halvings <= SETTINGS.max_halvings
        assert bool(decision.reasons) == (decision != AS_USUAL)


@given(SURPRISES, st.integers(0, 80), st.booleans())
def test_going_on_from_the_state_gives_the_same_decisions(surprises: list[float], cut: int, changed: bool) -> None:
    stream = [*QUIET, *([0.4, 0.4] * changed), *surprises]
    cut = min(cut, len(stream))
    whole, half = DriftController(SETTINGS), DriftController(SETTINGS)
    decisions = observe(whole, stream)
    first = observe(half, stream[:cut])
    state = half.state()
    assert len(state["surprises"]) <= 40
    restored = DriftController.from_state(SETTINGS, {name: array.copy() for name, array in state.items()})
    assert first + observe(restored, stream[cut:]) == decisions
    for name, array in whole.state().items():
        assert array.tobytes() == restored.state()[name].tobytes()


def test_a_batch_that_cannot_be_measured_changes_no_level_but_time_passes() -> None:
    drift_controller = DriftController(SETTINGS, QUIET)
    before = drift_controller.state()["surprises"]
    assert drift_controller.observe(math.nan) == AS_USUAL
    assert (drift_controller.state()["surprises"] == before).all()
    observe(drift_controller, [0.4, 0.4])
    assert drift_controller.observe(math.nan).effort == 1.9


@pytest.mark.parametrize(
    ("before", "now", "lost"),
    [(0.1, 0.1, 0), (0.1, 0.5, 1), (0.1, 0.3, 0.5), (0.1, 0.9, 1), (0.6, 0.7, 1), (0.3, 0.2, 0)],
)
def test_the_share_of_the_skill_that_is_lost(before: float, now: float, lost: float) -> None:
    assert skill_lost(before, now) == pytest.approx(lost)


def surprise_of(scores: np.ndarray, users: np.ndarray, items: np.ndarray) -> float:
    return measure_surprise(
        lambda some, others: scores[some, others], users, items, scores.shape[1], np.random.default_rng(0)
    )


def test_surprise_is_one_minus_the_area_under_the_curve() -> None:
    generator = np.random.default_rng(0)
    scores = generator.integers(5, size=(40, 60)).astype(np.float64)
    users = np.repeat(np.arange(40), 50)
    items = generator.integers(60, size=len(users))
    taken, others = scores[users, items][:, None], scores[users]
    by_definition = ((others > taken) + 0.5 * (others == taken)).mean()
    assert surprise_of(scores, users, items) == pytest.approx(by_definition, abs=0.03)
    best = scores.argmax(axis=1)[users]
    assert surprise_of(scores, users, best) == pytest.approx(
        (others == others.max(1, keepdims=True)).mean() / 2, abs=0.03
    )
    assert surprise_of(np.zeros((40, 60)), users, items) == 0.5


def test_only_enough_pairs_are_measured() -> None:
    asked = list[int]()

    def score_pairs(users: np.ndarray, items: np.ndarray) -> np.ndarray:
        assert ((users >= 0) & (users < 9000) & (items >= 0) & (items < 7)).all()
        asked.append(len(users))
        return np.zeros(len(users))

    for count in (99, 100, 9000):
        pairs = np.arange(count), np.arange(count) % 7
        surprise = measure_surprise(score_pairs, *pairs, 7, np.random.default_rng(0))
        assert math.isnan(surprise) == (count < 100)
    assert asked == [100, 100, 9000, 9000]


def test_an_aged_history_counts_less_beside_what_comes() -> None:
    history = History(half_life_days=2.0)
    history.add_rows(2, 2)
    both, weights = np.array([0, 1]), np.array([4.0, -2.0])
    history.add(both, both, weights, np.zeros(2))
    history.age(3)
    restored = History.from_state(2.0, {name: array.copy() for name, array in history.state().items()})
    for each in (history, restored):
        each.add(both, both[::-1].copy(), weights, np.full(2, 2 * DAY))
        for rows in (each.user_rows(both), each.item_rows(both[::-1].copy())):
            # Three halvings at once, and a fourth by the days since.
            assert sorted(rows.weights.tolist()) == [-2.0, -2.0 / 16, 4.0 / 16, 4.0]
        np.testing.assert_allclose(each.by_user.total.values * each.scale, [4 + 4 / 16, 2 + 2 / 16])
        assert each.halvings == 3


def planted(change: int, batches: int, seed: int = 0) -> list[InteractionBatch]:
    """Four groups of users who like their group's items; from a batch on those of the group after the next."""
    generator, made = np.random.default_rng(seed), []
    for number in range(batches):
        users, ranks = generator.integers(60, size=300), generator.integers(10, size=300)
        groups = (users + 2 * (number >= change)) % 4
        rows = zip(users.tolist(), groups.tolist(), ranks.tolist(), strict=True)
        made.append(make_batch([(f"u{user}", f"i{group}-{rank}", 1.0, number) for user, group, rank in rows]))
    return made


def test_a_planted_change_is_found_and_nothing_else() -> None:
    model, changed = OnlineModel(make_settings()), []
    for number, batch in enumerate(planted(24, 40)):
        figures = model.update(batch, StepId(0, number))
        assert figures["effort"] == model.decision.effort
        assert figures["full_sweep"] == float(model.decision.refresh)
        if number == 0:
            assert "surprise" not in figures
        else:
            assert 0 <= figures["surprise"] <= 1
        if figures["halvings"]:
            changed.append(number)
    assert changed == [25]


def test_a_change_is_a_function_of_the_batches_also_across_a_state() -> None:
    settings, batches = make_settings(decay={"half_life_days": 0.5}), planted(24, 34)
    whole = learn(OnlineModel(settings), batches)
    for cut in (24, 25, 26, 30):
        half = learn(OnlineModel(settings), batches[:cut])
        copy = {name: array.copy() for name, array in half.state().items()}
        restored = OnlineModel.from_state(settings, copy, half.step)
        assert_same_state(learn(restored, batches[cut:], first=cut), whole)
        assert restored.decision == whole.decision != AS_USUAL


def test_adapting_to_concept_drift_recovers_sooner() -> None:
    off = {"max_effort": 1, "max_learning_rate": 1, "max_halvings": 0, "refresh_every_batches": 0}
    surprises = []
    for bounds in ({}, off):
        model = OnlineModel(make_settings(concept_drift=bounds))
        figures = [model.update(batch, StepId(0, number)) for number, batch in enumerate(planted(24, 34))]
        surprises.append([figure["surprise"] for figure in figures[1:]])
    adapted, ignored = (np.array(values) for values in surprises)
    assert (adapted[:25] == ignored[:25]).all()
    assert adapted[27:].mean() < 0.7 * ignored[27:].mean()


def test_an_empty_batch_decides_nothing() -> None:
    model = learn(OnlineModel(make_settings()), planted(24, 26))
    assert model.decision.halvings
    before = model.state()
    model.update(make_batch([]), StepId(0, 26))
    assert model.decision == AS_USUAL
    assert all((array == before[name]).all() for name, array in model.state().items())


def test_a_refit_begins_with_no_level() -> None:
    model = learn(OnlineModel(make_settings()), planted(24, 26))
    model.refit(StepId(1, 25))
    assert len(model.drift_controller.state()["surprises"]) == 0
    assert model.drift_controller.observe(math.nan) == AS_USUAL


def test_effort_buys_reads_and_a_refresh_leaves_no_drift() -> None:
    batches = planted(99, 6)
    gathered = {}
    for effort, refresh in itertools.product((1.0, 2.0), (False, True)):
        settings = make_settings(model={"budget": 2.0, "sweeps": 1}, staleness={"threshold": 1e9})
        model = learn(OnlineModel(settings), batches[:5])
        coded = model._take_in(batches[5], *model._enter(batches[5]))
        figures = model.learner.update(coded, model.history, StepId(0, 5), Decision(effort, refresh=refresh))
        gathered[effort, refresh] = figures["gathered"]
        side, other, step = model.als._users, model.als._items.table, StepId(0, 6)
        factors = side.factors_of(np.arange(len(side.table)))
        exact = side.solution(model.history, np.arange(len(side.table)), factors, other, step)
        drift = float((factors - exact).norm() / exact.norm())
        assert (figures["full_sweep"] == 1) == refresh == (drift < 1e-6)
    assert gathered[2.0, False] > 1.5 * gathered[1.0, False]
    assert gathered[2.0, True] == gathered[2.0, False]


def test_pairs_score_as_they_do_in_the_whole(torch_device: str) -> None:
    model = learn(OnlineModel(make_settings(torch_device)), planted(99, 3))
    users, items = np.arange(60).repeat(40) % len(model.users), np.tile(np.arange(40), 60)
    pairs = model.learner.score_pairs(users, items)
    assert pairs.dtype == np.float64
    whole = model.learner.score(users)[torch.arange(len(users)), torch.from_numpy(items)]
    np.testing.assert_allclose(pairs, whole.cpu().numpy(), rtol=1e-5, atol=1e-6)

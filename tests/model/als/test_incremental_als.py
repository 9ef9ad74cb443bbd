"""The incremental learner: what it learns, what it touches, and that it is a function of its batches."""

import itertools
from random import Random

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.contracts import InteractionBatch, StepId
from recsys.errors import ConfigError
from recsys.model.common.device import resolve_device
from recsys.model.evaluation.prequential import evaluate
from recsys.model.recommender import OnlineModel
from tests.model.helpers import DAY, clustered_batches, dense_rows, loss_of, make_batch, make_settings, scores_of

EVERYTHING = {"budget": 1e6, "sweeps": 1}


def learn(model: OnlineModel, batches: list[InteractionBatch], first: int = 0) -> OnlineModel:
    for number, batch in enumerate(batches, start=first):
        model.update(batch, StepId(0, number))
    return model


def assert_same_state(left: OnlineModel, right: OnlineModel) -> None:
    other = right.state()
    for name, array in left.state().items():
        assert (array.dtype, array.shape) == (other[name].dtype, other[name].shape), name
        assert array.tobytes() == other[name].tobytes(), name


def checkerboard() -> InteractionBatch:
    """Users like items of their own parity; each user lacks one item of it."""
    cells = [(user, item) for user in range(20) for item in range(20) if (user + item) % 2 == 0 and user != item]
    return make_batch([(f"u{user}", f"i{item}", 1.0, 0.0) for user, item in cells])


@pytest.mark.parametrize("start", ["update", "refit"])
def test_the_withheld_item_of_a_checkerboard_is_recommended_first(start: str, torch_device: str) -> None:
    model = OnlineModel(make_settings(torch_device, model={"sweeps": 8, "regularization": 0.01}))
    if start == "update":
        model.update(checkerboard(), StepId(0, 0))
    else:
        model.absorb(checkerboard(), StepId(0, 0))
        model.refit(StepId(1, 0))
    scores = (model.als.user_factors @ model.als.item_factors.T).cpu().numpy()
    for user in range(20):
        code, own = model.users.lookup([f"u{user}"])[0], model.items.lookup([f"i{user}"])[0]
        seen = model.history.user_rows(np.array([code])).others
        scores[code, seen] = -np.inf
        assert scores[code].argmax() == own


def test_users_end_close_to_the_solution_for_the_items(torch_device: str) -> None:
    model = learn(OnlineModel(make_settings(torch_device, model=EVERYTHING)), clustered_batches(4, 200))
    rows = model.history.user_rows(np.arange(len(model.users)))
    items = model.als.item_factors.cpu().numpy()
    exact = dense_rows(rows, items, model.als.objective)
    error = np.linalg.norm(model.als.user_factors.cpu().numpy() - exact, axis=1)
    assert (error <= 0.02 * np.linalg.norm(exact, axis=1)).all()


def test_all_rows_are_exact_after_a_refit_but_for_the_last_move_of_the_users(torch_device: str) -> None:
    model = learn(OnlineModel(make_settings(torch_device)), clustered_batches(4, 200))
    model.refit(StepId(1, 0))
    rows = model.history.user_rows(np.arange(len(model.users)))
    exact = dense_rows(rows, model.als.item_factors.cpu().numpy(), model.als.objective)
    error = np.linalg.norm(model.als.user_factors.cpu().numpy() - exact, axis=1)
    assert (error <= 1e-5 * np.linalg.norm(exact, axis=1)).all()


def test_the_same_batches_give_the_same_arrays(torch_device: str) -> None:
    batches = clustered_batches(6, 150)
    settings = make_settings(torch_device, decay={"half_life_days": 2.0})
    assert_same_state(learn(OnlineModel(settings), batches), learn(OnlineModel(settings), batches))


def test_another_seed_gives_other_factors() -> None:
    batches = clustered_batches(1, 100)
    first, second = (learn(OnlineModel(make_settings(seed=seed)), batches) for seed in (0, 1))
    assert not torch.equal(first.als.user_factors, second.als.user_factors)


def test_going_on_from_the_state_gives_the_same_arrays(torch_device: str) -> None:
    batches = clustered_batches(8, 150)
    settings = make_settings(torch_device, decay={"half_life_days": 0.02})
    whole = learn(OnlineModel(settings), batches)
    half = learn(OnlineModel(settings), batches[:5])
    copy = {name: array.copy() for name, array in half.state().items()}
    restored = OnlineModel.from_state(settings, copy, half.step)
    assert_same_state(learn(restored, batches[5:], first=5), whole)


def test_new_ids_join_and_known_codes_stay() -> None:
    model = learn(OnlineModel(make_settings()), [make_batch([("b", "x", 1, 0), ("c", "y", 1, 0)])])
    report = model.update(make_batch([("a", "x", 1, DAY), ("b", "z", 1, DAY)]), StepId(0, 1))
    assert (report["new_users"], report["new_items"]) == (1, 1)
    assert model.users.ids == ["b", "c", "a"]
    assert model.items.ids == ["x", "y", "z"]
    assert model.als.user_factors.shape == (3, 8)
    assert model.als.user_factors[2].any()
    assert model.als.item_factors[2].any()


def test_an_empty_batch_only_moves_the_step() -> None:
    model = learn(OnlineModel(make_settings()), clustered_batches(2, 50))
    before = {name: array.copy() for name, array in model.state().items()}
    report = model.update(make_batch([]), StepId(0, 2))
    assert report == {"new_users": 0, "new_items": 0}
    assert model.step == StepId(0, 2)
    assert all((array == before[name]).all() for name, array in model.state().items())


def test_a_model_may_begin_with_an_empty_batch() -> None:
    model = learn(OnlineModel(make_settings()), [make_batch([]), *clustered_batches(1, 20)])
    assert len(model.users) > 0


def test_a_step_that_is_not_later_is_refused() -> None:
    model = learn(OnlineModel(make_settings()), clustered_batches(1, 20))
    with pytest.raises(ValueError, match="0-0 does not come after 0-0"):
        model.update(make_batch([("a", "b", 1, 0)]), StepId(0, 0))
    assert model.update(make_batch([("a", "b", 1, 0)]), StepId(1, 0))["new_users"] == 1


def test_a_user_who_only_dislikes_has_no_factors() -> None:
    model = learn(OnlineModel(make_settings()), [make_batch([("a", "x", 1, 0), ("b", "x", -1, 0)])])
    assert not model.als.user_factors[model.users.lookup(["b"])[0]].any()
    assert model.als.user_factors[model.users.lookup(["a"])[0]].any()


def test_refreshing_reaches_every_row_in_turn() -> None:
    model = OnlineModel(make_settings(model={"budget": 4.0}))
    model.update(make_batch([(f"u{n}", f"i{n}", 1, 0) for n in range(12)]), StepId(0, 0))
    before, report = model.als.user_factors.clone(), None
    for step in range(1, 8):
        report = model.update(make_batch([("u0", "i1", 1, step)]), StepId(0, step))
    assert (model.als.user_factors != before).any(dim=1).all()
    assert report is not None
    assert report["turn_batches"] == 13 / 2


def test_a_row_longer_than_the_budget_waits_for_its_turn_and_gets_it() -> None:
    model = OnlineModel(make_settings(model={"budget": 4.0, "sweeps": 1}))
    model.update(make_batch([("fan", f"i{n}", 1, 0) for n in range(40)]), StepId(0, 0))
    fan = model.users.lookup(["fan"])[0]
    unsolved = []
    for step in range(1, 30):
        model.update(make_batch([("fan", "i0", 1, step)]), StepId(0, step))
        unsolved.append(float(model.als._users.unsolved.values[fan]))
    assert max(unsolved) > 5
    assert unsolved.count(0.0) >= 1


def test_the_work_follows_the_events_and_not_the_history() -> None:
    budget, sweeps = 10.0, 2
    model = OnlineModel(make_settings(model={"sweeps": sweeps, "settled": 0.0, "budget": budget}))
    generator, gathered, events = np.random.default_rng(0), 0, 0
    for number in range(60):
        pairs = zip(generator.integers(20, size=100), generator.integers(3000, size=100), strict=True)
        batch = make_batch([(f"u{user}", f"i{item}", 1.0, number) for user, item in pairs])
        gathered += model.update(batch, StepId(0, number))["gathered"]
        events += int(batch.events.sum())
    # Half of the budget is read once per sweep and the other half once, on each of two sides, and besides that every
    # event once more per sweep, when the row is new. Solving every row of a batch would take ever more.
    assert gathered <= 2 * events * (budget * (sweeps + 1) / 2 + sweeps)


def test_a_very_long_row_is_solved_for_a_sample() -> None:
    settings = make_settings(model={"history_cap": 10, "budget": 1e6, "settled": 0.0, "sweeps": 1})
    batch = make_batch([(f"u{n}", "hit", 1, 0) for n in range(50)] + [("u0", "other", 1, 0)])
    model, again = (OnlineModel(settings) for _ in range(2))
    report = model.update(batch, StepId(0, 0))
    assert report["gathered"] == (10 + 1) + 51
    again.update(batch, StepId(0, 0))
    assert_same_state(model, again)


def test_drift_is_measured_and_past_its_threshold_everything_is_solved() -> None:
    batches = clustered_batches(12, 150)
    lazy = {"model": {"budget": 0.5, "sweeps": 1}}
    calm = OnlineModel(make_settings(staleness={"threshold": 1e9}, **lazy))
    reports = [calm.update(batch, StepId(0, number)) for number, batch in enumerate(batches)]
    assert not any(report["full_sweep"] for report in reports)
    assert reports[-1]["item_staleness"] > 0.05
    strict = OnlineModel(make_settings(staleness={"threshold": 0.01}, **lazy))
    swept, read, last = [], 0, 0
    for number, batch in enumerate(batches):
        report = strict.update(batch, StepId(0, number))
        read += report["gathered"]
        if report["full_sweep"]:
            swept.append(number)
            assert read - last >= 2 * len(strict.history)
            last = read
            als = strict.als
            assert als._users.staleness(strict.history, als._items.table, StepId(0, number)) < 1e-3
    assert swept
    assert loss_of(strict) < loss_of(calm)


def test_updating_everything_has_no_drift_left_on_the_side_solved_last() -> None:
    model = OnlineModel(make_settings(model=EVERYTHING))
    for number, batch in enumerate(clustered_batches(3, 100)):
        report = model.update(batch, StepId(0, number))
        assert report["user_staleness"] < 0.01
        assert report["item_staleness"] > 1e-3


def test_a_shadow_is_what_a_refit_would_be_and_leaves_the_model_alone() -> None:
    model = learn(OnlineModel(make_settings()), clustered_batches(3, 100))
    before = {name: array.copy() for name, array in model.state().items()}
    shadow = model.shadow(StepId(0, 2))
    for name, array in model.state().items():
        assert array.tobytes() == before[name].tobytes(), name
    model.refit(StepId(0, 2))
    scores = torch.from_numpy(scores_of(shadow, model.users.ids, model.items))
    known = model.als.user_factors.any(dim=1)
    torch.testing.assert_close(scores[known], (model.als.user_factors @ model.als.item_factors.T)[known])


def test_served_users_are_solved_for_the_items_as_they_are() -> None:
    model = learn(OnlineModel(make_settings(model={"budget": 1.0})), clustered_batches(5, 100))
    rows = model.history.user_rows(np.arange(len(model.users)))
    exact = dense_rows(rows, model.als.item_factors.numpy(), model.als.objective)
    np.testing.assert_allclose(model.als.folded_in_users(model.history).numpy(), exact, rtol=1e-4, atol=1e-6)
    assert not np.allclose(model.als.user_factors.numpy(), exact, rtol=1e-4, atol=1e-6)


EVENTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 7), st.integers(1, 4)), min_size=20, max_size=120)


def to_batches(events: list[tuple[int, int, int]], cuts: list[int]) -> list[InteractionBatch]:
    rows = [(f"u{user}", f"i{item}", float(weight), 0.0) for user, item, weight in events]
    bounds = [0, *sorted(cuts), len(rows)]
    return [make_batch(rows[begin:end]) for begin, end in itertools.pairwise(bounds)]


@hypothesis.settings(max_examples=25)
@given(EVENTS, st.lists(st.integers(0, 20), max_size=3))
def test_any_split_of_a_history_ends_at_the_same_loss_after_a_rebuild(
    events: list[tuple[int, int, int]], cuts: list[int]
) -> None:
    settings = make_settings(model={"factors": 4, "regularization": 0.05, "rebuild_sweeps": 60})
    losses = []
    for batches in (to_batches(events, []), to_batches(events, cuts)):
        model = learn(OnlineModel(settings), batches)
        model.refit(StepId(1, 0))
        losses.append(loss_of(model))
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


@hypothesis.settings(max_examples=25)
@given(EVENTS, st.randoms())
def test_the_order_of_rows_in_a_batch_does_not_matter(events: list[tuple[int, int, int]], random: Random) -> None:
    settings = make_settings(model={"factors": 4})
    (first,) = to_batches(events[:10], [])
    (batch,) = to_batches(events[10:], [])
    order = list(range(len(batch)))
    random.shuffle(order)
    shuffled = InteractionBatch(
        [batch.user_ids[row] for row in order],
        [batch.item_ids[row] for row in order],
        batch.weights[order],
        batch.events[order],
        batch.times[order],
    )
    # New rows start from random numbers by their place, so only known ids may change places.
    everyone = make_batch([(f"u{user}", f"i{item}", 0.01, 0) for user in range(10) for item in range(8)])
    models = [learn(OnlineModel(settings), [everyone, first, last]) for last in (batch, shuffled)]
    torch.testing.assert_close(models[0].als.user_factors, models[1].als.user_factors, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(models[0].als.item_factors, models[1].als.item_factors, rtol=1e-4, atol=1e-6)


@hypothesis.settings(max_examples=25)
@given(EVENTS, st.integers(1, 30))
def test_rows_that_are_not_solved_do_not_move(events: list[tuple[int, int, int]], budget: int) -> None:
    model = OnlineModel(make_settings(model={"factors": 4, "budget": float(budget) / 10}, staleness={"threshold": 1e9}))
    first, second = to_batches(events, [len(events) // 2])
    model.update(first, StepId(0, 0))
    users, items = model.als.user_factors.clone(), model.als.item_factors.clone()
    report = model.update(second, StepId(0, 1))
    moved_users = int((model.als.user_factors[: len(users)] != users).any(dim=1).sum())
    moved_items = int((model.als.item_factors[: len(items)] != items).any(dim=1).sum())
    assert moved_users <= report["solved_users"]
    assert moved_items <= report["solved_items"]


def test_a_pair_that_cancels_out_leaves_no_random_factors() -> None:
    model = learn(OnlineModel(make_settings()), [make_batch([("a", "x", 1, 0), ("b", "y", 1, 0), ("b", "y", -1, 0)])])
    assert not model.als.user_factors[model.users.lookup(["b"])[0]].any()
    assert not model.als.item_factors[model.items.lookup(["y"])[0]].any()


def test_absorbing_learns_no_factors_but_keeps_everything_for_a_refit() -> None:
    batches = clustered_batches(3, 100)
    settings = make_settings()
    absorbed, updated = OnlineModel(settings), learn(OnlineModel(settings), batches)
    for number, batch in enumerate(batches):
        absorbed.absorb(batch, StepId(0, number))
    for model in (absorbed, updated):
        model.refit(StepId(1, 0))
    assert_same_state(absorbed, updated)
    with pytest.raises(ValueError, match="comes before"):
        absorbed.refit(StepId(0, 2))


@pytest.mark.parametrize("drift", [0.0, 0.5])
def test_incremental_stays_within_two_percent_of_a_rebuild(drift: float) -> None:
    settings = make_settings(
        model={"factors": 16, "regularization": 0.01},
        evaluation={"users_per_batch": 10_000},
        recommend={"exclude_seen": False, "k": 10},
        decay={"half_life_days": 20.0},
    )
    scores = []
    # One stream's figure varies by about two percent: three of them, each measured ten times.
    for seed in range(3):
        model = OnlineModel(settings)
        for number, batch in enumerate(clustered_batches(40, 400, seed=seed, drift=drift)):
            step = StepId(0, number)
            if number >= 20 and number % 2 == 0:
                rebuilt = OnlineModel.from_state(settings, model.state(), model.step)
                rebuilt.refit(StepId(0, number - 1))
                figures = [evaluate(batch, each, {}, settings, step) for each in (model, rebuilt)]
                scores.append([figure["model/ndcg_at_10"] for figure in figures])
            model.update(batch, step)
    incremental, full = np.mean(scores, axis=0)
    assert full > 0.3
    assert incremental >= 0.98 * full


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="device"):
        resolve_device("cuda")

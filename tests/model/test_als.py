"""The incremental learner: what it learns, what it touches, and that it is a function of its batches."""

import numpy as np
import pytest
import torch

from recsys.contracts import InteractionBatch, StepId
from recsys.errors import ConfigError
from recsys.model.als import IncrementalAls
from recsys.model.device import resolve_device
from recsys.model.evaluate import evaluate
from recsys.model.history import Rows
from recsys.model.solve import Penalty
from tests.model.helpers import DAY, clustered_batches, dense_rows, make_batch, make_settings

EVERYTHING = {"min_change": 0.0, "refresh_ratio": 1e9}


def learn(model: IncrementalAls, batches: list[InteractionBatch], first: int = 0) -> IncrementalAls:
    for number, batch in enumerate(batches, start=first):
        model.update(batch, StepId(0, number))
    return model


def assert_same_state(left: IncrementalAls, right: IncrementalAls) -> None:
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
    model = IncrementalAls(make_settings(torch_device, model={"sweeps": 8, "regularization": 0.01}))
    if start == "update":
        model.update(checkerboard(), StepId(0, 0))
    else:
        model.absorb(checkerboard(), StepId(0, 0))
        model.refit(StepId(1, 0))
    scores = (model.user_factors @ model.item_factors.T).cpu().numpy()
    for user in range(20):
        code, own = model.users.lookup([f"u{user}"])[0], model.items.lookup([f"i{user}"])[0]
        seen = model.history.user_rows(np.array([code])).others
        scores[code, seen] = -np.inf
        assert scores[code].argmax() == own


def test_users_end_as_the_exact_solution_for_the_items(torch_device: str) -> None:
    model = learn(IncrementalAls(make_settings(torch_device, model=EVERYTHING)), clustered_batches(4, 200))
    chosen, sections = model.settings.model, np.arange(len(model.users))
    penalty = Penalty(chosen.alpha, chosen.regularization, chosen.regularization_exponent)
    rows = model.history.user_rows(sections)
    items = model.item_factors.cpu().numpy()
    exact = dense_rows(Rows(rows.lengths, rows.others, rows.weights), items, penalty)
    np.testing.assert_allclose(model.user_factors.cpu().numpy(), exact, rtol=1e-4, atol=1e-6)


def test_the_same_batches_give_the_same_arrays(torch_device: str) -> None:
    batches = clustered_batches(6, 150)
    settings = make_settings(torch_device, decay={"half_life_days": 2.0})
    assert_same_state(learn(IncrementalAls(settings), batches), learn(IncrementalAls(settings), batches))


def test_another_seed_gives_other_factors() -> None:
    batches = clustered_batches(1, 100)
    first, second = (learn(IncrementalAls(make_settings(seed=seed)), batches) for seed in (0, 1))
    assert not torch.equal(first.user_factors, second.user_factors)


def test_going_on_from_the_state_gives_the_same_arrays(torch_device: str) -> None:
    batches = clustered_batches(8, 150)
    settings = make_settings(torch_device, decay={"half_life_days": 0.02})
    whole = learn(IncrementalAls(settings), batches)
    half = learn(IncrementalAls(settings), batches[:5])
    copy = {name: array.copy() for name, array in half.state().items()}
    restored = IncrementalAls.from_state(settings, copy, half.step)
    assert_same_state(learn(restored, batches[5:], first=5), whole)


def test_new_ids_join_and_known_codes_stay() -> None:
    model = learn(IncrementalAls(make_settings()), [make_batch([("b", "x", 1, 0), ("c", "y", 1, 0)])])
    report = model.update(make_batch([("a", "x", 1, DAY), ("b", "z", 1, DAY)]), StepId(0, 1))
    assert (report.new_users, report.new_items) == (1, 1)
    assert model.users.ids == ["b", "c", "a"]
    assert model.items.ids == ["x", "y", "z"]
    assert model.user_factors.shape == (3, 8)
    assert model.user_factors[2].any()
    assert model.item_factors[2].any()


def test_an_empty_batch_only_moves_the_step() -> None:
    model = learn(IncrementalAls(make_settings()), clustered_batches(2, 50))
    before = {name: array.copy() for name, array in model.state().items()}
    report = model.update(make_batch([]), StepId(0, 2))
    assert report.gathered == 0
    assert model.step == StepId(0, 2)
    assert all((array == before[name]).all() for name, array in model.state().items())


def test_a_model_may_begin_with_an_empty_batch() -> None:
    model = learn(IncrementalAls(make_settings()), [make_batch([]), *clustered_batches(1, 20)])
    assert len(model.users) > 0


def test_a_step_that_is_not_later_is_refused() -> None:
    model = learn(IncrementalAls(make_settings()), clustered_batches(1, 20))
    with pytest.raises(ValueError, match="0-0 does not come after 0-0"):
        model.update(make_batch([("a", "b", 1, 0)]), StepId(0, 0))
    assert model.update(make_batch([("a", "b", 1, 0)]), StepId(1, 0)).new_users == 1


def test_a_user_who_only_dislikes_has_no_factors() -> None:
    model = learn(IncrementalAls(make_settings()), [make_batch([("a", "x", 1, 0), ("b", "x", -1, 0)])])
    assert not model.user_factors[model.users.lookup(["b"])[0]].any()
    assert model.user_factors[model.users.lookup(["a"])[0]].any()


def test_a_small_change_waits_until_enough_has_come() -> None:
    settings = make_settings(model={"min_change": 0.1, "refresh_ratio": 0.0, "sweeps": 1})
    model = IncrementalAls(settings)
    model.update(make_batch([("a", f"i{n}", 1, 0) for n in range(15)] + [("b", "i0", 1, 0)]), StepId(0, 0))
    waiting = model.update(make_batch([("a", "i3", 1, 1)]), StepId(0, 1))
    assert (waiting.solved_users, waiting.solved_items) == (0, 1)
    assert model.update(make_batch([("a", "i4", 1, 2)]), StepId(0, 2)).solved_users == 1


def test_refreshing_reaches_every_row_in_turn() -> None:
    settings = make_settings(model={"min_change": 0.0, "refresh_ratio": 2.0, "sweeps": 1})
    model = IncrementalAls(settings)
    model.update(make_batch([(f"u{n}", f"i{n}", 1, 0) for n in range(12)]), StepId(0, 0))
    before = model.user_factors.clone()
    for step in range(1, 8):
        model.update(make_batch([("u0", "i1", 1, step)]), StepId(0, step))
    assert (model.user_factors != before).any(dim=1).all()


def test_the_work_follows_the_events_and_not_the_history() -> None:
    share = 0.25
    model = IncrementalAls(make_settings(model={"sweeps": 1, "min_change": share, "refresh_ratio": 0.0}))
    generator, gathered, events = np.random.default_rng(0), 0, 0
    for number in range(60):
        pairs = zip(generator.integers(20, size=100), generator.integers(3000, size=100), strict=True)
        batch = make_batch([(f"u{user}", f"i{item}", 1.0, number) for user, item in pairs])
        gathered += model.update(batch, StepId(0, number)).gathered
        events += int(batch.events.sum())
    # A row solved whenever a share of it is new is gathered 1 / share times over its life, on each of two sides.
    # Solving every row of a batch would take three times as much here, and ever more the longer it goes on.
    assert gathered <= 2 * events * (1 + 1 / share)


def test_a_pair_that_cancels_out_leaves_no_random_factors() -> None:
    model = learn(
        IncrementalAls(make_settings()), [make_batch([("a", "x", 1, 0), ("b", "y", 1, 0), ("b", "y", -1, 0)])]
    )
    assert not model.user_factors[model.users.lookup(["b"])[0]].any()
    assert not model.item_factors[model.items.lookup(["y"])[0]].any()


def test_absorbing_learns_no_factors_but_keeps_everything_for_a_refit() -> None:
    batches = clustered_batches(3, 100)
    settings = make_settings()
    absorbed, updated = IncrementalAls(settings), learn(IncrementalAls(settings), batches)
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
        score={"exclude_seen": False, "k": 10},
        decay={"half_life_days": 20.0},
    )
    scores = []
    # One stream's figure varies by about two percent: three of them, each measured ten times.
    for seed in range(3):
        model = IncrementalAls(settings)
        for number, batch in enumerate(clustered_batches(40, 400, seed=seed, drift=drift)):
            step = StepId(0, number)
            if number >= 20 and number % 2 == 0:
                rebuilt = IncrementalAls.from_state(settings, model.state(), model.step)
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

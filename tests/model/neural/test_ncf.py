"""Neural collaborative filtering in a stream."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.neural.examples import LabeledPairs
from recsys.model.neural.held_out import is_held_out
from recsys.model.neural.ncf import NeuralCf
from recsys.model.neural.replay_buffer import Pairs
from recsys.model.neural.training import Trainer
from recsys.model.recommender import OnlineModel
from recsys.serving.neural import NeuralScorer
from tests.model.helpers import clustered_batches, make_batch, make_settings

BATCHES = clustered_batches(6, 150)


def settings_of(exclude_seen: bool = True, seed: int = 0, **neural: Any) -> Settings:
    small: dict[str, Any] = {
        "mlp_factors": 4,
        "layers": [8, 4],
        "batch_size": 32,
        "rebuild_epochs": 2,
        "candidates": 10,
    }
    return make_settings(
        seed=seed, model={"kind": "ncf", "neural": small | neural}, recommend={"exclude_seen": exclude_seen}
    )


def learned(settings: Settings, refit: bool = False) -> tuple[OnlineModel, NeuralCf]:
    model = OnlineModel(settings)
    for number, batch in enumerate(BATCHES):
        model.update(batch, StepId(0, number))
    if refit:
        model.refit(StepId(1, 0))
    assert isinstance(model.learner, NeuralCf)
    return model, model.learner


def assert_same(left: NeuralCf, right: NeuralCf) -> None:
    other = right.state()
    for name, array in left.state().items():
        assert array.tobytes() == other[name].tobytes(), name


def settings_of_all_kinds() -> list[Settings]:
    return [
        settings_of(optimizer="adam", passes=2, accumulate=3),
        settings_of(optimizer="adagrad", teacher=False, towers_every_batches=1),
        settings_of(optimizer="ftrl", negatives_exponent=0.0, held_out=0.0, exclude_seen=False),
    ]


@pytest.mark.parametrize("settings", settings_of_all_kinds())
def test_a_learner_restored_half_way_equals_one_that_ran_through(settings: Settings) -> None:
    before = torch.get_rng_state()
    model, through = learned(settings)
    half = OnlineModel(settings)
    for number, batch in enumerate(BATCHES):
        half.update(batch, StepId(0, number))
        half.learner = NeuralCf.from_state(
            settings, {name: array.copy() for name, array in half.learner.state().items()}
        )
    assert_same(half.learner, through)
    for one in (model, half):
        one.refit(StepId(1, 0))
        one.update(BATCHES[0], StepId(1, 1))
    assert_same(half.learner, model.learner)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_gives_another_network() -> None:
    one, other = (learned(settings_of(seed=seed))[1].state() for seed in (0, 1))
    assert (one["network.live.hidden.0.weight"] != other["network.live.hidden.0.weight"]).all()


@pytest.mark.parametrize("teacher", [True, False])
def test_what_is_held_out_is_never_learned(monkeypatch: pytest.MonkeyPatch, teacher: bool) -> None:
    share, seen = 0.3, set()
    learn = Trainer.learn

    def noted(self: Trainer, gradients: Iterable[LabeledPairs], *others: Any) -> float:
        kept = list(gradients)
        for examples in kept:
            seen.update(zip(examples.users.tolist(), examples.items[:, 0].tolist(), strict=True))
        return learn(self, kept, *others)

    monkeypatch.setattr(Trainer, "learn", noted)
    model, _ = learned(settings_of(held_out=share, teacher=teacher), refit=True)
    keys = model.history.state()["keys"].astype(np.int64)
    everything = Pairs(keys >> 32, keys & 0xFFFFFFFF, np.ones(len(keys), dtype=np.float32))
    kept = everything.take(is_held_out(everything.users, everything.items, share, 0))
    assert 0.2 * len(keys) < len(kept) < 0.4 * len(keys)
    assert not seen & set(zip(kept.users.tolist(), kept.items.tolist(), strict=True))
    assert len(seen) == len(keys) - len(kept)


def test_the_teacher_of_a_rebuild_has_not_seen_what_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, learner = learned(settings_of(held_out=0.3))
    assert learner.teacher is not None
    sizes, refit = [], learner.teacher.refit

    def noted(history: Any, step: StepId) -> dict[str, float]:
        sizes.append(len(history))
        return refit(history, step)

    monkeypatch.setattr(learner.teacher, "refit", noted)
    model.refit(StepId(1, 0))
    assert sizes[0] < 0.8 * len(model.history) < len(model.history) == sizes[1]


def test_layers_move_every_few_batches_and_embeddings_every_time() -> None:
    model = OnlineModel(settings_of(towers_every_batches=3, replay=0.0))
    changed = []
    before: dict[str, np.ndarray] = {}
    for number, batch in enumerate(BATCHES):
        model.update(batch, StepId(0, number))
        after = {name: array.copy() for name, array in model.learner.state().items() if name.startswith("network.live")}
        rows = {name: after[name][: len(array)] != array for name, array in before.items()}
        changed.append(
            tuple(bool(rows[f"network.live.{name}"].any()) for name in ("user_mlp", "output.bias")) if rows else None
        )
        before = after
    assert changed == [None, (True, False), (True, False), (True, True), (True, False), (True, False)]


def test_passes_end_when_what_is_held_out_gets_no_better(monkeypatch: pytest.MonkeyPatch) -> None:
    model = OnlineModel(settings_of(passes=5, held_out=0.2))
    losses = iter([3.0, 2.0, 2.5, 1.0])
    monkeypatch.setattr(NeuralCf, "_held_out_loss", lambda *_: next(losses))
    figures = model.update(BATCHES[0], StepId(0, 0))
    assert (figures["passes"], figures["held_out_loss"]) == (3, 2.5)


def test_a_rebuild_ends_without_progress_and_keeps_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    model, learner = learned(settings_of(rebuild_epochs=9, patience=2, held_out=0.2))
    losses, states = iter([3.0, 2.0, 2.5, 2.1]), []

    def measured(*_: Any) -> float:
        states.append({name: array.copy() for name, array in learner.state().items()})
        return next(losses)

    monkeypatch.setattr(learner, "_held_out_loss", measured)
    figures = model.refit(StepId(1, 0))
    assert (figures["epochs"], figures["held_out_loss"]) == (4, 2.0)
    state = learner.state()
    names = [name for name in state if name.startswith("network.")]
    assert all((state[name] == states[1][name]).all() for name in names)
    assert any((state[name] != states[2][name]).any() for name in names)


def test_the_loss_on_what_is_held_out_falls() -> None:
    settings = settings_of(held_out=0.2, rebuild_epochs=30, learning_rate=0.02, teacher=False, regularization=0.01)
    model = OnlineModel(settings)
    for number, batch in enumerate(BATCHES):
        model.absorb(batch, StepId(0, number))
    # With 50 others of which some were had, chance is -log(1 / 51) or a little less.
    assert model.refit(StepId(0, 5))["held_out_loss"] < 0.95 * np.log(51)


def test_targets_are_labels_and_opinions_in_shares() -> None:
    _, learner = learned(settings_of(distillation=0.25))
    users, items, labels = torch.tensor([0, 3]), torch.tensor([[1, 2], [0, 5]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert learner.teacher is not None
    slope, intercept = learner.state()["calibration"]
    opinions = 1 / (1 + np.exp(-slope * learner.teacher.score(users.numpy()).numpy() - intercept))
    expected = [
        [0.75 * labels[row, place] + 0.25 * opinions[row, items[row, place]] for place in range(2)] for row in range(2)
    ]
    np.testing.assert_allclose(learner._taught(users, items, labels).numpy(), expected, rtol=1e-5)


def test_a_rebuild_fits_the_scale_of_the_teacher() -> None:
    model, learner = learned(settings_of(held_out=0.4))
    before = learner.state()["calibration"].copy()
    model.refit(StepId(1, 0))
    after = learner.state()["calibration"]
    assert (after != before).all()
    assert 1 <= after[0] <= 30


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("teacher", [True, False])
def test_candidates_come_first_by_logits_and_the_others_by_products(teacher: bool, exclude_seen: bool) -> None:
    model, learner = learned(settings_of(teacher=teacher, exclude_seen=exclude_seen, candidates=7))
    users = np.arange(len(model.users))
    scores, exact = learner.score(users).numpy(), exact_scores(learner, users).numpy()
    first = learner._first_stage(users).numpy()
    known = np.flatnonzero(first.any(axis=1))
    assert len(known) > 0.9 * len(users)
    for user in known.tolist():
        count = 7 + exclude_seen * int(model.history.user_rows(np.array([user])).lengths[0])
        candidates = np.argsort(-first[user])[:count]
        others = np.argsort(-first[user])[count:]
        np.testing.assert_allclose(scores[user][candidates], exact[user][candidates], rtol=1e-4, atol=1e-5)
        if len(others):
            assert scores[user][candidates].min() > scores[user][others].max()
            assert (np.diff(scores[user][others]) <= 1e-6).all()
    pairs = learner.score_pairs(users, users % len(model.items))
    np.testing.assert_allclose(pairs, exact[users, users % len(model.items)], rtol=1e-4, atol=1e-5)


def exact_scores(learner: NeuralCf, users: np.ndarray) -> torch.Tensor:
    """Logits of all items for the codes (n,) of known users, (n, items): what `score` comes near to."""
    items = torch.arange(learner._network.items)
    return learner._logits(torch.from_numpy(users), items.expand(len(users), -1))


def candidate_recall(exact: torch.Tensor, two_stage: torch.Tensor, k: int) -> float:
    """What ranking in two stages loses: the mean share of each user's k best items that its list of k still holds.

    Args:
        exact: (n, items) scores of all items by the network.
        two_stage: (n, items) scores as they are served; both -inf where an item may not be recommended.
        k: Length of the lists.
    """
    best, listed = (
        torch.zeros_like(exact, dtype=torch.bool).scatter(1, scores.topk(k).indices, True)
        for scores in (exact, two_stage)
    )
    best &= exact > -torch.inf
    return float((best & listed).sum() / best.sum())


def test_with_all_items_as_candidates_nothing_is_lost() -> None:
    model, learner = learned(settings_of(candidates=1000))
    users = np.arange(len(model.users))
    exact = exact_scores(learner, users)
    torch.testing.assert_close(learner.score(users), exact)
    assert candidate_recall(exact, learner.score(users), 5) == 1


def test_the_recall_of_candidates_by_hand() -> None:
    exact = torch.tensor([[4.0, 3.0, 2.0, 1.0], [4.0, -torch.inf, -torch.inf, 1.0]])
    listed = torch.tensor([[4.0, 0.0, 2.0, 3.0], [1.0, -torch.inf, -torch.inf, 4.0]])
    assert candidate_recall(exact, listed, 1) == 0.5
    assert candidate_recall(exact, listed, 2) == 0.75


@given(groups=st.sampled_from([1, 7, 1 << 14]))
def test_scores_do_not_depend_on_who_is_scored_together(groups: int) -> None:
    model, learner = FITTED
    users = np.array([3, -1, 0, 10_000, 5])
    together = learner.score(users)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys.model.neural.candidates._PAIRS_AT_ONCE", groups)
        torch.testing.assert_close(learner.score(users), together)
    assert not together[[1, 3]].any()
    assert together[[0, 2, 4]].any(dim=1).all()
    assert together.shape == (5, len(model.items))


FITTED = learned(settings_of())


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("teacher", [True, False])
def test_what_is_served_scores_as_the_network_does(teacher: bool, exclude_seen: bool) -> None:
    model, learner = learned(settings_of(teacher=teacher, exclude_seen=exclude_seen), refit=True)
    scorer = NeuralScorer(learner.served(model.history))
    users = np.array([0, 7, -1, 3, 20])
    known = users[users >= 0]
    items = np.arange(len(model.items))
    logits = np.stack([scorer.logits(user, items) for user in known.tolist()])
    np.testing.assert_allclose(logits, exact_scores(learner, known).numpy(), rtol=1e-4, atol=1e-4)
    served, live = scorer.score(users), learner.score(users).numpy()
    assert not served[2].any()
    # Where two items are level at the edge, either may be the last candidate.
    products, counts = (
        -np.sort(-learner._first_stage(users).numpy(), axis=1),
        learner.served(model.history)["candidates"],
    )
    last = np.minimum(counts[users], len(items) - 1)
    clear = np.flatnonzero(products[np.arange(len(users)), last - 1] > products[np.arange(len(users)), last] + 1e-5)
    assert len(clear) >= 3
    np.testing.assert_allclose(served[clear], live[clear], rtol=1e-4, atol=1e-4)


def test_what_is_served_stays_when_the_model_learns_on() -> None:
    model, learner = learned(settings_of(teacher=False))
    arrays = learner.served(model.history)
    before = {name: array.copy() for name, array in arrays.items()}
    model.update(BATCHES[0], StepId(0, 10))
    assert all((array == before[name]).all() for name, array in arrays.items())


def test_a_network_without_a_teacher_finds_what_is_missing_in_a_group() -> None:
    """Users and items in three groups, each user lacking one item of the own group."""
    had = [(user, item) for user in range(30) for item in range(30) if user % 3 == item % 3 and item // 3 != user // 3]
    settings = settings_of(teacher=False, held_out=0.0, rebuild_epochs=60, learning_rate=0.02, regularization=0.01)
    model = OnlineModel(settings)
    model.absorb(make_batch([(f"{user:02}", f"{item:02}", 1.0, 0.0) for user, item in had]), StepId(0, 0))
    model.refit(StepId(0, 0))
    scores = model.score(np.arange(30)).numpy()
    items = model.items.lookup([f"{item:02}" for item in range(30)])
    scores = scores[:, items]
    for user, item in had:
        scores[user, item] = -np.inf
    missing = [3 * (user // 3) + user % 3 for user in range(30)]
    assert (scores.argmax(axis=1) == missing).mean() > 0.9

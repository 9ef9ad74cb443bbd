"""What every kind of learner promises, tested on all of them alike."""

from typing import Any

import numpy as np
import pytest
import torch

from recsys.contracts import InteractionBatch, StepId
from recsys.model import snapshot
from recsys.model.evaluation.prequential import evaluate
from recsys.model.frozen import FrozenModel
from recsys.model.recommender import LEARNERS, OnlineModel
from recsys.model.snapshot import Snapshot
from tests.model.als.test_incremental_als import assert_same_state, learn
from tests.model.helpers import DAY, clustered_batches, make_batch, make_settings, scores_of

KINDS = sorted(LEARNERS)
BATCHES = clustered_batches(9, 120)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def settings_of(kind: str, device: str = "cpu", exclude_seen: bool = False, **sections: Any) -> Any:
    return make_settings(
        device,
        model={"kind": kind, "factors": 8},
        decay={"half_life_days": 2.0},
        recommend={"k": 5, "exclude_seen": exclude_seen},
        **sections,
    )


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_the_same_batches_give_the_same_arrays(kind: str, torch_device: str, exclude_seen: bool) -> None:
    settings = settings_of(kind, torch_device, exclude_seen)
    assert_same_state(learn(OnlineModel(settings), BATCHES), learn(OnlineModel(settings), BATCHES))


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_a_snapshot_and_the_batches_since_equal_an_uninterrupted_run(
    kind: str, exclude_seen: bool, tmp_path: Any
) -> None:
    settings = settings_of(kind, exclude_seen=exclude_seen)
    model = learn(OnlineModel(settings), BATCHES[:4])
    Snapshot.of(model).save(tmp_path / "a.safetensors")
    again = snapshot.load(tmp_path / "a.safetensors", settings)
    assert_same_state(again, model)
    everyone = np.arange(-1, len(model.users))
    assert torch.equal(again.score(everyone), model.score(everyone))
    assert_same_state(learn(again, BATCHES[4:], first=4), learn(OnlineModel(settings), BATCHES))


def test_a_rebuild_is_a_function_of_the_log(kind: str) -> None:
    settings = settings_of(kind)
    log = [(StepId(0, number), batch) for number, batch in enumerate(BATCHES)]
    models = [OnlineModel(settings), OnlineModel(settings)]
    for model in models:
        model.rebuild(log, StepId(1, len(log) - 1))
        model.update(BATCHES[0], StepId(1, len(log)))
    assert_same_state(*models)
    assert models[0].score(np.arange(5)).any()


def test_another_global_seed_changes_nothing(kind: str) -> None:
    settings = settings_of(kind)
    before = torch.get_rng_state()
    first = learn(OnlineModel(settings), BATCHES[:3])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    np.random.seed(99)
    try:
        assert_same_state(first, learn(OnlineModel(settings), BATCHES[:3]))
    finally:
        torch.set_rng_state(before)


def test_new_ids_are_scored_from_their_first_batch_on(kind: str) -> None:
    model = learn(OnlineModel(settings_of(kind)), BATCHES[:3])
    model.update(make_batch([("somebody new", "something new", 1.0, 4 * DAY)]), StepId(0, 3))
    user = model.users.lookup(["somebody new"])
    scores = model.score(np.array([-1, 0, *user]))
    assert scores.shape == (3, len(model.items))
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()
    assert scores.any(dim=1).all()


def test_scoring_changes_nothing(kind: str) -> None:
    model = learn(OnlineModel(settings_of(kind)), BATCHES[:4])
    before = {name: array.copy() for name, array in model.state().items()}
    rows = np.array([0, -1, 3, 0])
    first, second = model.score(rows), model.score(rows)
    assert torch.equal(first, second)
    torch.testing.assert_close(first[0], first[3])
    for name, array in model.state().items():
        assert array.tobytes() == before[name].tobytes(), name


def test_an_empty_batch_changes_nothing(kind: str) -> None:
    model = learn(OnlineModel(settings_of(kind)), [make_batch([]), *BATCHES[:2]])
    before = {name: array.copy() for name, array in model.state().items()}
    model.update(make_batch([]), StepId(0, 3))
    for name, array in model.state().items():
        assert array.tobytes() == before[name].tobytes(), name


def test_what_is_served_scores_like_the_live_model(kind: str) -> None:
    model = learn(OnlineModel(settings_of(kind)), BATCHES)
    # Served factors are solved exactly, and so are those of a refit.
    model.refit(StepId(1, 0))
    ids = [*model.users.ids, "nobody"]
    live = model.score(model.users.lookup(ids)).cpu()
    served = torch.from_numpy(scores_of(FrozenModel(model.served()), ids, model.items))
    # Scores that differ in the last digits may change the places of two items, but not the figures.
    close = torch.isclose(served, live, rtol=1e-3, atol=1e-4)
    assert close.float().mean() > 0.99
    best = [scores.topk(5, dim=1).indices for scores in (live, served)]
    assert (best[0] == best[1]).float().mean() > 0.98


def test_what_is_served_stays_as_it_was_while_the_model_learns_on(kind: str) -> None:
    """So another thread may register it. Batches without new ids change arrays where they are."""
    model = learn(OnlineModel(settings_of(kind)), BATCHES)
    served = model.served()
    before = {name: array.copy() for name, array in served.arrays.items()}
    users, items = list(served.user_ids), list(served.item_ids)
    learn(model, [*BATCHES, make_batch([("new", "newer", 1.0, 20 * DAY)])], first=len(BATCHES))
    for name, array in served.arrays.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    assert (served.user_ids, served.item_ids) == (users, items)
    changed = model.served().arrays
    assert any(not np.array_equal(changed[name], before[name]) for name in before)


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_recommendations_are_the_best_scores(kind: str, exclude_seen: bool) -> None:
    model = learn(OnlineModel(settings_of(kind, exclude_seen=exclude_seen)), BATCHES[:5])
    ids = [*model.users.ids[:10], "nobody"]
    scores = model.scorer().score(model.users.lookup(ids))
    # Added up in another order.
    np.testing.assert_allclose(scores, model.score(model.users.lookup(ids)).cpu(), rtol=1e-4, atol=1e-5)
    for user_id, own, listed in zip(ids, scores, model.recommend(ids, 7), strict=True):
        code = model.users.lookup([user_id])
        left_out = set(model.history.user_rows(code).others.tolist()) if exclude_seen and code[0] >= 0 else set()
        order = sorted(set(range(len(own))) - left_out, key=lambda item: (-own[item], item))[:7]
        found, found_scores = zip(*listed, strict=True)
        assert list(found) == [model.items.ids[item] for item in order]
        # On some processors the last bit of a network's score depends on how many are computed together.
        wanted = pytest.approx(own[order], rel=1e-6) if kind == "ncf" else tuple(own[order].tolist())
        assert found_scores == wanted
    assert len(model.recommend(["nobody"], 10_000)[0]) == len(model.items)


def slow_ndcg(scores: np.ndarray, relevant: list[int], unknown: int, k: int) -> float:
    """One user's NDCG@k; an item ranks behind all that score as high."""
    ranks = [sum(other >= scores[item] for place, other in enumerate(scores) if place != item) for item in relevant]
    gain = sum(1 / np.log2(rank + 2) for rank in ranks if rank < k)
    return float(gain / sum(1 / np.log2(place + 2) for place in range(min(len(relevant) + unknown, k))))


def test_no_tie_is_a_hit(kind: str) -> None:
    settings = settings_of(kind)
    model, batch = learn(OnlineModel(settings), BATCHES[:5]), BATCHES[5]
    users, items = model.users.lookup(batch.user_ids), model.items.lookup(batch.item_ids)
    scores = model.scorer().score(users)
    figures = []
    for user_id in dict.fromkeys(batch.user_ids):
        rows = [row for row, other in enumerate(batch.user_ids) if other == user_id]
        known = [int(items[row]) for row in rows if items[row] >= 0]
        figures.append(slow_ndcg(scores[rows[0]], known, len(rows) - len(known), 5))
    measured = evaluate(batch, model, {}, settings, StepId(0, 5))
    assert measured["model/ndcg_at_5"] == pytest.approx(np.mean(figures), abs=2e-3)


def test_all_learn_something(kind: str) -> None:
    """Better than chance by far, on users who come back."""
    settings = settings_of(kind)
    model = learn(OnlineModel(settings), BATCHES[:8])
    figures = evaluate(BATCHES[8], model, {}, settings, StepId(0, 8))
    assert figures["model/ndcg_at_5"] > 5 * 5 / len(model.items) / 2


def test_figures_are_numbers(kind: str) -> None:
    model = OnlineModel(settings_of(kind))
    for number, batch in enumerate(BATCHES[:3]):
        figures = model.update(batch, StepId(0, number))
        assert all(type(value) is float and np.isfinite(value) for value in figures.values()), figures


def test_negative_weights_teach_no_liking(kind: str) -> None:
    disliked: list[InteractionBatch] = [
        make_batch(
            [
                (f"u{user}", f"i{item}", -1.0 if item == 0 else 1.0, float(day))
                for user in range(8)
                for item in range(6)
                if (user + item + day) % 2 or item == 0
            ]
        )
        for day in range(4)
    ]
    model = learn(OnlineModel(settings_of(kind)), disliked)
    scores = model.score(np.arange(len(model.users)))
    hated = int(model.items.lookup(["i0"])[0])
    assert (scores.argmax(dim=1) != hated).all()

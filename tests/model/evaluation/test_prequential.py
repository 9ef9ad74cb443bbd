"""Score-then-learn: what is measured, on whom, and against what."""

import numpy as np
import pytest

from recsys.contracts import StepId
from recsys.model.evaluation import prequential
from recsys.model.evaluation.prequential import evaluate
from recsys.model.frozen import FrozenModel
from recsys.model.recommender import OnlineModel
from recsys.serving import ranking
from tests.model.als.test_incremental_als import learn
from tests.model.helpers import DAY, clustered_batches, make_batch, make_settings, scores_of

STEP = StepId(0, 9)
SETTINGS = make_settings(recommend={"k": 2, "exclude_seen": False})
UNSEEN = make_settings(recommend={"k": 2, "exclude_seen": True})
METRICS = {"recall_at_2", "ndcg_at_2", "precision_at_2", "f1_at_2", "auc", "coverage_at_2"}


def small_model() -> OnlineModel:
    """Four items, `top` by far the most popular; `a` and `b` know x and y."""
    rows = [
        ("a", "x", 1.0, 0.0),
        ("a", "y", 1.0, 0.0),
        ("b", "x", 1.0, 0.0),
        ("c", "z", 1.0, 0.0),
        ("c", "top", 9.0, 0.0),
    ]
    return learn(OnlineModel(SETTINGS), [make_batch(rows)])


def test_the_figures_are_named_by_model_and_group() -> None:
    model = small_model()
    figures = evaluate(
        make_batch([("a", "x", 1, DAY), ("new", "top", 1, DAY)]),
        model,
        {"first": FrozenModel(model.served())},
        SETTINGS,
        STEP,
    )
    groups = {f"{name}{group}" for name in ("model", "popularity", "first") for group in ("", "_warm")}
    expected = {f"{group}/{metric}" for group in groups for metric in METRICS}
    assert set(figures) == expected | {"cold_event_share", "evaluated_users"}


def test_an_unknown_user_is_answered_with_popularity_and_is_not_warm() -> None:
    figures = evaluate(make_batch([("new", "top", 1, DAY)]), small_model(), {}, SETTINGS, STEP)
    assert figures["model/ndcg_at_2"] == figures["popularity/ndcg_at_2"] == 1.0
    assert not any(name.startswith("model_warm") for name in figures)
    assert figures["cold_event_share"] == 1.0


def test_a_cold_item_counts_as_missed() -> None:
    figures = evaluate(make_batch([("a", "x", 1, DAY), ("a", "brand new", 1, DAY)]), small_model(), {}, SETTINGS, STEP)
    assert figures["model/recall_at_2"] == 0.5
    assert figures["model/auc"] <= 0.5
    assert figures["cold_event_share"] == 0.5


def test_cold_events_are_counted_as_events_not_as_pairs() -> None:
    batch = make_batch([("a", "x", 1, DAY)] * 3 + [("new", "x", 1, DAY)])
    assert evaluate(batch, small_model(), {}, SETTINGS, STEP)["cold_event_share"] == 0.25


def test_seen_items_are_neither_recommended_nor_relevant_when_they_are_excluded() -> None:
    model = small_model()
    repeat, discovery = make_batch([("a", "x", 1, DAY)]), make_batch([("a", "x", 1, DAY), ("a", "z", 1, DAY)])
    assert evaluate(repeat, model, {}, UNSEEN, STEP)["evaluated_users"] == 0
    assert evaluate(repeat, model, {}, SETTINGS, STEP)["model/recall_at_2"] == 1.0
    # Only z and top are left for a, so both stand in its list of two.
    assert evaluate(discovery, model, {}, UNSEEN, STEP)["model/recall_at_2"] == 1.0
    assert evaluate(discovery, model, {}, UNSEEN, STEP)["model/coverage_at_2"] == 0.5


def test_a_dislike_is_not_relevant() -> None:
    figures = evaluate(make_batch([("a", "x", -1, DAY)]), small_model(), {}, SETTINGS, STEP)
    assert figures == {"cold_event_share": 0.0, "evaluated_users": 0.0}


def test_an_empty_batch_and_an_empty_model() -> None:
    assert evaluate(make_batch([]), small_model(), {}, SETTINGS, STEP) == {}
    figures = evaluate(make_batch([("a", "x", 1, 0)]), OnlineModel(SETTINGS), {}, SETTINGS, STEP)
    assert figures == {"cold_event_share": 1.0, "evaluated_users": 1.0}


def test_nothing_is_learned_or_added() -> None:
    model = small_model()
    before = {name: array.copy() for name, array in model.state().items()}
    evaluate(clustered_batches(1, 50)[0], model, {}, UNSEEN, STEP)
    assert all(array.tobytes() == before[name].tobytes() for name, array in model.state().items())


def test_the_sample_is_bounded_seeded_and_different_in_each_batch() -> None:
    model, batch = learn(OnlineModel(SETTINGS), clustered_batches(2, 200)), clustered_batches(3, 400)[2]
    settings = SETTINGS.model_copy(update={"evaluation": SETTINGS.evaluation.model_copy(update={"users_per_batch": 9})})
    figures = evaluate(batch, model, {}, settings, STEP)
    assert figures["evaluated_users"] == 9
    assert evaluate(batch, model, {}, settings, STEP) == figures
    assert evaluate(batch, model, {}, settings, StepId(0, 10)) != figures


def test_the_auc_is_that_of_some_users_and_everything_else_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = learn(OnlineModel(SETTINGS), clustered_batches(3, 200)), clustered_batches(4, 200)[3]
    every = evaluate(batch, model, {}, SETTINGS, STEP)
    monkeypatch.setattr(prequential, "_ORDERED_USERS", 3)
    some = evaluate(batch, model, {}, SETTINGS, STEP)
    assert {name for name in every if some[name] != every[name]} == {
        f"{name}/auc" for name in ("model", "model_warm", "popularity", "popularity_warm")
    }


def test_groups_of_users_give_the_same_figures(monkeypatch: pytest.MonkeyPatch, torch_device: str) -> None:
    settings = make_settings(torch_device, recommend={"k": 2})
    model, batch = learn(OnlineModel(settings), clustered_batches(3, 200)), clustered_batches(4, 200)[3]
    frozen = {"first": FrozenModel(model.served())}
    whole = evaluate(batch, model, frozen, settings, STEP)
    monkeypatch.setattr(ranking, "_LISTED_AT_ONCE", 6)
    assert evaluate(batch, model, frozen, settings, STEP) == whole


def test_a_frozen_copy_scores_like_the_model_it_was_taken_from() -> None:
    batches = clustered_batches(6, 200)
    model = learn(OnlineModel(SETTINGS), batches[:3])
    # What is served is solved exactly for the items; so is the live model after a refit.
    model.refit(StepId(1, 0))
    version = FrozenModel(model.served())
    live = model.score(np.arange(len(model.users))).cpu().numpy()
    np.testing.assert_allclose(scores_of(version, model.users.ids, model.items), live, rtol=1e-5, atol=1e-6)
    figures = evaluate(batches[3], model, {"first": version}, SETTINGS, STEP)
    for metric in METRICS:
        # torch and numpy round a product differently on some processors, which may swap two equally good items.
        within = 1e-3 if metric == "auc" else 1e-9
        assert figures[f"first/{metric}"] == pytest.approx(figures[f"model/{metric}"], abs=within)


def test_a_frozen_model_keeps_its_answers_while_the_vocabularies_grow() -> None:
    batches = clustered_batches(6, 200)
    model = learn(OnlineModel(SETTINGS), batches[:3])
    served = model.served()
    frozen, codes = FrozenModel(served), slice(0, len(model.items))
    users = [*model.users.ids[:5], "nobody"]
    before = scores_of(frozen, users, model.items)
    learn(model, batches[3:], first=3)
    after = scores_of(frozen, users, model.items)
    assert (after[:, codes] == before).all()
    assert after.shape[1] == len(model.items) > before.shape[1]
    assert (after[:, before.shape[1] :] == -np.inf).all()
    assert (before[-1] == served.arrays["item_popularity"]).all()


def test_a_frozen_model_of_other_origin_is_aligned_by_ids() -> None:
    other = learn(OnlineModel(SETTINGS), [make_batch([("a", "y", 1, 0), ("a", "gone", 1, 0), ("b", "x", 1, 0)])])
    model = small_model()
    scores = scores_of(FrozenModel(other.served()), ["b"], model.items)[0]
    own = (other.als.user_factors @ other.als.item_factors.T).numpy()[other.users.lookup(["b"])[0]]
    for item, score in zip(model.items.ids, scores, strict=True):
        code = other.items.lookup([item])[0]
        assert score == (pytest.approx(own[code], rel=1e-4, abs=1e-6) if code >= 0 else -np.inf)

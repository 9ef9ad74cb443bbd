"""What the mixture promises: as good as its best member on planted streams, within its stated regret on any."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.model.evaluation.prequential import evaluate
from recsys.model.mixture import mixture
from recsys.model.mixture.mixture import Mixture
from recsys.model.recommender import OnlineModel
from recsys.serving.choice import drawn_numbers
from recsys.serving.mixture import MixtureScorer
from recsys.serving.scorers import GROUPS
from tests.model.helpers import DAY, clustered_batches, make_batch, make_settings
from tests.serving.mixture_oracle import added_up, ranks_of

SMALL = {"half_lives": [20, 100, 2000], "segment_half_lives": [100], "candidates": 10}


def settings_of(exclude_seen: bool = True, k: int = 5, **mixture: Any) -> Settings:
    return make_settings(
        model={"kind": "mixture", "factors": 4, "mixture": SMALL | mixture},
        recommend={"k": k, "exclude_seen": exclude_seen},
    )


def streamed(settings: Settings, batches: list[InteractionBatch]) -> tuple[OnlineModel, list[dict[str, float]]]:
    model = OnlineModel(settings)
    return model, [model.update(batch, StepId(0, number)) for number, batch in enumerate(batches)]


def releases(seed: int, batches: int = 18) -> list[InteractionBatch]:
    """Every batch has its own two new items that most users take: the shortest half-life is best."""
    generator, made = np.random.default_rng(seed), []
    for number in range(batches):
        items = np.where(
            generator.random(120) < 0.8, 2 * number - generator.integers(-2, 2, 120), generator.integers(0, 60, 120)
        )
        users = generator.integers(0, 300, 120)
        made.append(make_batch([(f"u{u}", f"i{i}", 1.0, number * DAY) for u, i in zip(users, items, strict=True)]))
    return made


def habits(seed: int, batches: int = 18) -> list[InteractionBatch]:
    """Users who take their own few items again and again: repeats are best."""
    generator, made = np.random.default_rng(seed), []
    own = generator.integers(0, 200, size=(40, 4))
    for number in range(batches):
        users = generator.integers(0, 40, 100)
        items = np.where(
            generator.random(100) < 0.8, own[users, generator.integers(0, 4, 100)], generator.integers(0, 200, 100)
        )
        made.append(make_batch([(f"u{u}", f"i{i}", 1.0, number * DAY) for u, i in zip(users, items, strict=True)]))
    return made


def gains(figures: list[dict[str, float]], names: list[str]) -> np.ndarray:
    """(batches, 1 + rankings): what the mixture had in expectation, and what each ranking had."""
    ranked = [each for each in figures if "mixture/ndcg" in each]
    return np.array([[each["mixture/ndcg"], *(each[f"mixture/ndcg/{name}"] for name in names)] for each in ranked])


@pytest.mark.parametrize(
    ("stream", "exclude_seen", "best"),
    [
        (releases, True, "trend_20"),
        (habits, False, "repeat"),
        (lambda seed: clustered_batches(14, 120, seed), True, ""),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_gain_is_that_of_the_best_member_less_the_stated_regret(
    stream: Any, exclude_seen: bool, best: str, seed: int
) -> None:
    model, figures = streamed(settings_of(exclude_seen), stream(seed))
    assert isinstance(model.learner, Mixture)
    total = gains(figures, model.learner.rankings).sum(axis=0)
    assert total[0] >= total[1:].max() - figures[-1]["mixture/regret"] - 1e-9
    singles = dict(zip(model.learner.rankings[1:], total[2:].tolist(), strict=True))
    if best:
        assert max(singles, key=lambda name: singles[name]) == best
    # Far closer than the bound, on streams like these.
    assert total[0] >= 0.93 * max(singles.values())


def test_chances_go_to_those_who_rank_well() -> None:
    model, figures = streamed(settings_of(exclude_seen=False), releases(2))
    assert isinstance(model.learner, Mixture)
    for group in GROUPS:
        chances = {name: figures[-1][f"mixture/{group}/{name}"] for name in model.learner.rankings}
        assert sum(chances.values()) == pytest.approx(1)
        if group != "heavy":
            assert chances["reranker"] + chances["trend_20"] > 0.9


def test_the_gain_is_what_evaluating_finds() -> None:
    batches = habits(3)
    settings = settings_of(exclude_seen=False)
    model, _ = streamed(settings, batches[:16])
    found = evaluate(batches[16], model, {}, settings, StepId(0, 16))["model/ndcg_at_5"]
    figures = model.update(batches[16], StepId(0, 16))
    # All users of the batch are ranked in both; who gets which ranking is drawn in one and weighed in the other.
    assert found == pytest.approx(figures["mixture/ndcg"], abs=0.03)


def candidates_of(model: OnlineModel, users: np.ndarray) -> list[np.ndarray]:
    found = model.learner.scorer().examples(users)  # type: ignore[attr-defined]
    return [found.items[found.owners == place] for place in range(len(users))]


def test_proposed_items_come_first() -> None:
    model, _ = streamed(settings_of(), clustered_batches(8, 120))
    users = np.arange(-1, len(model.users))
    scores, candidates = model.score(users).numpy(), candidates_of(model, users)
    for row, proposed in zip(scores, candidates, strict=True):
        assert len(proposed) >= 10
        # But for rounding.
        assert np.delete(row, proposed).max() < row[proposed].min() - 0.999


def test_a_users_scores_do_not_depend_on_who_else_is_scored() -> None:
    model, _ = streamed(settings_of(), clustered_batches(8, 120))
    together = model.score(np.arange(-1, 40))
    alone = torch.cat([model.score(np.array([user])) for user in range(-1, 40)])
    # Products of matrices of another size differ in their last digits.
    assert torch.isclose(together, alone, rtol=1e-5, atol=1e-6).float().mean() > 0.999


def test_users_with_much_behind_them_still_get_new_items() -> None:
    batches = [make_batch([("eager", f"i{n}", 1.0, 0.0), (f"u{n}", f"i{n}", 1.0, 1.0)]) for n in range(40)]
    model, _ = streamed(settings_of(), [*batches, make_batch([(f"u{n}", f"new{n}", 1.0, DAY) for n in range(8)])])
    (candidates,) = candidates_of(model, model.users.lookup(["eager"]))
    assert np.isin(model.items.lookup([f"new{n}" for n in range(8)]), candidates).all()


def test_what_was_learned_about_rankings_outlives_a_refit() -> None:
    model, _ = streamed(settings_of(), clustered_batches(8, 120))
    before = {name: array.copy() for name, array in model.learner.state().items()}
    model.refit(StepId(1, 0))
    after = model.learner.state()
    for name in ("weights", "curvature", "losses", "gaps", "calibration", "calibration_curvature"):
        assert before[name].any()
        np.testing.assert_array_equal(before[name], after[name])
    assert not np.array_equal(before["als.user.factors"], after["als.user.factors"])


@pytest.mark.parametrize("change", ["update", "absorb", "refit"])
def test_what_has_ranked_before_ranks_as_a_restored_model_does(change: str) -> None:
    settings = settings_of()
    *batches, last = habits(3, batches=9)
    model, _ = streamed(settings, batches)
    before = model.score(np.arange(20)).numpy()  # Whatever ranks is made here.
    if change == "refit":
        model.refit(StepId(1, 8))
    else:
        getattr(model, change)(last, StepId(0, 8))
    restored = OnlineModel.from_state(settings, model.state(), model.step)
    after = model.score(np.arange(20)).numpy()
    np.testing.assert_array_equal(after, restored.score(np.arange(20)).numpy())
    assert after.shape != before.shape or (after != before).any()


def test_who_gets_which_ranking_follows_the_chances() -> None:
    draw, rows = np.array([1, 360]), np.arange(-1, 20_000)
    numbers = drawn_numbers(draw, rows)
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert counts.sum() == 20_001
    assert abs(counts - 1000).max() < 160
    assert abs(np.corrcoef(numbers, drawn_numbers(draw + np.array([0, 1]), rows))[0, 1]) < 0.03


def test_pairs_are_added_up_found_and_ranked() -> None:
    pairs = added_up(np.array([1, 0, 1, 1]), np.array([2, 0, 2, 1]), np.array([1.0, 5.0, 0.5, 1.5]), 3)
    assert pairs.keys.tolist() == [0, 4, 5]
    assert pairs.at(np.array([1, 1, 0]), np.array([2, 0, 0])).tolist() == [1.5, 0.0, 5.0]
    # Of equal ones the first item is first.
    assert ranks_of(pairs).tolist() == [0, 0, 1]


def test_repeats_have_no_say_where_nothing_is_recommended_twice() -> None:
    assert "repeat" not in Mixture(settings_of(exclude_seen=True)).members
    assert "repeat" in Mixture(settings_of(exclude_seen=False)).members


@pytest.mark.parametrize("members", [["trend"], ["trend", "cooccurrence"], ["trend", "als", "ncf", "repeat"]])
def test_any_members_beside_the_trend(members: list[str]) -> None:
    settings = settings_of(exclude_seen=False, members=members)
    model, figures = streamed(settings, clustered_batches(4, 60))
    served = MixtureScorer.of(model.learner.served(model.history)).score(np.array([-1, 0, 5]))
    assert served.shape == (3, len(model.items))
    assert model.learner.rankings[0] == "reranker"  # type: ignore[attr-defined]
    assert {name.split("/")[-1] for name in figures[-1] if name.startswith("mixture/cold/")} >= {"reranker", "trend_20"}


def test_members_are_named_once_and_with_the_trend() -> None:
    for members in (["als"], ["trend", "als", "als"]):
        with pytest.raises(ValidationError):
            settings_of(members=members)


def test_the_network_is_taught_by_the_member_als(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit as with a teacher of its own, which is not solved or stored a second time; also from a state."""
    settings = make_settings(
        model={"kind": "mixture", "mixture": {"members": ["trend", "als", "ncf"]}, "neural": {"layers": [8]}}
    )
    models = []
    for taught in (True, False):
        if not taught:
            monkeypatch.setattr(mixture, "_taught", lambda members: members)
        model = OnlineModel(settings)
        for number, batch in enumerate(clustered_batches(3, 120)):
            model.update(batch, StepId(0, number))
            if taught:
                model = OnlineModel.from_state(settings, model.state(), model.step)
        model.refit(StepId(1, 0))
        model.update(clustered_batches(1, 120)[0], StepId(1, 1))
        models.append(model.state())
    one, two = models
    assert {name for name in two if name not in one} == {name for name in two if ".ncf.teacher." in name} != set()
    assert [name for name, array in one.items() if not np.array_equal(array, two[name])] == []

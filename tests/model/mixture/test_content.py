"""Vectors of items in the model: replaced, forgotten and stored, and what the mixture makes of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.config import Settings
from recsys.contracts import Contents, InteractionBatch, StepId
from recsys.model.interactions.described import Described
from recsys.model.interactions.history import History
from recsys.model.interactions.keeping import Kept, KeptRows
from recsys.model.interactions.vocab import Vocabulary
from recsys.model.mixture.content import Content
from recsys.model.recommender import OnlineModel
from tests.model.counts.test_trend import coded as coded_batch
from tests.model.helpers import DIMENSIONS, clustered_batches, make_settings

NO_HISTORY, STEP = History(None), StepId(0, 0)
MEMBERS = ["als", "trend", "cooccurrence", "sessions"]


def settings_of(*members: str) -> Settings:
    return make_settings(model={"kind": "mixture", "mixture": {"members": [*MEMBERS, *members]}})


def learned(batches: list[InteractionBatch], settings: Settings) -> OnlineModel:
    model = OnlineModel(settings)
    for number, batch in enumerate(batches):
        model.update(batch, StepId(0, number))
    return model


@given(seed=st.integers(0, 10_000), batches=st.integers(1, 5))
def test_the_sum_of_all_vectors_is_that_of_the_present_ones(seed: int, batches: int) -> None:
    draw, learner = np.random.default_rng(seed), Content(make_settings())
    for _ in range(batches):
        items = np.flatnonzero(draw.random(6) < 0.5)
        vectors = draw.integers(-9, 10, (len(items), 4)).astype(np.int8)
        rows = [(int(user), int(item), 1.0, 1, float(draw.integers(9))) for user, item in draw.integers(6, size=(3, 2))]
        batch = replace(coded_batch(list(dict.fromkeys(rows))), described=items, vectors=vectors)
        learner.absorb(batch, NO_HISTORY, STEP)
    if draw.random() < 0.5:
        kept = Kept(KeptRows.of(draw.random(30) < 0.7), KeptRows.of(draw.random(6) < 0.7))
        learner.keep(kept, NO_HISTORY)
    again = Content.from_state(make_settings(), learner.state())
    for name, array in learner.served(NO_HISTORY).items():
        np.testing.assert_array_equal(again.served(NO_HISTORY)[name], array, name)
    vectors = learner.state()["vectors"]
    np.testing.assert_array_equal(learner.served(NO_HISTORY)["total"], vectors.sum(axis=0, dtype=np.int64))
    assert learner.served(NO_HISTORY)["described"] == vectors.any(axis=1).sum()


def test_a_later_vector_replaces_the_one_before_and_the_length_stays() -> None:
    learner = Content(make_settings())
    first = replace(coded_batch([(0, 1, 1.0, 1, 1.0)]), described=np.array([1]), vectors=np.full((1, 2), 3, np.int8))
    learner.absorb(first, NO_HISTORY, STEP)
    learner.absorb(replace(first, vectors=np.full((1, 2), 5, np.int8)), NO_HISTORY, STEP)
    np.testing.assert_array_equal(learner.vectors_of(np.array([1, 0, -1, 99])), [[5, 5], [0, 0], [0, 0], [0, 0]])
    with pytest.raises(ValueError, match="3 dimensions after ones of 2"):
        learner.absorb(replace(first, vectors=np.zeros((1, 3), np.int8)), NO_HISTORY, STEP)


def test_a_mixture_ranks_better_by_vectors_that_say_what_users_like() -> None:
    batches = clustered_batches(14, 250)
    plain, told = learned(batches, settings_of()), learned(batches, settings_of("content"))
    weights = told.learner.state()
    assert weights["content.vectors"].shape == (len(told.items), DIMENSIONS)
    users = [f"u{number}" for number in range(1, 60)]
    lists = [model.recommend(users, 10) for model in (plain, told)]
    hits = [
        np.mean([int(item[1:]) % 6 == (number + 1) % 6 for number, own in enumerate(one) for item, _ in own])
        for one in lists
    ]
    assert hits[1] > hits[0] + 0.05


@pytest.mark.parametrize("threads", [1, 3])
def test_the_model_is_a_function_of_batches_and_vectors(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batches, settings = clustered_batches(5, 120), settings_of("content")
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    whole = learned(batches, settings)
    model = learned(batches[:3], settings)
    model = OnlineModel.from_state(
        settings, {name: array.copy() for name, array in model.state().items()}, StepId(0, 2)
    )
    for number in (3, 4):
        model.update(batches[number], StepId(0, number))
    assert {name: array.tobytes() for name, array in model.state().items()} == {
        name: array.tobytes() for name, array in whole.state().items()
    }


def test_only_what_is_new_or_has_changed_is_brought() -> None:
    catalog = Described(Vocabulary(["a", "b", "c"]), np.arange(6, dtype=np.int8).reshape(3, 2))
    assert catalog.unlike(["b", "x", "a"], np.zeros((3, 0), np.int8)).item_ids == ["b", "a"]
    known = np.array([[2, 3], [9, 9], [0, 7]], np.int8)
    brought = catalog.unlike(["b", "x", "a"], known)
    assert (brought.item_ids, brought.vectors.tolist()) == (["a"], [[0, 1]])
    assert catalog.of(["x"]).item_ids == []
    assert Contents().vectors.shape == (0, 0)

"""Cold items: the ridge against its definition, and what a version knows afterward."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.config.sections import Items
from recsys.contracts import StepId
from recsys.errors import ConfigError
from recsys.model.recommender import OnlineModel
from recsys.model.text.cold_start import ColdItems, ColdStart, Texts
from recsys.serving import Served, VersionScorer
from tests.model.als.test_incremental_als import learn
from tests.model.helpers import clustered_batches, make_batch, make_settings

DIMENSIONS, FACTORS = 6, 3

Floats = npt.NDArray[np.float32]


def units(generator: np.random.Generator, count: int, dimensions: int = DIMENSIONS) -> Floats:
    values = generator.normal(size=(count, dimensions))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def make_cold(regularization: float = 2.0, newest: int = 250, min_events: int = 1) -> ColdStart:
    settings = Items(regularization=regularization, newest=newest, min_events=min_events)
    return ColdStart(settings, DIMENSIONS, FACTORS)


def dense_ridge(embeddings: Floats, factors: Floats, regularization: float) -> npt.NDArray[np.float64]:
    """The minimum of the penalized squared error, found by least squares on rows that stand for the penalty."""
    wide = np.vstack([embeddings, np.sqrt(regularization) * np.eye(embeddings.shape[1])])
    right = np.vstack([factors, np.zeros((embeddings.shape[1], factors.shape[1]))])
    return np.linalg.lstsq(wide.astype(np.float64), right.astype(np.float64), rcond=None)[0]


@given(
    steps=st.lists(st.sets(st.integers(0, 9)).map(sorted), min_size=1, max_size=6),
    moved=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=6),
    regularization=st.sampled_from([0.01, 1.0, 30.0]),
    seed=st.integers(0, 20),
)
def test_following_the_teachers_is_the_same_as_fitting_from_scratch(
    steps: list[list[int]], moved: list[tuple[int, bool]], regularization: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    embeddings, factors = units(generator, 10), generator.normal(size=(10, FACTORS)).astype(np.float32)
    followed = make_cold(regularization)
    for number, codes in enumerate(steps):
        if number < len(moved):
            item, text = moved[number]
            (embeddings if text else factors)[item] = units(generator, 1, DIMENSIONS if text else FACTORS)
        followed.learn(np.array(codes, dtype=np.int64), embeddings[codes], factors[codes])
        fresh = make_cold(regularization)
        fresh.learn(np.array(codes, dtype=np.int64), embeddings[codes], factors[codes])
        for ours, expected in zip(followed.equations, fresh.equations, strict=True):
            assert ours.tobytes() == expected.tobytes()
        asked = units(generator, 4)
        assert followed.predict(asked).tobytes() == fresh.predict(asked).tobytes()
        expected = asked @ dense_ridge(embeddings[codes], factors[codes], regularization)
        # Embeddings count to 2^-15, and a small penalty lets that show.
        np.testing.assert_allclose(followed.predict(asked), expected, atol=0.02 if regularization < 1 else 2e-4)


@pytest.mark.parametrize("size", [1.0, 60.0])
def test_the_sums_stay_exact_at_the_largest_window(size: float) -> None:
    generator = np.random.default_rng(1)
    settings = Items(newest=4096)
    first, second = (ColdStart(settings, 32, 4) for _ in range(2))
    embeddings = units(generator, 6_000, 32)
    factors = (size * np.sign(generator.normal(size=(6_000, 4)))).astype(np.float32)
    for begin in range(0, 1_901, 380):
        codes = np.arange(begin, begin + 4096)
        first.learn(codes, embeddings[codes], factors[codes])
    second.learn(codes, embeddings[codes], factors[codes])
    assert first.equations[0].tobytes() == second.equations[0].tobytes()
    assert first.equations[1].tobytes() == second.equations[1].tobytes()


def test_only_rows_that_differ_are_worked_on() -> None:
    generator = np.random.default_rng(2)
    embeddings, factors = units(generator, 9), units(generator, 9, FACTORS)
    cold = make_cold()
    assert cold.learn(np.arange(8), embeddings[:8], factors[:8]) == 8
    assert cold.learn(np.arange(8), embeddings[:8], factors[:8]) == 0
    factors[3] *= 2
    assert cold.learn(np.arange(8), embeddings[:8], factors[:8]) == 2
    assert cold.learn(np.arange(1, 9), embeddings[1:], factors[1:]) == 2
    assert len(cold) == 8


def test_without_teachers_nothing_is_known() -> None:
    cold = make_cold()
    cold.learn(np.arange(2), units(np.random.default_rng(0), 2), np.ones((2, FACTORS), dtype=np.float32))
    cold.learn(np.arange(0), np.zeros((0, DIMENSIONS), np.float32), np.zeros((0, FACTORS), np.float32))
    assert not cold.predict(units(np.random.default_rng(1), 3)).any()


def test_the_newest_described_items_with_enough_users_teach() -> None:
    cold = make_cold(newest=3, min_events=2)
    users = np.array([5, 1, 2, 9, 2, 7])
    described = np.array([True, True, True, False, True, True])
    assert cold.teachers(users, described).tolist() == [2, 4, 5]
    assert cold.teachers(users[:3], described[:3]).tolist() == [0, 2]
    assert cold.teachers(users[:0], described[:0]).tolist() == []


def trained(kinds: int = 3, users: int = 24) -> OnlineModel:
    """Users of each kind take items of their kind: item `k-n` is the n-th of kind k."""
    model = OnlineModel(make_settings(model={"factors": 4}))
    generator = np.random.default_rng(3)
    rows = [
        (f"u{user}", f"{user % kinds}-{item}", 1.0, float(user))
        for user in range(users)
        for item in generator.choice(8, 5, replace=False)
    ]
    model.absorb(make_batch(rows), StepId(0, 0))
    model.refit(StepId(0, 1))
    return model


def texts_of(ids: Sequence[str]) -> Texts:
    """A text says of which kind an item is, and little else."""
    generator = np.random.default_rng(4)
    values = np.eye(DIMENSIONS)[[int(item[0]) for item in ids]] + 0.05 * generator.normal(size=(len(ids), DIMENSIONS))
    return Texts.of(ids, (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32))


def extended(model: OnlineModel, catalog: Texts) -> Served:
    return ColdItems(Items(regularization=0.1, min_events=2)).extend(model.served(), catalog)


def scores_of(served: Served, rows: npt.NDArray[np.int64]) -> Floats:
    return VersionScorer(served.kind, served.arrays).score(rows)


def test_a_new_item_is_recommended_to_those_who_like_its_kind() -> None:
    model = trained()
    catalog = texts_of([*model.items.ids, "0-new", "1-new", "2-new"])
    served = extended(model, catalog)
    ids = served.item_ids
    assert ids == [*model.items.ids, "0-new", "1-new", "2-new"]
    scores = scores_of(served, model.users.lookup([f"u{user}" for user in range(24)]))
    assert scores.shape == (24, len(ids))
    assert (scores[:, -3:].argmax(axis=1) == np.arange(24) % 3).all()
    # It stands where the other items of its kind stand, above all others.
    others = np.array([[item[0] != str(user % 3) for item in ids[:-3]] for user in range(24)])
    best_of_others = np.where(others, scores[:, :-3], -np.inf).max(axis=1)
    assert (scores[:, -3:].max(axis=1) > best_of_others).all()


def test_what_was_served_before_is_served_as_before() -> None:
    model = trained()
    catalog = texts_of(["2-new", model.items.ids[3], "0-new", *model.items.ids[5:]])
    before, after = model.served(), extended(model, catalog)
    count = len(model.items)
    assert set(after.arrays) == set(before.arrays)
    for name, array in before.arrays.items():
        if name not in ("item_factors", "item_popularity"):
            assert after.arrays[name] is array or np.array_equal(after.arrays[name], array)
        assert after.arrays[name].dtype == array.dtype
    assert np.array_equal(after.arrays["item_factors"][:count], before.arrays["item_factors"])
    assert after.arrays["item_factors"].shape == (count + 2, 4)
    assert after.arrays["item_popularity"].tolist() == [*before.arrays["item_popularity"].tolist(), 0.0, 0.0]
    assert (after.kind, after.user_ids) == (before.kind, before.user_ids)
    assert after.item_ids == [*before.item_ids, "2-new", "0-new"]
    # Users about whom nothing is known get what is popular, and nothing new is.
    assert (scores_of(after, np.array([-1]))[0, count:] == 0).all()


def test_a_version_is_the_same_whoever_extends_it() -> None:
    model = trained()
    catalog = texts_of([*model.items.ids, "0-new", "1-new"])
    cold = ColdItems(Items(regularization=0.1, min_events=2))
    cold.extend(model.served(), catalog)
    model.update(make_batch([("u1", "0-9", 1.0, 99.0), ("u2", "2-1", 1.0, 99.0)]), StepId(0, 2))
    once = cold.extend(model.served(), catalog)
    afresh = extended(OnlineModel.from_state(model.settings, model.state(), model.step), catalog)
    assert {name: array.tobytes() for name, array in once.packed().items()} == {
        name: array.tobytes() for name, array in afresh.packed().items()
    }


def test_nothing_changes_without_teachers_or_without_news() -> None:
    model = trained()
    for catalog in (texts_of(["0-new", "1-new"]), texts_of(model.items.ids)):
        served = model.served()
        assert ColdItems(Items(regularization=0.1, min_events=2)).extend(served, catalog) is served


def test_a_kind_without_factors_is_refused() -> None:
    model = learn(OnlineModel(make_settings(model={"kind": "trend"})), clustered_batches(1, 20))
    with pytest.raises(ConfigError, match="items.path.*'trend'"):
        extended(model, texts_of(["0-new"]))


def test_a_part_of_the_texts_keeps_their_embeddings() -> None:
    texts = texts_of(["0-a", "1-b", "2-c"])
    part = texts.only(["2-c", "9-x", "0-a"])
    assert part.items.ids == ["2-c", "0-a"]
    assert np.array_equal(part.embeddings, texts.embeddings[[2, 0]])

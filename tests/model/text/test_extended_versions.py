"""A law for every kind and every choice of members: all that runs along items grows by the items that are added."""

from itertools import combinations

import numpy as np
import pytest

from recsys.config.sections import Items
from recsys.model.interactions.described import Described
from recsys.model.recommender import LEARNERS, OnlineModel
from recsys.model.text.cold_start import ColdItems, Texts
from recsys.serving import Ranker, Served, VersionScorer
from recsys.serving.axes import ITEMS, USERS, Axes, NewItem, declared_name
from recsys.serving.version import declared_axes
from tests.model.als.test_incremental_als import learn
from tests.model.helpers import DIMENSIONS, clustered_batches, make_settings

MEMBERS = ("als", "ncf", "cooccurrence", "repeat")
CHOICES = [("trend", *chosen) for size in range(5) for chosen in combinations(MEMBERS, size)]
CHOICES += [("trend", "content"), ("trend", "als", "content"), ("trend", "sequence"), ("trend", "als", "sequence")]
CASES = [*((kind, CHOICES[0]) for kind in LEARNERS if kind != "mixture"), *(("mixture", own) for own in CHOICES)]
WITH_VECTORS = {"als", "ncf", "content", "sequence"}
BATCHES = clustered_batches(4, 80)
NEW = 7


def served_of(kind: str, members: tuple[str, ...]) -> Served:
    settings = make_settings(
        model={
            "kind": kind,
            "factors": 4,
            "mixture": {"members": list(members), "half_lives": [20, 100], "candidates": 10},
        },
        recommend={"k": 5, "exclude_seen": False},
    )
    return learn(OnlineModel(settings), BATCHES).served()


def texts_of(served: Served) -> Texts:
    """Texts of all items, among them new ones."""
    ids = [*served.item_ids, *(f"new{number}" for number in range(NEW))]
    embeddings = np.random.default_rng(1).normal(size=(len(ids), 6)).astype(np.float32)
    return Texts.of(ids, embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))


def assert_declared(served: Served) -> None:
    """Every array is declared, and is as long along its axes as it says."""
    lengths = {USERS: len(served.user_ids), f"{USERS} + 1": len(served.user_ids) + 1, ITEMS: len(served.item_ids)}
    declared = declared_axes(served.kind)
    for name, array in served.arrays.items():
        axes = declared[declared_name(name)]
        assert array.ndim == len(axes.names), name
        for axis, length in zip(axes.names, array.shape, strict=True):
            assert length == lengths.get(axis, length), (name, axis)


@pytest.mark.parametrize(("kind", "members"), CASES, ids=lambda case: case if isinstance(case, str) else "+".join(case))
def test_all_arrays_are_declared_and_grow_with_the_items(kind: str, members: tuple[str, ...]) -> None:
    served = served_of(kind, members)
    assert_declared(served)
    if not WITH_VECTORS & (set(members) if kind == "mixture" else {kind}):
        return  # Without factors there is nothing that a text could stand for: refused, see test_cold_start.
    texts = texts_of(served)
    vectors = np.random.default_rng(2).integers(-9, 10, (len(texts.items), DIMENSIONS)).astype(np.int8)
    described = Described(texts.items, vectors)
    extended = ColdItems(Items(regularization=0.1, min_events=1)).extend(served, texts, described)
    for name in {"content.vectors", *(["vectors"] if kind == "content" else [])} & extended.arrays.keys():
        np.testing.assert_array_equal(extended.arrays[name][-NEW:], vectors[-NEW:])
    assert_declared(extended)
    assert len(extended.item_ids) == len(served.item_ids) + NEW
    assert extended.arrays.keys() == served.arrays.keys()
    for name, array in extended.arrays.items():
        assert array.dtype == served.arrays[name].dtype, name

    rows = np.arange(-1, len(served.user_ids))
    scores = VersionScorer(extended.kind, extended.arrays).score(rows)
    assert scores.shape == (len(rows), len(extended.item_ids))
    assert np.isfinite(scores).all()
    everything = np.full(len(rows), len(extended.item_ids))
    ranked = Ranker(extended.packed()).rank(rows, everything, np.zeros(len(rows), dtype=bool))
    assert (ranked.lengths == everything).all(), "every item has a place, cold ones too"


def test_what_a_cold_item_gets_is_what_its_scorer_declares() -> None:
    served = served_of("mixture", ("trend", *MEMBERS))
    extended = ColdItems(Items(regularization=0.1, min_events=1)).extend(served, texts_of(served))
    arrays = {name: array[-NEW:] for name, array in extended.arrays.items()}
    assert (arrays["trend.first"] == served.arrays["trend.clock"]).all()
    assert (arrays["cooccurrence.neighbors"] == 0).all()
    mean = served.arrays["ncf.neural.item_mlp"].mean(axis=0)
    np.testing.assert_allclose(arrays["ncf.neural.item_mlp"], np.tile(mean, (NEW, 1)), rtol=1e-5)
    for name in ("als.item_factors", "ncf.item_factors"):
        assert len(np.unique(arrays[name], axis=0)) == NEW, "by its own text"


def test_an_axis_of_items_says_what_a_new_one_gets_and_no_other_axis_does() -> None:
    for names, new_item in (((ITEMS,), None), ((USERS,), NewItem.ZERO), ((ITEMS, ITEMS), NewItem.ZERO)):
        with pytest.raises(ValueError, match="one axis 'items'"):
            Axes(names, new_item)

"""From a catalog of texts, or of vectors, to versions that recommend cold items."""

import os

import numpy as np
import pandas as pd
import pytest
from deltalake import write_deltalake

from recsys.catalogue import ItemVectors, NewItems, fit_adapter, read_catalog
from recsys.config import Settings
from recsys.config.sections import Items
from recsys.contracts import StepId
from recsys.errors import ConfigError, InputError
from recsys.item_texts import read_vectors, state_of
from recsys.model.recommender import OnlineModel
from recsys.model.text.encoder import Catalog
from recsys.serving import Ranker, VersionScorer
from recsys.serving.content import coded
from recsys.storage import adapter_folder
from tests.model.helpers import make_batch, make_settings

KINDS = ("a red wine from the south of France", "a power drill with two batteries", "a novel about a family at sea")
ROWS = [(f"{kind}-{number}", f"No. {number}", text) for kind, text in enumerate(KINDS) for number in range(12)]
NEW = [(f"{kind}-new", "New", text) for kind, text in enumerate(KINDS)]
FRAME = pd.DataFrame([*ROWS, *NEW], columns=["item_id", "title", "text"])


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def settings(tmp_path, encoder):
    def make(kind: str = "mixture", **items: object) -> Settings:
        FRAME.to_parquet(tmp_path / "items.parquet")
        section = {"path": str(tmp_path / "items.parquet"), "encoder": str(encoder), "regularization": 0.1, **items}
        return Settings.model_validate(
            {
                "device": "cpu",
                "model": {"kind": kind, "factors": 6},
                "items": section,
                "storage": {"root": str(tmp_path / "root")},
            }
        )

    return make


def learned(settings: Settings) -> OnlineModel:
    """Every user takes to items of one kind."""
    model = OnlineModel(settings)
    for day in range(3):
        rows = [
            (f"u{user}", f"{user % 3}-{number}", 1.0, float(day))
            for user in range(30)
            for number in range(12)
            if (user + number) % 3 == day
        ]
        model.update(make_batch(rows), StepId(0, day))
    return model


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        ("parquet", lambda frame, path: frame.to_parquet(path)),
        ("csv", lambda frame, path: frame.to_csv(path, index=False)),
        ("jsonl", lambda frame, path: frame.to_json(path, orient="records", lines=True)),
    ],
)
def test_every_format_gives_the_same_catalog(tmp_path, suffix, write):
    frame = pd.DataFrame(
        {
            "item_id": ["007", "b", None, "c", "d"],
            "title": ["Tea", None, "x", "  ", "NA"],
            "text": ["Green", "Milk", "y", None, None],
        }
    )
    path = tmp_path / f"items.{suffix}"
    write(frame, path)
    read = read_catalog(Items(path=str(path)))
    assert dict(zip(read.ids, read.texts, strict=True)) == {"007": "Tea. Green", "b": "Milk", "d": "NA"}


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("none.csv", None, "cannot read the catalog"),
        ("items.txt", "x", "neither a Delta table"),
        ("broken.parquet", "x", "cannot read the catalog"),
        ("other.csv", "id,title\n1,2\n", "no column 'item_id'"),
        (".", None, "cannot read the catalog"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, name, content, complaint):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=complaint) as caught:
        read_catalog(Items(path=str(tmp_path / name)))
    assert "\n" not in str(caught.value)


def test_attributes_are_part_of_the_text_and_a_delta_table_is_a_catalog(tmp_path):
    rows = {
        "item_id": ["a", "b"],
        "title": ["Tea", None],
        "text": [None, None],
        "brand": ["X", None],
        "price": [2.5, 3],
    }
    write_deltalake(tmp_path / "items", pd.DataFrame(rows))
    items = Items(path=str(tmp_path / "items"), columns={"attributes": ["brand", "price"]})
    assert read_catalog(items) == Catalog(["a", "b"], ["Tea. brand: X. price: 2.5", "price: 3.0"])
    before = state_of(items)
    write_deltalake(tmp_path / "items", pd.DataFrame(rows)[:1], mode="overwrite")
    assert read_catalog(items).ids == ["a"]
    assert state_of(items) != before


def test_vectors_take_the_place_of_texts(tmp_path):
    """Without an encoder; they are read again when the catalog changes."""
    path = tmp_path / "items.parquet"
    pd.DataFrame({"item_id": ["a", "b", "c", "a"], "v": [[1, 0], None, [0, 0], [3, 4]]}).to_parquet(path)
    items = {"path": str(path), "columns": {"title": None, "text": None, "vector": "v"}, "encoder": "none/such"}
    vectors = ItemVectors(make_settings(items=items))
    found = vectors.texts()
    assert dict(zip(found.items.ids, found.embeddings.tolist(), strict=True)) == {
        "a": [pytest.approx(0.6), pytest.approx(0.8)],
        "c": [0, 0],
    }
    described = vectors.described()
    assert vectors.described() is described
    np.testing.assert_array_equal(described.vectors, coded(found.embeddings))
    pd.DataFrame({"item_id": ["b"], "v": [[1.0, 2.0, 3.0]]}).to_parquet(path)
    os.utime(path, (1, 1))
    assert vectors.described().vectors.shape == (1, 3)


@pytest.mark.parametrize("values", [[[1.0], [1.0, 2.0]], ["x", "y"], [[1.0], [None]], [1.0, 2.0]])
def test_what_is_no_vector_is_one_line(tmp_path, values):
    path = tmp_path / "items.jsonl"
    pd.DataFrame({"item_id": ["a", "b"], "v": values}).to_json(path, orient="records", lines=True)
    columns = {"title": None, "text": None, "vector": "v"}
    if values == [[1.0], [None]]:
        _, found = read_vectors(Items(path=str(path), columns=columns))
        assert not coded(found)[1].any()
        return
    with pytest.raises(InputError, match="column 'v' of the catalog .* holds no lists of numbers"):
        read_vectors(Items(path=str(path), columns=columns))


def test_a_mixture_with_a_neural_member_recommends_new_items(settings):
    own = settings("mixture")
    every = own.model.mixture.model_copy(update={"members": ["als", "trend", "cooccurrence", "repeat", "ncf"]})
    own = own.model_copy(update={"model": own.model.model_copy(update={"mixture": every})})
    served = NewItems(own, 0).join(learned(own).served())
    rows = np.arange(30)
    ranked = Ranker(served.packed()).rank(rows, np.full(30, len(served.item_ids)), np.zeros(30, dtype=bool))
    assert (ranked.lengths == len(served.item_ids)).all()


@pytest.mark.parametrize("kind", ["als", "mixture"])
def test_a_new_item_is_recommended_to_those_who_like_its_kind(settings, kind):
    own = settings(kind)
    model = learned(own)
    served = NewItems(own, 0).join(model.served())
    ids = served.item_ids
    assert ids == [*model.items.ids, "0-new", "1-new", "2-new"]
    users = [f"u{number}" for number in range(30)]
    scores = VersionScorer(served.kind, served.arrays).score(model.users.lookup(users))
    assert scores.shape == (30, len(ids))
    assert np.isfinite(scores).all()
    best = scores[:, -3:].argmax(axis=1)
    # A mixture also draws rankings that know nothing of texts.
    assert (best == np.arange(30) % 3).mean() > (0.9 if kind == "als" else 0.5)


def test_without_a_catalog_versions_stay_as_they_are(settings):
    own = settings("als", path=None)
    arrays = learned(own).served()
    assert NewItems(own, 0).join(arrays) is arrays


def test_a_catalog_that_vanishes_for_a_moment_does_not_stop_the_stream(settings, tmp_path, caplog):
    own = settings("als")
    items, arrays = NewItems(own, 0), learned(own).served()
    before = items.join(arrays)
    (tmp_path / "items.parquet").unlink()
    after = items.join(arrays)
    assert "new items come from the last one that was read" in caplog.text
    assert {name: array.tobytes() for name, array in after.packed().items()} == {
        name: array.tobytes() for name, array in before.packed().items()
    }


def test_a_kind_without_factors_is_refused(settings):
    own = settings("trend")
    with pytest.raises(ConfigError, match="'trend'"):
        NewItems(own, 0).join(learned(own).served())


def test_the_adapter_of_an_epoch_is_used_by_its_versions(settings):
    own = settings("als", adapter={"enabled": True, "items": 36})
    model = learned(own)
    plain = NewItems(own, 1).join(model.served())
    assert fit_adapter(own, model, StepId(1, 2)) == adapter_folder(own.storage.root, 1)
    adapted = NewItems(own, 1).join(model.served())
    assert not np.array_equal(plain.arrays["item_factors"][-3:], adapted.arrays["item_factors"][-3:])
    other_generation = NewItems(own, 2).join(model.served())
    assert np.array_equal(plain.arrays["item_factors"], other_generation.arrays["item_factors"])

"""The bench of new items: what it lets a batch see, whom it counts, and that text is what finds them."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from bench.quality import cold_start
from bench.quality.cold_start import ALL, AMONG_NEW, NEW, PLAIN, POPULAR, TEXT
from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.model.interactions.vocab import Vocabulary
from recsys.model.recommender import OnlineModel
from recsys.model.text.cold_start import Texts
from tests.model.helpers import make_batch

KINDS, BATCHES = 3, 10


def stream() -> list[InteractionBatch]:
    """Users of three kinds; in every batch three new items of each kind, of which all users of it take two."""
    generator = np.random.default_rng(0)
    made = []
    for number in range(BATCHES):
        rows = []
        for user in range(30):
            new = [f"{user % KINDS}-{number}-{item}" for item in generator.choice(3, 2, replace=False)]
            old = [f"{user % KINDS}-{generator.integers(max(number, 1))}-{item}" for item in range(3)]
            rows += [(f"u{user}", item, 1.0, float(number)) for item in (*new, *old)]
        made.append(make_batch(rows))
    return made


def texts_of(ids: Sequence[str]) -> Texts:
    """A text states the kind of an item, plus a little noise."""
    noise = [np.random.default_rng([int(part) for part in item.split("-")]).normal(size=8) for item in ids]
    values = np.eye(8)[[int(item[0]) for item in ids]] + 0.05 * np.array(noise)
    return Texts.of(ids, (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32))


def every_item() -> list[str]:
    return [f"{kind}-{number}-{item}" for kind in range(KINDS) for number in range(BATCHES) for item in range(3)]


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings.model_validate(
        {
            "model": {"kind": "als", "factors": 4},
            "items": {"regularization": 0.1},
            "recommend": {"k": 3},
            "device": "cpu",
        }
    )


@pytest.fixture(scope="module")
def figures(settings: Settings) -> pd.DataFrame:
    return cold_start.run("test", stream(), texts_of(every_item()), settings, horizon=2, every=1)


def test_texts_find_cold_items(figures: pd.DataFrame) -> None:
    means = cold_start.summary(figures)
    assert figures["batch"].unique().tolist() == list(range(2, BATCHES))
    for method in (PLAIN, POPULAR):
        assert means.loc[(NEW, method), "recall"] == 0
    assert means.loc[(AMONG_NEW, TEXT), "recall"] > 2 * means.loc[(AMONG_NEW, TEXT), "chance"]
    assert means.loc[(NEW, TEXT), "recall"] > 0.3
    assert means.loc[(ALL, TEXT), "ndcg"] > means.loc[(ALL, PLAIN), "ndcg"]


def test_texts_of_what_comes_later_do_not_leak(settings: Settings, figures: pd.DataFrame) -> None:
    shown = [item for item in every_item() if int(item.split("-")[1]) < 6]
    fewer = cold_start.run("test", stream(), texts_of(shown), settings, horizon=2, every=1)
    until = {"batch": range(5)}
    kept = [frame[frame.isin(until)["batch"]].drop(columns="seconds") for frame in (figures, fewer)]
    pd.testing.assert_frame_equal(*kept)
    assert not figures.drop(columns="seconds").equals(fewer.drop(columns="seconds"))


def test_fewer_measured_batches_are_some_of_all(settings: Settings, figures: pd.DataFrame) -> None:
    some = cold_start.run("test", stream(), texts_of(every_item()), settings, horizon=2, every=3)
    expected = figures[figures["batch"].isin([2, 5, 8])].reset_index(drop=True)
    pd.testing.assert_frame_equal(some.drop(columns="seconds"), expected.drop(columns="seconds"))


def test_items_arrive_once() -> None:
    batches = [
        make_batch([("u", "b", 1, 0), ("v", "a", 1, 0)]),
        make_batch([]),
        make_batch([("u", "c", 1, 0), ("u", "a", 1, 0)]),
    ]
    assert cold_start.arrivals(batches) == [["b", "a"], [], ["c"]]


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_whom_and_what_is_counted(exclude_seen: bool) -> None:
    model = OnlineModel(Settings.model_validate({"model": {"factors": 2}, "recommend": {"exclude_seen": exclude_seen}}))
    model.update(make_batch([("u", "a", 1, 0), ("u", "b", 1, 0), ("v", "a", 1, 0)]), StepId(0, 0))
    batch = make_batch(
        [("u", "a", 1, 1), ("u", "new", 1, 1), ("v", "b", 1, 1), ("v", "z", 1, 1), ("w", "a", 1, 1), ("x", "b", -1, 1)]
    )
    items = Vocabulary(["a", "b", "new"])
    asked = cold_start.wanted(model, items, batch, np.ones(len(batch), dtype=bool))
    expected = {"u": ({"new"} if exclude_seen else {"a", "new"}, 0), "v": ({"b"}, 1), "w": ({"a"}, 0)}
    assert asked.users == ["u", "v", "w"]
    names, owners = np.array(items.ids), asked.relevant.lists.owners
    for place, (own, missed) in enumerate(expected.values()):
        assert set(names[asked.relevant.items[owners == place]].tolist()) == own
        assert asked.relevant.unknown[place] == missed
    seen = [{"a", "b"}, {"a"}, set()] if exclude_seen else [set()] * 3
    assert [set(names[row].tolist()) for row in asked.seen] == seen
    fresh = cold_start.wanted(model, items, batch, np.array([item == "new" for item in batch.item_ids]))
    assert fresh.users == ["u"]
    assert names[fresh.relevant.items].tolist() == ["new"]


def test_means_are_over_users(figures: pd.DataFrame) -> None:
    rows = figures[(figures["group"] == NEW) & (figures["method"] == TEXT)]
    expected = (rows["recall"] * rows["users"]).sum() / rows["users"].sum()
    assert cold_start.summary(figures).loc[(NEW, TEXT), "recall"] == pytest.approx(expected)
    assert cold_start.summary(figures).loc[(NEW, TEXT), "users"] == rows["users"].sum()


def test_the_last_line_is_the_mean_and_the_worst(figures: pd.DataFrame) -> None:
    worse = figures.copy()
    worse.loc[(worse["group"] == ALL) & (worse["method"] == TEXT), "ndcg"] /= 4
    worse.loc[(worse["group"] == NEW) & (worse["method"] == TEXT), "recall"] = 0
    means = cold_start.summary(figures)
    found, ratio = means.loc[(NEW, TEXT), "recall"], means.loc[(ALL, TEXT), "ndcg"] / means.loc[(ALL, PLAIN), "ndcg"]
    line = cold_start.last_line({"a": figures, "b": worse})
    assert line == f"cold_recall_with={found / 2:.4f} cold_recall_without=0.0000 all_ndcg_ratio={ratio / 4:.4f}"
    assert "among new" in cold_start.table("films", figures)


def test_the_ratio_has_an_error_and_a_view_without_the_busiest_batch() -> None:
    columns = ["batch", "group", "method", "users", "ndcg"]
    rows = [
        (batch, group, method, users, ndcg)
        for batch, users, gain in ((0, 10, 1.0), (1, 30, 2.0), (2, 10, 1.0))
        for group in (NEW, ALL, AMONG_NEW)
        for method, ndcg in ((TEXT, 0.1 * gain), (PLAIN, 0.1), (POPULAR, 0.1))
    ]
    made = pd.DataFrame(rows, columns=columns).assign(recall=0.5, chance=0.1, seconds=0.0)
    value, error = cold_start.ratio(made)
    assert value == pytest.approx(8 / 5)
    assert error == pytest.approx(np.sqrt(0.6**2 + (6 - 1.6 * 3) ** 2 + 0.6**2) / 5)
    assert cold_start.busiest(made) == 1
    assert cold_start.ratio(made[made["batch"] != 1]) == (pytest.approx(1.0), pytest.approx(0.0))
    assert "without batch 1 " in cold_start.table("films", made)


def test_the_picture_is_drawn(figures: pd.DataFrame, tmp_path: Path) -> None:
    path = cold_start.picture(dict.fromkeys(cold_start.WITH_TEXT, figures), tmp_path / "docs" / "picture.png")
    assert matplotlib.image.imread(path).shape[1] > 1_000


def test_a_catalog_is_read_from_the_folder(tmp_path: Path) -> None:
    frame = pd.DataFrame({"item_id": ["1", "2"], "title": ["video 1", "video 2"], "text": ["tags 3", "tags 4"]})
    for name in ("kuairand_pure_2w", "online_retail_ii"):
        frame.to_parquet(tmp_path / f"{name}_items.parquet")
    assert cold_start.read_catalog(tmp_path, "kuairand_pure_2w").texts == ["tags 3", "tags 4"]
    assert cold_start.read_catalog(tmp_path, "online_retail_ii").texts == ["video 1. tags 3", "video 2. tags 4"]
    with pytest.raises(SystemExit, match="no file"):
        cold_start.read_catalog(tmp_path, "movietweetings_142k")

"""The front door: frames in, frames out, the same model from the same events, and one clear line for what cannot be."""

import copy
import json
import math
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import recsys
from recsys import door, evaluate
from recsys.errors import ConfigError, InputError, InputWarning
from recsys.model.recommender import OnlineModel

SMALL = {"model.factors": 4, "model.rebuild_sweeps": 2, "device": "cpu"}
START = 1_714_521_600


def history(events: int = 3_000, seed: int = 0) -> pd.DataFrame:
    """Three groups of users and of items, an event a minute."""
    generator = np.random.default_rng(seed)
    user = np.minimum(generator.zipf(1.3, events), 90)
    item = user % 3 + 3 * (np.minimum(generator.zipf(1.3, events), 40) - 1)
    times = pd.Timestamp("2024-05-01", tz="UTC") + pd.to_timedelta(np.arange(events), unit="min")
    return pd.DataFrame({"user_id": user, "item_id": item, "event_type": "view", "event_time": times})


def arrays(model: recsys.Recommender) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in model._model.state().items()}


@pytest.fixture(scope="module")
def fitted() -> recsys.Recommender:
    return recsys.fit(history(), SMALL)


# --- what comes in ---------------------------------------------------------------------------------------------------


class Capsule:
    """A frame of a library that nobody has heard of."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


FRAMES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda frame: frame,
    "polars": lambda frame: pl.from_pandas(frame),
    "pyarrow": lambda frame: pa.Table.from_pandas(frame),
    "arrow capsule": lambda frame: Capsule(pa.Table.from_pandas(frame, preserve_index=False)),
    "columns": lambda frame: {name: frame[name].tolist() for name in frame},
    "records": lambda frame: frame.to_dict("records"),
    "text": lambda frame: frame.astype(str),
    "categories": lambda frame: frame.astype({"user_id": "category", "item_id": str}).astype({"item_id": "category"}),
    "seconds": lambda frame: frame.assign(event_time=frame["event_time"].astype("int64") // 10**9),
    "milliseconds": lambda frame: frame.assign(event_time=frame["event_time"].astype("int64") / 1e6),
    "without a zone": lambda frame: frame.assign(event_time=frame["event_time"].dt.tz_localize(None)),
    "another zone": lambda frame: frame.assign(event_time=frame["event_time"].dt.tz_convert("Asia/Tokyo")),
    "shuffled": lambda frame: frame.sample(frac=1, random_state=3),
    "without a type": lambda frame: frame.drop(columns="event_type"),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_every_frame_with_the_same_events_gives_the_same_model(fitted: recsys.Recommender, kind: str) -> None:
    frame = FRAMES[kind](history())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert arrays(recsys.fit(frame, SMALL)) == arrays(fitted)


def test_a_frame_of_spark_gives_the_same_model(spark: Any, fitted: recsys.Recommender) -> None:
    frame = spark.createDataFrame(pa.Table.from_pandas(history()).cast(pa.schema(spark_schema())))
    assert arrays(recsys.fit(frame, SMALL)) == arrays(fitted)


def spark_schema() -> list[tuple[str, pa.DataType]]:
    ids = [("user_id", pa.int64()), ("item_id", pa.int64())]
    return [*ids, ("event_type", pa.string()), ("event_time", pa.timestamp("us", "UTC"))]


def test_columns_with_other_names_are_mapped(fitted: recsys.Recommender) -> None:
    renamed = history().rename(columns={"user_id": "userId", "event_time": "timestamp"})
    names = {"source.columns.user_id": "userId", "source.columns.event_time": "timestamp"}
    assert arrays(recsys.fit(renamed, SMALL | names)) == arrays(fitted)


def test_of_events_with_the_same_id_the_earliest_counts() -> None:
    frame = history().assign(event_id=[f"e{number}" for number in range(3_000)])
    later = frame.assign(event_time=frame["event_time"] + pd.Timedelta("1h"), item_id=7)
    both = pd.concat([later.iloc[::5], frame]).sample(frac=1, random_state=1)
    with pytest.warns(InputWarning, match="^600 of 3,600 events are left out: 600 duplicate event_id$"):
        model = recsys.fit(both, SMALL)
    assert arrays(model) == arrays(recsys.fit(frame, SMALL))


def test_bad_rows_are_counted_by_reason_and_left_out(fitted: recsys.Recommender) -> None:
    time = pd.Timestamp("2024-05-01", tz="UTC")
    rows = [
        (np.nan, "i", "view", time),
        (None, "i", "view", time),
        ("u", " ", "view", time),
        ("u", "i", "sneeze", time),
        ("u", "i", "view", pd.NaT),
        ("u", "i", "view", pd.Timestamp("2999-01-01", tz="UTC")),
    ]
    bad = pd.DataFrame(rows, columns=["user_id", "item_id", "event_type", "event_time"])
    expected = (
        "6 of 3,006 events are left out: 2 missing user_id, 1 missing item_id, 1 unknown event_type, "
        "1 missing event_time, 1 event_time in the future"
    )
    good = history().astype({"user_id": str, "item_id": str})
    with pytest.warns(InputWarning) as caught:
        model = recsys.fit(pd.concat([bad, good]), SMALL)
    assert [str(warning.message) for warning in caught] == [expected]
    assert caught[0].filename == __file__
    assert arrays(model) == arrays(fitted)


def test_missing_ids_do_not_make_decimals_of_the_others(fitted: recsys.Recommender) -> None:
    frame = pd.concat([history(), pd.DataFrame([{"item_id": 1}])])
    assert frame["user_id"].dtype == float
    with pytest.warns(InputWarning, match="1 missing user_id"):
        assert arrays(recsys.fit(frame, SMALL)) == arrays(fitted)


ONE = {"user_id": ["u"], "item_id": ["i"], "event_time": [START]}
REFUSED: dict[str, tuple[Any, str]] = {
    "nothing": ([], "the events are empty"),
    "no row": (history(0), "the events are empty"),
    "no user": (history().drop(columns="user_id"), "no column 'user_id' for source.columns.user_id; it has item_id"),
    "no item": (history().drop(columns="item_id"), "no column 'item_id'"),
    "no time": (history().drop(columns="event_time"), "no column 'event_time'"),
    "two columns": (pa.table([["u"], ["v"], ["i"], [1]], ["user_id", "user_id", "item_id", "event_time"]), "2 columns"),
    "true ids": (ONE | {"user_id": [True]}, "column 'user_id' holds bool: cast it to text or to whole numbers"),
    "decimal ids": (ONE | {"item_id": [1.5]}, "column 'item_id' holds numbers with decimals"),
    "lists of ids": (ONE | {"item_id": [["i"]]}, "column 'item_id' holds list<item: string>"),
    "times of ids": (ONE | {"item_id": [datetime(2024, 5, 1)]}, "column 'item_id' holds timestamp"),
    "true times": (ONE | {"event_time": [True]}, "column 'event_time' holds bool: give timestamps, ISO 8601"),
    "true values": (ONE | {"value": [True]}, "column 'value' holds bool: cast it to numbers"),
    "all bad": (history().assign(event_type="sneeze"), "none of the 3,000 events .*: 3,000 unknown event_type"),
    "mixed ids": (history(2).assign(user_id=["a", 1]), "cannot read the events as Arrow"),
    "a path": ("events.csv", "the events are of type str: give a pandas, polars"),
    "a number": (7, "the events are of type int"),
    "words": (["u1", "u2"], "the events are of type list"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_learned_from_is_refused_in_one_line(name: str) -> None:
    events, message = REFUSED[name]
    for use in (recsys.fit, evaluate.prequential):
        with pytest.raises(InputError, match=message) as caught:
            use(events)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.factor": 3}, "unknown setting 'model.factor'"),
        ({"model.factors": 0}, "setting 'model.factors'"),
        ({"model": {"factors": 8}, "model.kind": "als"}, None),
        ({"seed": 1, "seed.x": 2}, "setting 'seed"),
        ({"model.kind": "als", "model": {"factors": 8}}, "setting 'model' is set as a whole, and in parts too"),
        ("conf/local.yaml", "not str"),
    ],
)
def test_settings_are_checked(settings: Any, message: str | None) -> None:
    if message is None:
        given = copy.deepcopy(settings)
        assert recsys.fit(ONE, settings).settings.model.kind == "als"
        assert settings == given
        return
    with pytest.raises(ConfigError, match=message):
        recsys.fit(ONE, settings)


@pytest.mark.parametrize("kind", ["mixture", "als", "trend", "cooccurrence", "repeat", "ncf", "sequence"])
@pytest.mark.parametrize("events", ["one user", "one instant", "one event"])
def test_little_is_enough_for_every_kind(kind: str, events: str) -> None:
    frame = history(400)
    if events == "one user":
        frame["user_id"] = 1
    elif events == "one instant":
        frame["event_time"] = frame["event_time"].iloc[0]
    else:
        frame = frame.iloc[:1]
    model = recsys.fit(frame, SMALL | {"model.kind": kind, "recommend.exclude_seen": False})
    lists = model.recommend([1, "nobody"], k=3)
    wanted = min(3, frame["item_id"].nunique())
    assert lists["user_id"].tolist() == ["1"] * wanted + ["nobody"] * wanted
    assert lists["rank"].tolist() == [*range(1, wanted + 1)] * 2
    assert set(lists["item_id"]) <= set(frame["item_id"].astype(str))
    assert np.isfinite(lists["score"]).all()
    model.update(history(100, seed=2))
    assert len(model.recommend(2, k=3)) == 3


def test_the_reranker_is_trained_and_not_left_as_it_began(fitted: recsys.Recommender) -> None:
    start = OnlineModel(fitted.settings).learner.state()
    end = fitted._model.learner.state()
    assert not np.array_equal(start["weights"], end["weights"])


# --- what comes out --------------------------------------------------------------------------------------------------


def test_recommendations_are_the_models_own_lists(fitted: recsys.Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    users = ["3", "unknown", "1", "3"]
    frame = fitted.recommend(users, k=4)
    assert frame.columns.tolist() == ["user_id", "rank", "item_id", "score"]
    lists = fitted._model.recommend(users, 4)
    assert list(zip(frame["item_id"], frame["score"], strict=True)) == [pair for own in lists for pair in own]
    assert frame["user_id"].tolist() == [user for user, own in zip(users, lists, strict=True) for _ in own]
    assert all(own["score"].is_monotonic_decreasing for _, own in frame.iloc[:8].groupby("user_id"))
    monkeypatch.setattr(door, "_SCORES_AT_ONCE", 1)
    pd.testing.assert_frame_equal(fitted.recommend(users, k=4), frame)
    seen = history()
    left = frame.merge(seen.astype(str), on=["user_id", "item_id"])
    assert left.empty
    assert len(fitted.recommend("unknown")) == fitted.settings.recommend.k


@pytest.mark.parametrize(
    "users", [[1, 2], ("1", "2"), np.array([1, 2]), pd.Series([1.0, 2.0]), pl.Series(["1", "2"]), pa.array([1, 2])]
)
def test_users_come_as_any_column_of_ids(fitted: recsys.Recommender, users: Any) -> None:
    pd.testing.assert_frame_equal(fitted.recommend(users, k=2), fitted.recommend(["1", "2"], k=2))


def test_questions_without_an_answer(fitted: recsys.Recommender) -> None:
    assert fitted.recommend([]).columns.tolist() == ["user_id", "rank", "item_id", "score"]
    assert len(fitted.recommend([])) == 0
    for users in ([None], [1.5], [np.nan], [True], None, history()):
        with pytest.raises(InputError, match=r"user_ids is a|an id is text or a whole number"):
            fitted.recommend(users)
    for k in (0, -1, 2.5, True, "3"):
        with pytest.raises(InputError, match="k is a whole number from 1 on"):
            fitted.recommend(1, k=k)
        with pytest.raises(InputError, match="k is a whole number from 1 on"):
            fitted.similar_items(1, k=k)
    with pytest.raises(InputError, match="the model knows no item 'tea'"):
        fitted.similar_items("tea")


@pytest.mark.parametrize("kind", ["mixture", "als", "ncf"])
def test_similar_items_are_nearest_by_the_cosine_of_their_factors(kind: str) -> None:
    neural = {"model.neural.mlp_factors": 4, "model.neural.layers": [8], "model.neural.rebuild_epochs": 1}
    model = recsys.fit(history(1_500), SMALL | neural | {"model.kind": kind})
    inner: OnlineModel = model._model
    factors = (inner.learner.teacher if kind == "ncf" else inner.als).item_factors.cpu().numpy().astype(float)
    item = inner.items.ids[4]
    found = model.similar_items(item, k=5)
    assert found.columns.tolist() == ["rank", "item_id", "score"]
    cosines = {
        other: factors[4] @ row / (np.linalg.norm(factors[4]) * np.linalg.norm(row))
        for other, row in zip(inner.items.ids, factors, strict=True)
        if other != item and row.any()
    }
    best = sorted(cosines, key=lambda other: -cosines[other])[:5]
    assert found["item_id"].tolist() == best
    assert found["score"].tolist() == pytest.approx([cosines[other] for other in best])


def test_similar_items_of_a_model_that_counts_are_those_that_followed() -> None:
    rows = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("c", "x"), ("c", "z")]
    users, items = zip(*rows, strict=True)
    events = {"user_id": users, "item_id": items, "event_time": [START + number for number in range(6)]}
    found = recsys.fit(events, SMALL | {"model.kind": "cooccurrence"}).similar_items("x")
    assert found["item_id"].tolist() == ["y", "z"]
    assert found["score"].tolist() == pytest.approx([2 / 3, 1 / 3], rel=1e-3)


@pytest.mark.parametrize("kind", ["trend", "repeat"])
def test_a_model_that_compares_no_items_says_so(kind: str) -> None:
    with pytest.raises(InputError, match="set model.kind to mixture, als, ncf or cooccurrence"):
        recsys.fit(ONE, SMALL | {"model.kind": kind}).similar_items("i")


def test_without_pandas_an_arrow_table_comes_out(fitted: recsys.Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fitted.recommend([1, 2], k=3)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    table = fitted.recommend([1, 2], k=3)
    assert isinstance(table, pa.Table)
    pd.testing.assert_frame_equal(table.to_pandas(), expected)


# --- it goes on ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mixture", "als", "cooccurrence"])
def test_a_saved_model_goes_on_as_if_nothing_had_happened(tmp_path: Path, kind: str) -> None:
    settings = SMALL | {"model.kind": kind, "weights": {"view": {"weight": 2, "value": "log"}, "x": -1.0}}
    frame = history(2_400).assign(value=3.0)
    model = recsys.fit(frame.iloc[:2_000], settings)
    model.save(tmp_path / "deep" / "folder")
    loaded = recsys.load(str(tmp_path / "deep" / "folder"))
    assert loaded.settings == model.settings
    assert repr(loaded) == repr(model)
    for one in (model, loaded):
        one.update(frame.iloc[2_000:])
    assert arrays(loaded) == arrays(model)
    pd.testing.assert_frame_equal(loaded.recommend([1, 2, 3]), model.recommend([1, 2, 3]))
    assert set(model._model.items.ids) == set(frame["item_id"].astype(str))


def test_an_update_learns_batch_by_batch_after_what_was_there(fitted: recsys.Recommender, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    model = recsys.load(tmp_path)
    before = model._model.step
    more = history(2_500, seed=5).assign(item_id=lambda frame: frame["item_id"] + 1_000)
    model.update(more)
    after = model._model.step
    assert before is not None
    assert after is not None
    assert (after.generation, after.batch_id) == (before.generation, before.batch_id + 3)
    assert "1001" in model._model.items.ids


def test_passwords_are_not_saved(tmp_path: Path) -> None:
    secret = {"spark": {"k": "hush"}, "source.options": {"k": "hush"}, "mlflow.tracking_uri": "postgresql://u:hush@h/d"}
    recsys.fit(ONE, SMALL | secret).save(tmp_path)
    assert all(b"hush" not in file.read_bytes() for file in tmp_path.iterdir())
    assert recsys.load(tmp_path).settings.spark == {}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "settings.json").unlink(), "holds no saved model .settings.json is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no saved model .model.safetensors is missing"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "cannot read the snapshot"),
        (lambda folder: (folder / "settings.json").write_text("{"), "cannot read .*settings.json"),
        (lambda folder: (folder / "settings.json").write_text('{"modell": 1}'), "unknown setting 'modell'"),
        (lambda folder: (folder / "settings.json").write_text("{}"), "was made with other settings"),
    ],
)
def test_a_folder_that_holds_no_model_is_refused(
    fitted: recsys.Recommender, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    fitted.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        recsys.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_in_the_way_of_the_folder_is_named(fitted: recsys.Recommender, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot save the model in .*file"):
        fitted.save(tmp_path / "file")
    with pytest.raises(InputError, match="holds no saved model"):
        recsys.load(tmp_path / "nowhere")


def test_the_day_in_the_name_of_a_model_is_its_newest_event(fitted: recsys.Recommender) -> None:
    assert math.isclose(fitted._model.history.latest_time, datetime(2024, 5, 3, 1, 59, tzinfo=UTC).timestamp())
    assert repr(fitted).endswith("events until 2024-05-03)")


def test_items_with_texts_are_shown_with_their_titles(tmp_path: Path) -> None:
    """In a notebook too, where a hostile title stays text."""
    title, catalog = "Tea <script>alert(1)</script>", tmp_path / "items.csv"
    frame = history()
    pd.DataFrame({"item_id": frame["item_id"].unique()[1:], "title": title, "text": "tea"}).to_csv(catalog, index=False)
    lists = recsys.fit(frame, {**SMALL, "items.path": str(catalog)}).recommend([1, 2], k=5)
    assert lists.columns.tolist() == ["user_id", "rank", "item_id", "title", "score"]
    assert set(lists["title"].dropna()) == {title}
    shown = lists._repr_html_()
    assert "<script>" not in shown
    assert "Tea &lt;script&gt;" in shown


def test_a_fitted_model_answers_as_a_registered_one_does() -> None:
    model = recsys.fit(history(2_000), SMALL)
    users = ["1", "2", "stranger"]
    plain = model.recommend(users, k=5)
    same = model.recommend(users, k=5, exclude_seen=True)
    pd.testing.assert_frame_equal(plain, same)
    told = model.recommend(users[:2], k=5, explain=True)
    pd.testing.assert_frame_equal(told.drop(columns="explanation"), plain[plain["user_id"] != "stranger"])
    for score, text in zip(told["score"], told["explanation"], strict=True):
        assert sum(json.loads(text)["contributions"].values()) == pytest.approx(score, abs=1e-5)
    best = plain["item_id"].tolist()[:3]
    assert not set(best) & set(model.recommend("1", k=20, exclude_items=best)["item_id"])
    assert model.recommend("1", candidates=best)["item_id"].tolist() == best
    visited = model.recommend("stranger", k=5, recent_items=best)
    assert visited["item_id"].tolist() != plain[plain["user_id"] == "stranger"]["item_id"].tolist()
    scored = model.score("1", [*best, "no item"])["score"]
    np.testing.assert_allclose(scored[:3], plain["score"][:3], rtol=1e-6)
    assert np.isnan(scored[3])
    model.update(history(50, seed=9))
    assert (
        model.recommend("u1", k=5, exclude_seen=True)["item_id"].tolist()
        == model.recommend("u1", k=5)["item_id"].tolist()
    )
    for wrong, line in (
        (lambda: model.score(["a", "b"], ["c"]), "2 user_ids and 1 item_ids"),
        (lambda: model.recommend("1", candidates=[1.5]), "an id is text"),
    ):
        with pytest.raises(InputError, match=line):
            wrong()


def test_a_model_that_compares_items_is_told_of_them_by_the_catalog(tmp_path):
    """When it is fitted, when it is updated, and when it is measured."""
    catalog = pd.DataFrame({"item_id": list("abcd"), "vector": [[1.0, 0.1], [1.0, -0.1], [-1.0, 0.2], [0.0, 1.0]]})
    catalog.to_parquet(tmp_path / "items.parquet")
    settings = {
        "items.path": str(tmp_path / "items.parquet"),
        "items.columns": {"title": None, "text": None, "vector": "vector"},
        "model.mixture.members": ["trend", "content"],
        "recommend.exclude_seen": False,
    }
    events = {"user_id": ["u1", "u2", "u3"] * 8, "item_id": list("abc") * 8, "event_time": range(10**9, 10**9 + 24)}
    model = recsys.fit(events, settings)
    assert model._model.content.state()["vectors"].any(axis=1).tolist() == [True] * 3
    model.update([{"user_id": "u1", "item_id": "d", "event_time": 10**9 + 99}])
    assert model._model.content.state()["vectors"].any(axis=1).tolist() == [True] * 4
    assert "content" in recsys.evaluate.prequential(events, settings, batches=5).methods

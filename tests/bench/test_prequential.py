"""The prequential bench: its streams, whom it measures, what it compares, and that it never looks ahead."""

import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from bench.harness import streams
from bench.quality import prequential
from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.errors import InputError
from recsys.model.evaluation.prequential import evaluate
from recsys.model.frozen import FrozenModel
from recsys.model.recommender import OnlineModel
from tests.stream.test_plots import colors

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DAY = 86_400.0


def generated(events: int, seed: int = 0, users: int = 60, items: int = 90) -> pd.DataFrame:
    """Three groups of taste, popular and rare users and items, an event an hour."""
    generator = np.random.default_rng(seed)
    user = np.minimum(generator.zipf(1.3, events), users)
    item = user % 3 + 3 * (np.minimum(generator.zipf(1.3, events), items // 3) - 1)
    return pd.DataFrame(
        {
            "user": [f"u{code}" for code in user],
            "item": [f"i{code}" for code in item],
            "weight": 1.0,
            "time": 3600.0 * np.arange(events),
        }
    )


def small_settings(**sections: dict[str, object]) -> Settings:
    model = {"factors": 4, "rebuild_sweeps": 2}
    return Settings.model_validate({"device": "cpu", "model": model, "recommend": {"exclude_seen": False}, **sections})


# --- streams ---------------------------------------------------------------------------------------------------------


@examples(deadline=None)
@given(
    events=st.lists(
        st.tuples(st.sampled_from("abü"), st.sampled_from("xyé"), st.integers(-3, 3), st.integers(0, 9)), min_size=1
    )
)
def test_a_batch_sums_what_a_user_did_with_an_item(events: list[tuple[str, str, int, int]]) -> None:
    expected = defaultdict(list)
    for user, item, weight, time in events:
        expected[user, item].append((weight, time))
    batch = streams.to_batch(pd.DataFrame(events, columns=["user", "item", "weight", "time"]))
    pairs = list(zip(batch.user_ids, batch.item_ids, strict=True))
    assert pairs == sorted(expected, key=lambda pair: (pair[0].encode(), pair[1].encode()))
    assert batch.weights.tolist() == [sum(weight for weight, _ in expected[pair]) for pair in pairs]
    assert batch.events.tolist() == [len(expected[pair]) for pair in pairs]
    assert batch.times.tolist() == [max(time for _, time in expected[pair]) for pair in pairs]


def test_batches_are_cut_in_the_order_of_the_events() -> None:
    events = generated(25)
    assert [batch.times.max() / 3600 for batch in streams.batches(events, 10)] == [9, 19, 24]


def test_of_the_stored_streams_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    kinds = ["impression", "click", "purchase", "purchase", "return", "rating"]
    rows = {"user_id": list("abcdef"), "item_id": list("uvwxyz"), "event_type": kinds, "value": [1, 1, 2, 0, -1, 9.0]}
    frame = pd.DataFrame(rows).assign(ts=pd.Timestamp("2024-05-01", tz="UTC") + pd.to_timedelta(range(6), unit="h"))
    expected = {
        "movietweetings_142k": "abcdef",
        "ml_latest_small": "abcdef",
        "kuairand_pure_2w": "b",
        "online_retail_ii": "c",
    }
    assert expected.keys() | {streams.DEMO} == streams.STREAMS.keys()
    for name, users in expected.items():
        with pytest.raises(SystemExit, match=f"no file .*{name}.parquet"):
            streams.STREAMS[name].events(tmp_path)
        frame.to_parquet(tmp_path / f"{name}.parquet")
        events = streams.STREAMS[name].events(tmp_path)
        assert "".join(events["user"]) == users
        assert (events["weight"] == 1).all()
        assert events["time"].tolist() == [1714521600 + 3600 * "abcdef".index(user) for user in users]


# --- files of a user's own -------------------------------------------------------------------------------------------

LINES = [
    {"who": "b", "what": 7, "kind": "watch", "much": 3, "when": "2024-05-02T00:00:00Z"},
    {"who": "a", "what": 7, "kind": "buy", "much": None, "when": 1714521600},
    {"who": "a", "what": 8, "kind": "rate", "much": -2.5, "when": 1714521600000},
    {"who": " ", "what": 8, "kind": "buy", "much": 1, "when": 1714521600},
    {"who": "a", "what": 8, "kind": "watch", "much": None, "when": 1714521600},
    {"who": "c", "what": 9, "kind": "sneeze", "much": 1, "when": "soon"},
]
OWN = {
    "source": {
        "columns": {"user_id": "who", "item_id": "what", "event_type": "kind", "value": "much", "event_time": "when"}
    },
    "weights": {"watch": {"weight": 2, "value": "log"}, "buy": 4, "rate": {"weight": 1, "value": "multiply"}},
}
WEIGHED = [("a", "7", 4.0), ("a", "8", -2.5), ("b", "7", 4.0)]
LEFT_OUT = {
    "missing user_id": 1,
    "unknown event_type": 1,
    "missing or unparsable event_time": 1,
    "value missing, not a number or out of range": 1,
}


def as_parquet(path: Path) -> None:
    """Typed columns: a number for each item, a moment for each time."""
    frame = pd.DataFrame(LINES)
    moments = [
        pd.to_datetime(line["when"], unit=unit, utc=True, errors="coerce")
        for line, unit in zip(LINES, [None, "s", "ms", "s", "s", None], strict=True)
    ]
    frame.assign(when=moments, much=frame["much"].astype(float)).to_parquet(path)


WRITERS: dict[str, Callable[[Path], object]] = {
    "e.jsonl": lambda path: path.write_text("\n".join(json.dumps(line) for line in LINES)),
    "e.json.gz": lambda path: path.write_bytes(gzip.compress("\n".join(map(json.dumps, LINES)).encode())),
    "e.csv": lambda path: pd.DataFrame(LINES, dtype=object).to_csv(path, index=False),
    "e.parquet": as_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_events(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    for path in (tmp_path / name, tmp_path):
        events, left_out = streams.read_events(path, Settings.model_validate(OWN))
        assert list(events[["user", "item", "weight"]].itertuples(index=False, name=None)) == WEIGHED
        assert events["time"].tolist() == [1714521600, 1714521600, 1714608000]
        assert left_out == LEFT_OUT


def test_an_event_that_comes_twice_counts_once(tmp_path: Path) -> None:
    rows = ["user_id;item_id;event_type;event_time;event_id"]
    rows += [f"u;i;view;{time};{number}" for time, number in ((9, 1), (8, 2), (7, 1), (6, ""), (5, ""))]
    (tmp_path / "e.csv").write_text("\n".join(rows))
    configured = Settings.model_validate(
        {"source": {"earliest_time": "1970-01-01T00:00:00Z", "options": {"sep": ";", "maxFilesPerTrigger": 1}}}
    )
    events, left_out = streams.read_events(tmp_path / "e.csv", configured)
    assert events["time"].tolist() == [5, 6, 8, 9]
    assert left_out == {"duplicate event_id": 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("other.csv", None, "no file"),
        ("e.csv", "user_id,item,event_type,event_time\n", "has no column 'item_id' for source.columns.item_id"),
        ("e.parquet", "no table", "cannot read"),
        ("e.csv", "user_id,item_id,event_type,event_time\nu,i,sneeze,2024-05-01\n", "1 unknown event_type"),
        ("e.jsonl", "", "it is empty"),
    ],
)
def test_files_that_cannot_be_used_are_refused_in_one_line(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        streams.read_events(tmp_path / name, Settings())
    assert "\n" not in str(caught.value)


def test_options_that_change_what_is_read_are_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user_id,item_id,event_type,event_time\n")
    for options in ({"quote": "'"}, {"header": False}):
        with pytest.raises(InputError, match="cannot read with source.options"):
            streams.read_events(tmp_path / "e.csv", Settings.model_validate({"source": {"options": options}}))


HOSTILE_WEIGHTS = {
    "view": 1,
    "watch": {"weight": 2, "value": "log"},
    "rate": {"weight": -0.5, "value": "multiply", "min_value": 1, "max_value": 5},
}
HOSTILE_VALUES = ["many", "NaN", "-Infinity", "1e999", "1e7", "-1e6", "-1000001", " 2.5 ", "", "1_0", "true"]


def hostile_rows() -> list[dict[str, object]]:
    """Every rule broken on its own, times of all kinds, and values of all kinds for each type."""
    from tests.tables.helpers import event
    from tests.tables.test_clean import RULES, TIMES

    rows = [event(**fields) for fields, _ in RULES]
    rows += [event(event_time=text) for text in TIMES if TIMES[text] is None or TIMES[text].year > 1990]
    rows += [event(event_type=kind, value=value) for kind in HOSTILE_WEIGHTS for value in [*HOSTILE_VALUES, "3", None]]
    # Ids of their own, so that it is seen which row was taken.
    return [
        {**row, "user_id": f"{row['user_id']}{number}"} if row["user_id"] == "u" else row
        for number, row in enumerate(rows)
    ]


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_hostile_rows_count_as_they_do_in_the_tables(
    spark: "SparkSession", settings: Callable[..., Settings], tmp_path: Path, kind: str
) -> None:
    from tests.tables.helpers import drain

    rows, folder = hostile_rows(), tmp_path / "events"
    folder.mkdir()
    if kind == "json":
        broken = ['{"user_id": ', "[]", "17", f"{json.dumps(rows[0])} {json.dumps(rows[0])}", "", "   "]
        (folder / "e.json").write_text("\n".join([*map(json.dumps, rows), *broken]))
    else:
        text = pd.DataFrame(rows, dtype=object).to_csv(index=False)
        (folder / "e.csv").write_text(text + "u,i\nu,i,view,2024-05-01,a,b,c,d\n")
    configured = settings(tmp_path, weights=HOSTILE_WEIGHTS, source={"format": kind})
    drained = drain(spark, configured)
    events, left_out = streams.read_events(folder, configured)
    batch = streams.to_batch(events)
    expected = sorted(drained.pairs)
    assert len(expected) > 20
    assert list(zip(batch.user_ids, batch.item_ids, batch.events.tolist(), strict=True)) == [
        (user, item, count) for user, item, _, count in expected
    ]
    assert batch.weights == pytest.approx([weight for _, _, weight, _ in expected])
    assert drained.records - len(drained.rejected) == len(events)
    assert left_out["unreadable"] == sum(reasons in (["not JSON"], ["malformed record"]) for reasons in drained.reasons)


# --- what is measured ------------------------------------------------------------------------------------------------


def batch_of(*pairs: tuple[str, str, float]) -> InteractionBatch:
    rows = [(user, item, weight, DAY) for user, item, weight in pairs]
    return streams.to_batch(pd.DataFrame(rows, columns=["user", "item", "weight", "time"]))


def test_users_are_drawn_with_all_they_did_and_grouped_by_what_they_did_before() -> None:
    model = prequential.Live(small_settings(evaluation={"users_per_batch": 40}), "als").model
    model.absorb(batch_of(*((f"u{number:02d}", "x", 1.0) for number in range(30))), StepId(0, 0))
    had = np.arange(30)
    liked = [(f"u{number:02d}", item, 1.0) for number in range(60) for item in "xy"]
    batch = batch_of(*liked, *((f"v{number}", "x", -1.0) for number in range(60)))
    draws = [dict(prequential.drawn(batch, model, had, StepId(0, step))) for step in (1, 1, 2)]
    users = [{group: set(part.user_ids) for group, part in draw.items()} for draw in draws]
    assert users[0] == users[1] != users[2]
    for draw in draws:
        assert list(draw) == list(prequential.GROUPS)
        assert sum(len(set(part.user_ids)) for part in draw.values()) == 40
        for group, part in draw.items():
            numbers = [int(user[1:]) for user in part.user_ids]
            assert all(user.startswith("u") for user in part.user_ids)
            assert part.item_ids == list("xy") * (len(part) // 2)
            expected = {
                "cold": {0, *range(30, 60)},
                "< 20 events": set(range(1, 20)),
                ">= 20 events": set(range(20, 30)),
            }
            assert set(numbers) <= expected[group]


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_the_groups_together_are_the_whole_batch(exclude_seen: bool) -> None:
    live = prequential.Live(small_settings(recommend={"exclude_seen": exclude_seen}), "als")
    first, second = streams.batches(generated(1000), 500)
    live.learn(first, StepId(0, 0))
    had = np.zeros(len(live.model.users), dtype=np.int64)
    np.add.at(had, live.model.users.lookup(first.user_ids), first.events)
    rows = pd.DataFrame(prequential.measure(second, live.model, {"same": live}, had, StepId(0, 1)))
    assert set(rows["group"]) == set(prequential.GROUPS)
    whole = evaluate(second, live.model, {}, live.model.settings, StepId(0, 1))
    assert rows.groupby("method")["users"].sum().tolist() == [whole["evaluated_users"]] * 3
    means = prequential.by_batch(rows).droplevel("batch")
    for method, name in (("mixture", "model"), ("same", "model"), ("popularity", "popularity")):
        assert means.loc[method].tolist() == pytest.approx([whole[f"{name}/ndcg_at_20"], whole[f"{name}/recall_at_20"]])


def test_means_weigh_users_within_a_batch_and_batches_alike() -> None:
    columns = ["method", "batch", "group", "users", "ndcg", "recall"]
    rows = [
        (name, *row[:3], factor * row[3], factor * row[4])
        for name, factor in (("mixture", 1), ("als", 0.5), ("trend", 0.8), ("popularity", 0.25), ("mixture, frozen", 0))
        for row in ((3, "cold", 10, 0.4, 0.8), (3, "< 20 events", 30, 0.8, 0.4), (4, "cold", 2, 0.1, 0.2))
    ]
    outcome = prequential.Outcome("t", pd.DataFrame(rows, columns=columns), {}, ["als", "trend"], 1, 7.0, 20)
    means = outcome.means
    assert means.loc["mixture", ("NDCG", "all")] == pytest.approx((0.7 + 0.1) / 2)
    assert means.loc["mixture", ("recall", "all")] == pytest.approx((0.5 + 0.2) / 2)
    assert means.loc["als", ("NDCG", "cold")] == pytest.approx(0.5 * (0.4 + 0.1) / 2)
    assert means.loc["als", ("NDCG", "< 20 events")] == pytest.approx(0.4)
    assert outcome.ratios == pytest.approx(
        {"mixture_vs_best_member": 1.25, "mixture_vs_popularity": 4.0, "mixture_vs_static": np.inf}
    )


@pytest.mark.parametrize("best", [7.0, *prequential.HALF_LIVES])
def test_the_best_half_life_stands_beside_the_products_own(best: float) -> None:
    names = {"popularity": 7.0, **{f"popularity, {days:g} days": days for days in prequential.HALF_LIVES}}
    rows = [(name, 0, "cold", 1, 0.5 if days == best else 0.1, 0.0) for name, days in [*names.items(), ("als", 7.0)]]
    figures = pd.DataFrame(rows, columns=["method", "batch", "group", "users", "ndcg", "recall"])
    kept, half_life = prequential.with_best_popularity(figures, 7.0)
    assert half_life == best
    assert kept["method"].tolist() == ["popularity", "als", "popularity, best half-life"]
    assert kept["ndcg"].tolist()[::2] == [0.5 if best == 7 else 0.1, 0.5]


class Constant:
    """Gives every item the number of the step at which it was made."""

    def __init__(self, step: StepId) -> None:
        self.number = step.batch_id

    def scores(self, user_ids: list[str], items: list[str]) -> torch.Tensor:
        return torch.full((len(user_ids), len(items)), float(self.number))


@pytest.mark.parametrize(
    ("every", "made"), [(None, [2, 2, 2, 2, 2, 2]), (1, [2, 3, 4, 5, 6, 7]), (3, [2, 2, 2, 5, 5, 5])]
)
def test_what_is_renewed_stays_as_it_is_in_between(every: int | None, made: list[int]) -> None:
    method = prequential.Renewed(Constant, 2, every)
    done = [method.learn(batch_of(("u", "i", 1.0)), StepId(0, number)) for number in range(2)]
    assert done == [False, False]
    numbers = []
    for number in range(2, 8):
        assert method.learn(batch_of(("u", "i", 1.0)), StepId(0, number)) == (made[number - 2] == number)
        numbers.append(int(method.scores(["u"], ["i"])[0, 0]))
    assert numbers == made


@pytest.mark.parametrize("kind", [prequential.MIXTURE, "als"])
def test_a_frozen_model_does_not_learn(kind: str) -> None:
    live = prequential.Live(small_settings(), kind)
    parts = list(streams.batches(generated(600), 100))
    for number, batch in enumerate(parts[:4]):
        live.learn(batch, StepId(0, number))
    frozen = FrozenModel(live.model.served())
    users = [f"u{number}" for number in range(1, 30)]
    before, then = frozen.scores(users, live.model.items).clone(), live.scores(users, live.model.items).clone()
    assert (before.std(dim=1) > 0).all()
    known = before.shape[1]
    for number, batch in enumerate([*parts[4:], batch_of(("u1", "new", 1.0))], start=4):
        live.learn(batch, StepId(0, number))
    after = frozen.scores(users, live.model.items)
    assert torch.equal(after[:, :known], before)
    assert torch.isneginf(after[:, known:]).all()
    assert after.shape[1] == len(live.model.items) > known
    assert not torch.allclose(live.scores(users, live.model.items)[:, :known], then)


def test_implicit_learns_the_history_and_knows_nothing_later() -> None:
    pytest.importorskip("implicit")
    model = prequential.Live(small_settings(model={"factors": 8}), "als").model
    had = [
        (f"u{user}", f"i{item}", 1.0)
        for user in range(40)
        for item in range(40)
        if user % 4 == item % 4 and item // 4 != user // 4
    ]
    disliked = [(f"u{user}", f"i{40 + user % 4}", -1.0 if user < 20 else 1.0) for user in range(40)]
    model.absorb(batch_of(*had, *disliked), StepId(0, 0))
    peer = prequential.Implicit(model)
    model.absorb(batch_of(("later", "new", 1.0)), StepId(0, 1))
    users = [f"u{user}" for user in range(40)]
    scores = peer.scores([*users, "later", "unknown"], model.items)
    codes = model.items.lookup([f"i{item}" for item in range(44)])
    assert torch.isneginf(scores[:, model.items.lookup(["new"])]).all()
    # The popularity when it learned: nine users of each group of ten, and those who liked the last items.
    for row in scores[40:, codes]:
        assert row.tolist() == pytest.approx([9.0] * 40 + [5.0] * 4, rel=1e-4)
    for user, row in enumerate(scores[:40, codes]):
        own = row[:40].clone()
        own[[item for item in range(40) if user % 4 == item % 4 and item // 4 != user // 4]] = -torch.inf
        assert int(own.argmax()) == 4 * (user // 4) + user % 4
    fans, others = (scores[half, codes[[40 + user % 4 for user in half]]].mean() for half in (range(20, 40), range(20)))
    assert fans > others + 0.2


def test_nothing_that_comes_later_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("implicit")
    monkeypatch.setattr(prequential, "MEMBERS", ("als", "repeat"))
    monkeypatch.setattr(prequential, "HALF_LIVES", (1.0,))
    one, other = generated(1000), generated(1000, seed=1)
    mixed = pd.concat([one[:700], other[700:]], ignore_index=True)
    found = [prequential.run("t", events, 100, small_settings(), quick=True) for events in (one, mixed)]
    figures = [outcome.figures[outcome.figures["method"] != prequential.BEST_POPULARITY] for outcome in found]
    # Batch 7 is the first that differs: it is scored by what was learned before, but it is not the same question.
    early, late = ([rows[(rows["batch"] >= 7) == last] for rows in figures] for last in (False, True))
    pd.testing.assert_frame_equal(*early)
    assert set(early[0]["batch"]) == set(range(2, 7))
    assert early[0].groupby("method")["ndcg"].mean().min() > 0
    assert len(late[0])
    assert not late[0]["ndcg"].reset_index(drop=True).equals(late[1]["ndcg"].reset_index(drop=True))


def test_items_that_are_new_in_every_batch_are_never_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("implicit")
    monkeypatch.setattr(prequential, "MEMBERS", ("als", "trend"))
    events = generated(600)
    events["item"] = [f"{item}-{number // 100}" for number, item in enumerate(events["item"])]
    outcome = prequential.run("t", events, 100, small_settings(), quick=True)
    assert len(outcome.figures) > 50
    assert (outcome.figures[["ndcg", "recall"]] == 0).all(axis=None)


def test_a_long_stream_is_not_rebuilt_after_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("implicit")
    monkeypatch.setattr(prequential, "MEMBERS", ("als", "repeat"))
    monkeypatch.setattr(prequential, "HALF_LIVES", (1.0,))
    monkeypatch.setattr(prequential, "REBUILDS", 3)
    monkeypatch.setattr(prequential, "QUICK_BATCHES", 5)
    made = []
    shadow = OnlineModel.shadow
    monkeypatch.setattr(
        OnlineModel, "shadow", lambda model, step: made.append((step, len(model.users))) or shadow(model, step)
    )
    events = generated(1099)
    outcome = prequential.run("t", events, 100, small_settings(recommend={"exclude_seen": True}), quick=False)
    # Ten whole batches, of which two warm up; a rebuild knows the users of all batches until then.
    assert sorted(set(outcome.figures["batch"])) == list(range(2, 10))
    assert outcome.members == ["als"]
    users = [events["user"][: 100 * batches].nunique() for batches in (2, 5, 8)]
    assert made == [(StepId(0, number), count) for number, count in zip((1, 4, 7), users, strict=True)]
    text = prequential.table(outcome)
    assert "als, retrained every 3 batches" in text
    assert "implicit, retrained every 3 batches" in text


# --- as a command ----------------------------------------------------------------------------------------------------


def test_too_few_events_are_refused() -> None:
    with pytest.raises(SystemExit, match="t: 499 events are fewer than 5 batches of 100"):
        prequential.run("t", generated(499), 100, small_settings(), quick=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "c.yaml"], "--config goes with --events"),
        (["--stream", "ml_latest_small"], "--stream ml_latest_small needs --data"),
        (["--data", "nowhere"], "no folder nowhere"),
        (["--events", "e.csv", "--stream", "completejourney"], "--events goes without"),
        (["--events", "e.csv", "--events-per-batch", "0"], "at least 1"),
    ],
)
def test_words_that_do_not_go_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["prequential", *words])
    with pytest.raises(SystemExit) as caught:
        prequential.main()
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_help_says_how_to_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["prequential", "--help"])
    with pytest.raises(SystemExit) as caught:
        prequential.main()
    assert caught.value.code == 0
    assert "python -m bench.quality.prequential --events FILE --config FILE" in capsys.readouterr().out


def test_the_bench_runs_from_a_file_to_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("implicit")
    events = generated(1050).rename(columns={"user": "who", "item": "item_id"})
    events["event_time"] = pd.to_datetime(events.pop("time") + 1.7e9, unit="s")
    events.drop(columns="weight").to_csv(tmp_path / "own.csv", index=False)
    (tmp_path / "own.yaml").write_text(
        "source: {columns: {user_id: who, event_type: null}, default_event_type: view}\n"
        "model: {factors: 4, rebuild_sweeps: 2}\n"
        "recommend: {exclude_seen: false, k: 10}\ndevice: cpu\n"
    )
    files = ["--events", str(tmp_path / "own.csv"), "--config", str(tmp_path / "own.yaml")]
    plot = tmp_path / "deep" / "plot.png"
    words = [*files, "--quick", "--events-per-batch", "100", "--plot", str(plot)]
    monkeypatch.setattr(sys, "argv", ["prequential", *words])
    prequential.main()
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert lines[0] == f"{tmp_path / 'own.csv'}: 1,050 events"
    assert "NDCG@10" in output
    assert "recall@10" in output
    for name in ("mixture", "als", "trend", "cooccurrence", "repeat", "mixture, frozen", "popularity, best half-life"):
        assert any(line.startswith(f"{name} ") for line in lines), name
    assert not any(line.startswith("ncf") for line in lines)
    assert "als, retrained every batch" in output
    assert "implicit, retrained every batch" in output
    assert lines[-2].startswith(
        "aims: mixture_vs_best_member=1 mixture_vs_popularity=1.05 mixture_vs_static=1.5; implicit"
    )
    figures = dict(word.split("=") for word in lines[-1].split())
    assert list(figures) == ["mixture_vs_best_member", "mixture_vs_popularity", "mixture_vs_static"]
    assert all(float(figure) > 0.5 for figure in figures.values())
    picture = matplotlib.image.imread(plot)
    assert all(colors(picture, color) > 100 for color in prequential.DRAWN.values())

"""The prequential bench: whom it measures, and that it never looks ahead."""

import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from bench.harness import prequential_methods, prequential_report, streams
from bench.quality import prequential
from recsys.contracts import StepId
from recsys.model.evaluation.prequential import evaluate
from recsys.model.recommender import OnlineModel
from tests.bench.helpers import batch_of, generated, small_settings
from tests.stream.test_plots import colors


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
        assert list(draw) == list(prequential_report.GROUPS)
        assert sum(len(set(part.user_ids)) for part in draw.values()) == 40
        for group, part in draw.items():
            numbers = [int(user[1:]) for user in part.user_ids]
            assert all(user.startswith("u") for user in part.user_ids)
            assert part.item_ids == list("xy") * (len(part) // 2)
            expected = {
                "cold": {0, *range(30, 60)},
                "< 20 interactions": set(range(1, 20)),
                ">= 20 interactions": set(range(20, 30)),
            }
            assert set(numbers) <= expected[group]


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_the_groups_together_are_the_whole_batch(exclude_seen: bool) -> None:
    live = prequential.Live(small_settings(recommend={"exclude_seen": exclude_seen}), "als")
    first, second = streams.batches(generated(1000), 500)
    live.learn(first, StepId(0, 0))
    had = np.zeros(len(live.model.users), dtype=np.int64)
    np.add.at(had, live.model.users.lookup(first.user_ids), 1)
    rows = pd.DataFrame(prequential.measure(second, live.model, {"same": live}, had, StepId(0, 1)))
    assert set(rows["group"]) == set(prequential_report.GROUPS)
    whole = evaluate(second, live.model, {}, live.model.settings, StepId(0, 1))
    assert rows.groupby("method")["users"].sum().tolist() == [whole["evaluated_users"]] * 3
    means = prequential_report.by_batch(rows).droplevel("batch")
    for method, name in (("mixture", "model"), ("same", "model"), ("popularity", "popularity")):
        assert means.loc[method].tolist() == pytest.approx([whole[f"{name}/ndcg_at_20"], whole[f"{name}/recall_at_20"]])


def test_nothing_that_comes_later_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("implicit")
    monkeypatch.setattr(prequential, "MEMBERS", ("als", "repeat"))
    monkeypatch.setattr(prequential_methods, "HALF_LIVES", (1.0,))
    one, other = generated(1000), generated(1000, seed=1)
    mixed = pd.concat([one[:700], other[700:]], ignore_index=True)
    found = [prequential.run("t", events, 100, small_settings(), quick=True) for events in (one, mixed)]
    figures = [outcome.figures[outcome.figures["method"] != prequential_report.BEST_POPULARITY] for outcome in found]
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
    monkeypatch.setattr(prequential_methods, "HALF_LIVES", (1.0,))
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
    assert "standard error" in output
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
    assert all(colors(picture, color) > 100 for color in prequential_report.COLORS.values())

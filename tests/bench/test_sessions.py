"""The bench of sessions: how it cuts them, that it never looks ahead, and its peers against slow definitions."""

import argparse
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.harness import session_peers
from bench.harness.generated_sessions import generated_sessions
from bench.harness.session_models import MIXTURE
from bench.harness.session_peers import PopularItems, Stan, Transitions, VSkNN, asked
from bench.harness.sessions import (
    GAP_SECONDS,
    Question,
    SessionEvents,
    SessionTable,
    figures_of,
    window_starts,
    windows,
)
from bench.quality import sessions as bench
from tests.bench.helpers import small_settings

DAY = 86_400.0


def events_of(*rows: tuple[str, str, float]) -> SessionEvents:
    """From user, item and seconds."""
    return SessionEvents.of(pd.DataFrame(rows, columns=["user", "item", "time"]).assign(weight=1.0))


def spelled(events: SessionEvents, sessions: SessionTable) -> list[str]:
    """Each session as its user and its items, which have ids of one letter."""
    pairs = zip(sessions.users.tolist(), np.split(sessions.items, sessions.offsets[1:-1]), strict=True)
    return [events.user_ids[user] + ":" + "".join(events.item_ids[item] for item in items) for user, items in pairs]


def test_a_session_ends_with_inactivity_and_repeats_in_a_row_are_one_item() -> None:
    events = events_of(
        ("u", "a", 0), ("v", "a", 5), ("u", "a", 10), ("u", "b", GAP_SECONDS + 10), ("u", "a", GAP_SECONDS + 20),
        ("u", "c", 3 * GAP_SECONDS), ("v", "b", GAP_SECONDS + 5.5),
    )  # fmt: skip
    sessions = events.sessions()
    # In the order in which they end.
    assert spelled(events, sessions) == ["v:a", "v:b", "u:aba", "u:c"]
    assert sessions.starts.tolist() == [5, GAP_SECONDS + 5.5, 0, 3 * GAP_SECONDS]
    assert sessions.ends.tolist() == [5, GAP_SECONDS + 5.5, GAP_SECONDS + 20, 3 * GAP_SECONDS]
    assert spelled(events, events.sessions(3)) == ["v:a", "u:a"]


def test_what_happened_at_the_same_time_has_an_order_that_is_drawn() -> None:
    baskets = [(f"u{user}", item, float(user)) for user in range(200) for item in "ab"]
    first = Counter(items[0] for _, items in (one.split(":") for one in spelled_all(baskets)))
    assert 60 < first["a"] < 140
    assert spelled_all(baskets) == spelled_all(baskets)


def spelled_all(rows: list[tuple[str, str, float]]) -> list[str]:
    events = events_of(*rows)
    return spelled(events, events.sessions())


def test_windows_are_hours_days_or_numbers_of_events() -> None:
    times = np.array([0.0, 10.0, 3_700.0, 3_700.0, 3_700.0, DAY, DAY + 1.0])
    assert window_starts(times, "hour").tolist() == [0, 2, 5]
    assert window_starts(times, "day").tolist() == [0, 5]
    # The fourth event begins a window at its time, so that what happened together stays together.
    assert window_starts(times, 3).tolist() == [0, 2, 6]


def test_a_session_is_asked_about_where_it_begins_and_nothing_of_it_has_been_learned() -> None:
    many = [("w", f"i{number}", 3_610.0 + number) for number in range(21)]
    events = events_of(
        ("u", "a", 3_590), ("u", "b", 3_620), ("u", "c", 3_640), ("v", "a", 3_650), ("x", "b", 3_650),
        ("x", "c", 3_660), *many,
    )  # fmt: skip
    first, second = windows(events, "hour", 10)
    assert [one.begin for one in (first, second)] == [0, 1]
    named = [
        [
            (events.user_ids[q.user], [events.item_ids[i] for i in q.given], events.item_ids[q.target])
            for q in one.questions
        ]
        for one in (first, second)
    ]
    # A single item asks nothing, and more than 20 are too many.
    assert named == [[("u", ["a", "b"], "c")], [("x", ["b"], "c")]]
    assert not [q for q in windows(events, "hour", 0) if q.questions]


def test_figures_of_places() -> None:
    found = figures_of(np.array([0, 2, 19, 20, -1]))
    assert found["NDCG@20"].tolist() == pytest.approx([1, 0.5, 1 / math.log2(21), 0, 0])
    assert found["HR@20"].tolist() == [1, 1, 1, 0, 0]
    assert found["MRR@20"].tolist() == pytest.approx([1, 1 / 3, 1 / 20, 0, 0])


# --- peers -----------------------------------------------------------------------------------------------------------


def learned_and_running() -> tuple[SessionTable, list[np.ndarray], np.ndarray]:
    """Random sessions, some with an item twice, as arrays and as lists; and a running one."""
    events = SessionEvents.of(generated_sessions(300, users=50, items=60, seed=1))
    learned = events.sessions()
    lists = np.split(learned.items, learned.offsets[1:-1])
    running = max(lists, key=lambda items: len(set(items.tolist())))[:6]
    assert any(len(set(items.tolist())) < len(items) for items in lists)
    return learned, lists, running


def test_transitions_count_what_follows_within_a_session() -> None:
    learned, lists, running = learned_and_running()
    expected, age = np.zeros(learned.item_count), len(learned.items)
    for items in lists:
        for place, item in enumerate(items):
            age -= 1
            if item == running[-1] and place + 1 < len(items):
                expected[items[place + 1]] += 0.5 ** (age / 40)
    assert expected.sum() > 0
    np.testing.assert_allclose(Transitions(40.0).scores(learned, running, 0.0), expected)


def test_popularity_counts_items() -> None:
    learned, _, running = learned_and_running()
    expected = np.zeros(learned.item_count)
    for age, item in enumerate(learned.items[::-1].tolist()):
        expected[item] += 0.5 ** (age / 30)
    np.testing.assert_allclose(PopularItems(30.0).scores(learned, running, 0.0), expected)


@pytest.mark.parametrize(("k", "sample"), [(20, 2_500), (7, 30)])
@pytest.mark.parametrize("peer", ["linear", "by distance", "STAN"])
def test_neighborhoods_are_what_their_definitions_say(
    peer: str, k: int, sample: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_peers, "_SAMPLE", sample)
    learned, lists, running = learned_and_running()
    now, length = float(learned.ends[-1]) + 5 * DAY, len(running)
    place_of = {int(item): place for place, item in enumerate(running, 1)}
    holding = [number for number, items in enumerate(lists) if set(items.tolist()) & place_of.keys()]
    found = []
    for number in holding[-sample:]:
        items = lists[number].tolist()
        shared = [place_of[item] for item in dict.fromkeys(items) if item in place_of]
        nearest = max(shared)
        if peer == "STAN":
            similarity = sum(math.exp((place - length) / 2.0) for place in shared)
            similarity /= math.sqrt(length * len(items))
            similarity *= math.exp((learned.ends[number] - now) / DAY / 3.0)
        else:
            rising = [place / length if peer == "linear" else 1 / (length + 1 - place) for place in shared]
            similarity = sum(rising) / length / (length + 1 - nearest)
        found.append((similarity, number, items.index(int(running[nearest - 1]))))
    expected = np.zeros(learned.item_count)
    for similarity, number, nearest_place in sorted(found)[-k:]:
        items = lists[number].tolist()
        for item in dict.fromkeys(items):
            frequency = sum(item in other for other in lists)
            if peer == "STAN":
                weight = math.exp(-abs(items.index(item) - nearest_place) / 1.5)
            else:
                weight = 1 + 0.7 * math.log((len(lists) + 1) / (frequency + 1))
            expected[item] += similarity * weight
    method = Stan(k, 2.0, 3.0, 1.5) if peer == "STAN" else VSkNN(k, peer == "linear", 0.7)
    np.testing.assert_allclose(method.scores(learned, running, now), expected, rtol=1e-9)


def test_ties_cold_items_and_what_is_left_out_are_misses() -> None:
    events = events_of(("u", "a", 0), ("u", "b", 1), ("v", "a", 2), ("v", "c", 3), ("w", "z", 9_000))
    a, b, c, z = (events.item_ids.index(item) for item in "abcz")
    learned = events.sessions(4)
    questions = [Question(9, np.array([a]), target, 10.0) for target in (b, c, z, a)]
    # b and c follow a equally often and are as popular: each ranks behind the other. Nobody has seen z.
    assert asked(Transitions(math.inf), learned, questions, None).tolist() == [1, 1, -1, 2]
    seen = [np.array([c]), *([np.array([b])] * 3)]
    assert asked(Transitions(math.inf), learned, questions, seen).tolist() == [0, 0, -1, -1]
    asking = [Question(events.user_ids.index("v"), np.array([a]), b, 10.0), Question(0, np.array([a]), b, 10.0)]
    assert [own.tolist() for own in events.seen(4, asking)] == [[a, c], [a, b]]


# --- whole runs ------------------------------------------------------------------------------------------------------


def test_order_is_found_and_nothing_that_comes_later_is_seen() -> None:
    one, other = (generated_sessions(900, users=900, items=120, seed=seed) for seed in (0, 1))
    cut = 3 * len(one) // 4
    later = other.assign(time=other["time"] - other["time"].iloc[cut] + one["time"].iloc[cut - 1] + 2 * GAP_SECONDS)
    mixed = pd.concat([one[:cut], later[cut : len(one)]], ignore_index=True)
    # Eight windows of 250 events; but for the last one, what is asked there has ended before the streams part.
    found = [bench.run("t", frame, 200, small_settings(), 250, quick=True) for frame in (one, mixed)]
    early = [outcome.figures[outcome.figures["window"] < 1_700] for outcome in found]
    pd.testing.assert_frame_equal(*early)
    assert early[0]["window"].nunique() >= 4
    means = found[0].means.iloc[:, 0]
    assert means["transitions"] > 1.5 * means["popularity"]
    assert set(means.index) == {
        "mixture", "re-ranker", "als", "trend", "cooccurrence", "repeat", "sessions",
        "popularity", "transitions", "V-SkNN", "STAN",
    }  # fmt: skip
    ratios = found[0].ratios
    best = max(means[name] for name in ("popularity", "transitions", "V-SkNN", "STAN"))
    assert ratios["sessions_vs_best_peer"] == pytest.approx(means[MIXTURE] / best)
    assert ratios["sessions_vs_transitions"] == pytest.approx(means[MIXTURE] / means["transitions"])


def test_a_stream_without_sessions_is_refused() -> None:
    events = pd.DataFrame({"user": [f"u{n}" for n in range(40)], "item": "i", "weight": 1.0, "time": np.arange(40.0)})
    with pytest.raises(SystemExit, match="t: no session of two items begins after the first 4 windows"):
        bench.run("t", events, 10, small_settings(), None, quick=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "c.yaml"], "--config goes with --events"),
        (["--stream", "kuairand_pure_2w"], "--stream kuairand_pure_2w needs --data"),
        (["--data", "nowhere"], "no folder nowhere"),
        (["--events", "e.csv", "--stream", "generated"], "--events goes without"),
        (["--window", "week"], "'week' is neither hour nor day nor a number of events"),
        (["--events", "e.csv", "--events-per-batch", "0"], "at least 1"),
    ],
)
def test_words_of_the_bench_that_do_not_go_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["sessions", *words])
    with pytest.raises(SystemExit) as caught:
        bench.main()
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_windows_as_words() -> None:
    assert [bench.to_window(word) for word in ("hour", "day", "500")] == ["hour", "day", 500]
    with pytest.raises(argparse.ArgumentTypeError):
        bench.to_window("0")


def test_the_bench_of_sessions_runs_from_a_file_to_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events = generated_sessions(400, users=400, items=120).drop(columns="weight")
    events["time"] = pd.to_datetime(events["time"], unit="s")
    events.set_axis(["user_id", "item_id", "event_time"], axis=1).to_csv(tmp_path / "own.csv", index=False)
    (tmp_path / "own.yaml").write_text(
        "source: {columns: {event_type: null}, default_event_type: view}\n"
        "model: {factors: 4}\nrecommend: {exclude_seen: true}\ndevice: cpu\n"
    )
    files = ["--events", str(tmp_path / "own.csv"), "--config", str(tmp_path / "own.yaml")]
    monkeypatch.setattr(sys, "argv", ["sessions", *files, "--quick", "--window", "300", "--events-per-batch", "200"])
    bench.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path / 'own.csv'}: {len(events):,} events"
    for name in ("mixture", "re-ranker", "als", "cooccurrence", "popularity", "transitions", "V-SkNN", "STAN"):
        assert any(line.startswith(f"{name} ") for line in lines), name
    assert not any(line.startswith("repeat ") for line in lines)
    assert any(line.startswith("STAN: Stan(k=500, ") for line in lines)
    assert lines[-2].startswith("aims: sessions_vs_best_peer=1.03 sessions_vs_transitions=1.15; torch")
    figures = dict(word.split("=") for word in lines[-1].split())
    assert list(figures) == ["sessions_vs_best_peer", "sessions_vs_transitions"]
    assert all(float(figure) > 0 for figure in figures.values())

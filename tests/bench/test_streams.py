"""The streams of the benches: of a stored one what is wanted, and of a file of one's own what the tables take too."""

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from bench.harness import streams
from recsys.config import Settings
from recsys.errors import InputError
from tests.bench.helpers import generated, whole

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


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
    batch = whole(pd.DataFrame(events, columns=["user", "item", "weight", "time"]))
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
LEFT_OUT = {"missing user_id": 1, "unknown event_type": 1, "unparsable event_time": 1, "missing value": 1}
# Typed, a time that cannot be read is none.
TYPED_LEFT_OUT = {"missing user_id": 1, "unknown event_type": 1, "missing event_time": 1, "missing value": 1}


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
        assert left_out == (TYPED_LEFT_OUT if name.endswith(".parquet") else LEFT_OUT)


def test_an_event_that_comes_twice_counts_once(tmp_path: Path) -> None:
    rows = ["user_id;item_id;event_type;event_time;event_id"]
    rows += [f"u;i;view;{time};{number}" for time, number in ((9, 1), (8, 2), (7, 1), (6, ""), (5, ""))]
    (tmp_path / "e.csv").write_text("\n".join(rows))
    configured = Settings.model_validate(
        {"source": {"earliest_time": "1970-01-01T00:00:00Z", "options": {"sep": ";", "maxFilesPerTrigger": 1}}}
    )
    events, left_out = streams.read_events(tmp_path / "e.csv", configured)
    # The earliest of them, whichever stands first.
    assert events["time"].tolist() == [5, 6, 7, 8]
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


UNREADABLE = ("not JSON", "malformed record")
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
    batch = whole(events)
    expected = sorted(drained.pairs)
    assert len(expected) > 20
    assert list(zip(batch.user_ids, batch.item_ids, batch.events.tolist(), strict=True)) == [
        (user, item, count) for user, item, _, count in expected
    ]
    assert batch.weights.tolist() == [weight for _, _, weight, _ in expected]
    counts = Counter(reason for reasons in drained.reasons for reason in reasons if reason not in UNREADABLE)
    assert {reason: count for reason, count in left_out.items() if reason != "unreadable"} == counts
    assert drained.records - len(drained.rejected) == len(events)
    assert left_out["unreadable"] == sum(reasons[0] in UNREADABLE for reasons in drained.reasons)

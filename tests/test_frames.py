"""Events of a frame, weighed and summed: the same as plain loops make of them, in whatever order they come."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from recsys.config import Settings
from recsys.contracts import WEIGHT_PARTS, InteractionBatch
from recsys.errors import InputError
from recsys.frames import WeighedEvents, read_events
from tests.model.helpers import make_batch

NOW = datetime(2024, 5, 1, tzinfo=UTC)
rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "é", "🍵", "B"]),
        st.sampled_from("xyz"),
        st.integers(-9 * 2**20, 9 * 2**20).map(lambda part: part / WEIGHT_PARTS),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=40,
)


def same(one: InteractionBatch, other: InteractionBatch) -> bool:
    numbers = all(
        getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in ("weights", "events", "times")
    )
    return numbers and [*one.user_ids, *one.item_ids] == [*other.user_ids, *other.item_ids]


def weighed(events: list[tuple[str, str, float, int]]) -> WeighedEvents:
    users, items, weights, times = (list(column) for column in zip(*events, strict=True))
    return WeighedEvents.of(users, items, np.array(weights), np.array(times, dtype=np.float64))


@given(rows, st.randoms())
@examples(deadline=None)
def test_a_batch_is_what_a_loop_over_its_events_in_order_of_time_sums(events, random) -> None:
    ordered = sorted(events, key=lambda event: (event[3], event[2]))
    shuffled = events.copy()
    random.shuffle(shuffled)
    assert same(weighed(shuffled).batch(), make_batch(ordered))


@given(rows, st.integers(1, 50))
@examples(deadline=None)
def test_batches_hold_every_event_once_and_no_instant_twice(events, size: int) -> None:
    events.sort(key=lambda event: event[3])
    batches = list(weighed(events).batches(size))
    assert sum(int(batch.events.sum()) for batch in batches) == len(events)
    ends = [(batch.times.min(), batch.times.max()) for batch in batches]
    assert all(before[1] < after[0] for before, after in zip(ends[:-1], ends[1:], strict=True))


@given(rows, st.randoms(), st.lists(st.sampled_from(["p", "q", "", None]), min_size=40, max_size=40))
@examples(deadline=None)
def test_the_order_of_the_rows_does_not_matter(events, random, ids) -> None:
    configured = Settings.model_validate(
        {"weights": {"rate": {"weight": 1, "value": "multiply"}}, "source": {"default_event_type": "rate"}}
    )
    named = [(*event, name) for event, name in zip(events, ids, strict=False)]
    found = []
    for order in (named, random.sample(named, len(named))):
        users, items, values, times, names = (list(column) for column in zip(*order, strict=True))
        columns = {"user_id": users, "item_id": items, "value": values, "event_time": [10**9 + time for time in times]}
        frame = pa.table({**columns, "event_id": pa.array(names, pa.string())})
        events_read, left_out = read_events(frame, configured, NOW)
        found.append((events_read, left_out))
    (one, counts), (other, others) = found
    assert counts == others
    assert len(one) == len({name for *_, name in named if name}) + sum(not name for *_, name in named)
    assert same(one.batch(), other.batch())
    assert one.times.tolist() == other.times.tolist() == sorted(one.times)


def test_a_time_is_believed_until_a_day_after_now() -> None:
    configured = Settings.model_validate({"source": {"default_event_type": "view"}})
    times = [datetime(2024, 5, 2, tzinfo=UTC), datetime(2024, 5, 2, 0, 0, 0, 1, tzinfo=UTC)]
    frame = {"user_id": ["u", "u"], "item_id": ["i", "i"], "event_time": times}
    events, left_out = read_events(frame, configured, NOW)
    assert (len(events), left_out) == (1, {"event_time in the future": 1})


def test_what_the_stream_asks_for_is_asked_for_here(tmp_path: Path) -> None:
    frame = {"user_id": ["u"], "item_id": ["i"], "event_time": [10**9]}
    with pytest.raises(InputError, match="no column 'event_type' for source.columns.event_type"):
        read_events(frame, Settings(), NOW)
    without = Settings.model_validate({"source": {"columns": {"event_type": None}}})
    with pytest.raises(InputError, match="set source.default_event_type"):
        read_events(frame, without, NOW)
    named = Settings.model_validate({"source": {"columns": {"value": "stars"}, "default_event_type": "view"}})
    with pytest.raises(InputError, match="no column 'stars' for source.columns.value"):
        read_events(frame, named, NOW)


def test_values_without_a_logarithm_are_left_out_and_nothing_else_is_said(recwarn: pytest.WarningsRecorder) -> None:
    configured = Settings.model_validate({"weights": {"watch": {"weight": 2, "value": "log"}}})
    values = [3.0, np.inf, -np.inf, np.nan, -1.0, -2.0, None]
    columns = {"user_id": ["u"] * 7, "item_id": ["i"] * 7, "event_type": ["watch"] * 7, "event_time": [10**9] * 7}
    events, left_out = read_events({**columns, "value": pa.array(values)}, configured, NOW)
    assert events.weights.tolist() == [4.0]
    assert left_out == {"missing value": 1, "non-finite value": 3, "value out of range": 2}
    assert not recwarn.list

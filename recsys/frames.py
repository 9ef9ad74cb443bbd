"""Data frames of any library to batches of interactions, and lists back to data frames.

Frames come in through the Arrow PyCapsule interface (pandas, polars, pyarrow and others), Spark's through `toArrow`, so
no frame library is needed. The rules for events are those of the stream, see `recsys.cleaning`.
"""

import importlib.util
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys.batches import batch_starts
from recsys.cleaning import Judged, judge
from recsys.config import Settings
from recsys.config.sections import Columns
from recsys.contracts import EVENT_ID, EVENT_TYPE, LIST_ID, TIME_SLOT_SECONDS, VALUE, InteractionBatch, Left
from recsys.errors import InputError, InputWarning

DUPLICATE = "duplicate event_id"
# What an event is where nothing says it; it has a weight by default.
_USUAL_TYPE = "view"


@dataclass(frozen=True)
class WeighedEvents:
    """n weighed events, in the order in which they are cut into batches.

    Attributes:
        user_ids: distinct ids of users, sorted by their UTF-8 bytes.
        item_ids: distinct ids of items, sorted alike.
        users: (n,) int64, places in `user_ids`.
        items: (n,) int64, places in `item_ids`.
        weights: (n,) float64, multiples of 1 / `WEIGHT_PARTS`.
        times: (n,) float64, seconds since 1970 UTC.
        impressions: (n,) bool, which of them say only that an item was shown; None: none.
    """

    user_ids: Sequence[str]
    item_ids: Sequence[str]
    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    times: npt.NDArray[np.float64]
    impressions: npt.NDArray[np.bool_] | None = None

    @classmethod
    def of(
        cls,
        users: Sequence[str] | pa.Array,
        items: Sequence[str] | pa.Array,
        weights: npt.NDArray[np.float64],
        times: npt.NDArray[np.float64],
    ) -> "WeighedEvents":
        """WeighedEvents from the ids of their users and items, in the order given."""
        return cls(*_distinct(users, items), weights, times)

    def __len__(self) -> int:
        return len(self.users)

    def batch(self, begin: int = 0, end: int | None = None) -> InteractionBatch:
        """Sum the events begin, ..., end - 1 by user, item and hour. The sums are exact, as in the stream."""
        users, items = self.users[begin:end], self.items[begin:end]
        weights, times = self.weights[begin:end], self.times[begin:end]
        pairs = users * len(self.item_ids) + items
        left = Left()
        if self.impressions is not None:
            shown = self.impressions[begin:end]
            left = self._left(pairs, shown)
            pairs, weights, times = pairs[~shown], weights[~shown], times[~shown]
        order = np.lexsort((times, pairs))
        pairs, weights, times = pairs[order], weights[order], times[order]
        first = (np.diff(pairs, prepend=-1) != 0) | (np.diff(np.floor(times / TIME_SLOT_SECONDS), prepend=-1) != 0)
        starts = np.flatnonzero(first)
        ends = np.append(starts[1:], len(pairs))
        own_users, own_items = np.divmod(pairs[starts], max(len(self.item_ids), 1))
        return InteractionBatch(
            user_ids=[self.user_ids[place] for place in own_users.tolist()],
            item_ids=[self.item_ids[place] for place in own_items.tolist()],
            weights=np.bincount(np.cumsum(first) - 1, weights, minlength=len(starts)).astype(np.float64),
            events=ends - starts,
            times=times[ends - 1],
            left=left,
        )

    def _left(self, pairs: npt.NDArray[np.int64], shown: npt.NDArray[np.bool_]) -> Left:
        """Of pairs (n,), those that were only shown."""
        users, items = np.divmod(np.setdiff1d(pairs[shown], pairs[~shown]), max(len(self.item_ids), 1))
        return Left(
            [self.user_ids[place] for place in users.tolist()],
            [self.item_ids[place] for place in items.tolist()],
            int(shown.sum()),
        )

    def batches(self, size: int) -> Iterator[InteractionBatch]:
        """Cut the events, which are in the order of time, into batches of about `size`; see `batch_starts`."""
        starts = batch_starts(self.times, size).tolist()
        return (self.batch(begin, end) for begin, end in zip(starts, [*starts[1:], len(self)], strict=True))


def read_events(frame: Any, settings: Settings, now: datetime | None = None) -> tuple[WeighedEvents, dict[str, int]]:
    """Read a frame of events by the rules by which the stream cleans and weighs them.

    Of good records with the same `event_id` the earliest counts. The result does not depend on the order of the rows.

    Args:
        frame: See `to_table`.
        settings: The sections source (columns, default event type, earliest time) and weights are used.
        now: When the frame was read; None: now.

    Returns:
        The good events in the order of time, and how many records each rule speaks against; a record may break several.

    Raises:
        InputError: the frame is none, lacks a column, has one of a wrong type, or holds no good event.
    """
    table = to_table(frame)
    if not table.num_rows:
        raise InputError("the events are empty: there is no row to learn from")
    columns = named_columns(table, settings)
    judged = judge(columns, settings, now or datetime.now(UTC))
    left_out = {reason: int(broken.sum()) for reason, broken in judged.reasons.items() if broken.any()}
    if not judged.good.any():
        raise InputError(f"none of the {table.num_rows:,} events can be learned from: {listed(left_out)}")
    events, duplicates = _ordered(judged)
    return events, left_out | ({DUPLICATE: duplicates} if duplicates else {})


def given_events(frame: Any, settings: Settings) -> WeighedEvents:
    """Read a frame that somebody hands over: as `read_events`, with a word on what is left out.

    A frame without a column of event types is one of views (or of the only type that `weights` has), unless
    `source.default_event_type` says otherwise.

    Raises:
        InputError: see `read_events`.

    Warns:
        InputWarning: some rows are left out; says how many, and why.
    """
    table, source = to_table(frame), settings.source
    named = source.columns.event_type
    if source.default_event_type is None and (named is None or named == EVENT_TYPE) and named not in table.column_names:
        usual = _USUAL_TYPE if _USUAL_TYPE in settings.weights else next(iter(settings.weights))
        if usual == _USUAL_TYPE or len(settings.weights) == 1:
            source = source.model_copy(update={"default_event_type": usual})
    events, left_out = read_events(table, settings.model_copy(update={"source": source}))
    if left_out:
        count = table.num_rows - len(events)
        text = f"{count:,} of {table.num_rows:,} events are left out: {listed(left_out)}"
        warnings.warn(text, InputWarning, stacklevel=3)
    return events


def to_table(frame: Any) -> pa.Table:
    """A frame as an Arrow table.

    Args:
        frame: What has the Arrow PyCapsule interface (`__arrow_c_stream__`), a Spark DataFrame, a mapping of column
            names to values, or a list of mappings, one for each event.

    Raises:
        InputError: it is none of these, or Arrow cannot hold a column of it.
    """
    try:
        if isinstance(frame, pa.Table):
            return frame
        # Spark's frames have the PyCapsule interface, too, but in a classic session it ends in an assertion.
        if hasattr(frame, "toArrow"):
            if getattr(frame, "isStreaming", False):
                raise InputError("the events are a streaming frame: start the job stream_update for a stream")
            return frame.toArrow()
        if hasattr(frame, "__arrow_c_stream__"):
            return pa.RecordBatchReader.from_stream(frame).read_all()
        if isinstance(frame, Mapping):
            return pa.table({name: _column(values) for name, values in frame.items()})
        if isinstance(frame, list | tuple) and all(isinstance(record, Mapping) for record in frame):
            names = dict.fromkeys(name for record in frame for name in record)
            return pa.table({name: _column([record.get(name) for record in frame]) for name in names})
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(f"cannot read the events as Arrow: {' '.join(str(error).split()):.300}") from error
    raise InputError(
        f"the events are of type {type(frame).__name__}: give a pandas, polars, pyarrow or Spark DataFrame, "
        "or a list of dictionaries"
    )


def named_columns(table: pa.Table, settings: Settings, source: str = "the frame of events") -> dict[str, pa.Array]:
    """The columns of events that a table has, under the project's names.

    Args:
        table: As it came in.
        settings: The section source is used.
        source: What the table is called in an error.

    Raises:
        InputError: a needed column, or one that the settings name, is missing.
    """
    mapped, unnamed = settings.source.columns.model_dump(), Columns().model_dump()
    optional = {VALUE, EVENT_ID, LIST_ID} | ({EVENT_TYPE} if settings.source.default_event_type else set())
    columns = {}
    for column, name in mapped.items():
        found = table.column_names.count(name)
        if found > 1:
            raise InputError(f"{source} has {found} columns '{name}': keep one")
        if found:
            columns[column] = table[name].combine_chunks()
        elif name is not None and (column not in optional or name != unnamed[column]):
            having = ", ".join(table.column_names)
            raise InputError(f"{source} has no column '{name}' for source.columns.{column}; it has {having:.300}")
        elif column == EVENT_TYPE and settings.source.default_event_type is None:
            raise InputError("source.columns.event_type is null: set source.default_event_type")
    return columns


def to_frame(columns: Mapping[str, Any]) -> Any:
    """Columns as a pandas DataFrame, or as a pyarrow.Table where pandas is not installed."""
    table = pa.table(dict(columns))
    return table.to_pandas() if importlib.util.find_spec("pandas") else table


def listed(left_out: Mapping[str, int]) -> str:
    """Counts by reason, for people."""
    return ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())


def _column(values: Any) -> pa.Array:
    """Values as Arrow has them; what is of several types as text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None or value != value else str(value) for value in values], pa.string())


def _ordered(judged: Judged) -> tuple[WeighedEvents, int]:
    """Good events in the order of time, user, item and weight, of each event id the first; and how many that drops."""
    rows = np.flatnonzero(judged.good)
    taken = pa.array(rows)
    user_ids, item_ids, users, items = _distinct(judged.users.take(taken), judged.items.take(taken))
    weights, times = judged.weights[rows], judged.times[rows]
    ids = judged.event_ids.take(taken).dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    order = np.lexsort((weights, items, users, times))
    kept = np.ones(len(order), dtype=bool)
    known = np.flatnonzero(ids[order] >= 0)
    kept[known] = False
    kept[known[np.unique(ids[order][known], return_index=True)[1]]] = True
    order = order[kept]
    shown = judged.impressions[rows][order]
    events = WeighedEvents(
        user_ids,
        item_ids,
        users[order],
        items[order],
        weights[order],
        times[order] / 1e6,
        shown if shown.any() else None,
    )
    return events, int((~kept).sum())


def _distinct(
    users: Sequence[str] | pa.Array, items: Sequence[str] | pa.Array
) -> tuple[list[str], list[str], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    (user_ids, user_places), (item_ids, item_places) = (_places(ids) for ids in (users, items))
    return user_ids, item_ids, user_places, item_places


def _places(ids: Sequence[str] | pa.Array) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Distinct ids sorted by their bytes, and the place of each of n ids among them, (n,)."""
    encoded = (ids if isinstance(ids, pa.Array) else pa.array(ids, pa.string())).dictionary_encode()
    order = pc.sort_indices(encoded.dictionary)
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order.to_numpy()] = np.arange(len(order))
    return encoded.dictionary.take(order).to_pylist(), ranks[encoded.indices.to_numpy()]

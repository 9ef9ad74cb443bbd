"""How fast the whole job is: events per second, its cost beside a bare log, and what a longer history changes.

    python -m bench.speed.stream --quick

Three streams over the same files run in one process, from JSON lines to the last commit, with the default settings of
the learner:

* `long history`: `run_stream` as the job calls it, behind a history ten times as long as the next one's;
* `whole job`: the same behind a short history;
* `log only`: reading, checking, aggregating and the append to the interaction log; nothing else.

Times are those of Spark's triggers: from the planning of a micro-batch to its commit. Snapshots, versions and refreshes
of the totals are due every 20 or 50 batches; the full bench contains them, `--quick` is too short for them.
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
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQueryListener
from tqdm import tqdm

from bench.harness.generate import draw, events
from bench.harness.logs import logged
from recsys.config import Settings
from recsys.contracts import LedgerRow, StepId
from recsys.model import snapshot
from recsys.model.recommender import OnlineModel
from recsys.storage import checkpoint_folder, snapshot_folder
from recsys.stream.job import run_stream
from recsys.stream.pipeline import application_id
from recsys.stream.replay import to_json_lines
from recsys.tables import ledger, log
from recsys.tables.delta import Tables
from recsys.tables.session import build_session
from recsys.tables.source import open_events

PROGRESS_WAIT_SECONDS = 60.0
APPLICATION = "recsys:bench"


@dataclass(frozen=True)
class StreamSize:
    """Size of the measured streams. The first `warm_up` batches of each are not counted."""

    users: int
    items: int
    per_batch: int
    batches: int
    warm_up: int
    history: int


QUICK = StreamSize(users=30_000, items=10_000, per_batch=100_000, batches=3, warm_up=1, history=100_000)
FULL = StreamSize(users=100_000, items=30_000, per_batch=100_000, batches=55, warm_up=5, history=1_000_000)


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
    with tempfile.TemporaryDirectory() as folder, tqdm(total=3, desc="bench", unit=" stream") as bar:
        root = Path(folder)
        names = ("warm-up", "log-only", "short", "long")
        settings = {name: stream_settings(root / "events", root / name) for name in names}
        spark = build_session(settings["short"])
        times = TriggerTimes()
        spark.streams.addListener(times)
        write_files(root / "events", shape)
        run_log_only(spark, settings["warm-up"])
        times.take(shape.batches)
        seconds = {}
        # What is later still runs on warmer code: so the longer history, and then the whole job, have the harder part.
        for name, history in (("long", 10 * shape.history), ("short", shape.history)):
            write_history(spark, settings[name], shape, history)
            run_stream(settings[name], batches=shape.batches)
            seconds[name] = times.take(shape.batches)[shape.warm_up :]
            bar.update()
        run_log_only(spark, settings["log-only"])
        bare = times.take(shape.batches)[shape.warm_up :]
        bar.update()
        spark.streams.removeListener(times)

    whole = seconds["short"]
    speed = {name: shape.per_batch * len(taken) / taken.sum() for name, taken in (("bare", bare), ("whole", whole))}
    print(f"{shape.users:,} users, {shape.items:,} items, {shape.per_batch:,} events a batch, {os.cpu_count()} cores")
    print(f"log only    : {np.median(bare):.2f} s a batch, {speed['bare']:,.0f} events/s")
    print(f"whole job   : {np.median(whole):.2f} s a batch, {speed['whole']:,.0f} events/s, {shape.history:,} before")
    print(f"long history: {np.median(seconds['long']):.2f} s a batch, {10 * shape.history:,} events before")
    print(
        f"stream_events_per_s={speed['whole']:.0f} overhead_ratio={whole.sum() / bare.sum():.2f} "
        f"batch_time_growth_10x={np.median(seconds['long']) / np.median(whole):.2f}"
    )


def stream_settings(source: Path, root: Path) -> Settings:
    """Default settings for a generated stream, one file a batch."""
    return Settings.model_validate(
        {
            "source": {"path": str(source), "options": {"maxFilesPerTrigger": "1"}, "columns": {"event_id": None}},
            "storage": {"root": str(root)},
            "weights": {"purchase": 1.0},
            # Only the history before the stream is learned by it.
            "model": {"rebuild_sweeps": 1},
        }
    )


def write_files(folder: Path, shape: StreamSize) -> None:
    """Write consecutive event files, their modification times a second apart."""
    folder.mkdir()
    for number in tqdm(range(shape.batches), desc="writing events", leave=False):
        start = 10 * shape.history + number * shape.per_batch
        batch = events(shape.per_batch, shape.users, shape.items, seed=0, start=start)
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
        .option("checkpointLocation", str(checkpoint_folder(settings.storage.root)))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()


def write_history(spark: SparkSession, settings: Settings, shape: StreamSize, size: int) -> None:
    """Leave tables and a snapshot as a rebuild over `size` events does, so that a stream goes on from there."""
    past = draw(size, shape.users, shape.items, seed=0, start=10 * shape.history - size)
    tables = Tables(spark, settings.storage)
    tables.create_missing()
    rows = logged(past)
    version = log.append(tables, rows, StepId(0, 0), APPLICATION)
    begin = StepId(1, -1)
    model = OnlineModel(settings)
    model.absorb(log.to_batch(rows), StepId(0, 0))
    model.refit(begin)
    snapshot.save(snapshot.path_for(snapshot_folder(settings.storage.root), begin), model)
    row = LedgerRow(begin, version, 0, 0, 0, 0, datetime.now(UTC))
    ledger.append(tables, [row], APPLICATION, begin.generation)


if __name__ == "__main__":
    main()

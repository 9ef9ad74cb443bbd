"""How fast the whole job is: large and small batches, what a longer history changes, and the age of learned events.

    python -m bench.speed.stream --quick

Streams over generated JSON lines run in one process, one after the other, with the default settings of the learner:

* `small, long` and `small`: batches of 5,000 events, behind a history of ten times the length and behind a short one;
* `steady`: 5,000 events arrive every second, with their times; how old are they when the model has learned them?
* `large`: batches of 100,000 events, behind the short history;
* `log only`: the same files read, checked, aggregated and appended to the interaction log; nothing else. The part of it
  from the first line to the sums (parse, check, weigh, sum) is told by itself, too.

Times of batches are those of Spark's triggers: from the planning of a micro-batch to its commit. Those of stages are in
the ledger. Snapshots, versions and refreshes of the totals are due every 20 or 50 batches; the full bench contains
them, `--quick` is too short for them.
"""

import argparse
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQueryListener
from tqdm import tqdm

from bench.harness.generate import draw, events
from bench.harness.logs import logged
from recsys.config import Settings
from recsys.config.sections import Trigger
from recsys.contracts import LedgerRow, StepId
from recsys.model import snapshot
from recsys.model.recommender import OnlineModel
from recsys.model.snapshot import Snapshot
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
    """Size of the measured streams.

    Attributes:
        users, items: how many there are.
        history: events in the short history.
        large, small: number of batches; the first `warm_up` of a stream are not counted.
        seconds: length of the steady stream, of which the first half warms up.
    """

    users: int
    items: int
    history: int
    large: int
    small: int
    warm_up: int
    seconds: int


LARGE, SMALL = 100_000, 5_000
QUICK = StreamSize(users=30_000, items=10_000, history=100_000, large=3, small=13, warm_up=1, seconds=16)
FULL = StreamSize(users=100_000, items=30_000, history=1_000_000, large=55, small=105, warm_up=5, seconds=120)


@dataclass(frozen=True)
class Stages:
    """Seconds of a batch, medians: in Spark up to the log, to evaluate, to learn, and all that the batch took."""

    spark: float
    evaluate: float
    learn: float
    whole: float

    @classmethod
    def of(cls, rows: Sequence[LedgerRow]) -> "Stages":
        """From the ledger."""
        named = {name: f"{name}_seconds" for name in ("spark", "evaluate", "learn")}
        medians = {name: float(np.median([row.metrics[key] for row in rows])) for name, key in named.items()}
        return cls(**medians, whole=float(np.median([row.duration_ms for row in rows])) / 1000)

    def __str__(self) -> str:
        rest = self.whole - self.spark - self.evaluate - self.learn
        return (
            f"{self.whole:.2f} s up to the ledger: Spark and log {self.spark:.2f}, evaluate {self.evaluate:.2f}, "
            f"learn {self.learn:.2f}, snapshot and the rest {rest:.2f}"
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
    parser.add_argument("--quick", action="store_true", help="small streams, about 2 minutes on 2 cores")
    shape = QUICK if parser.parse_args().quick else FULL
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, tqdm(total=5, desc="bench", unit=" stream") as bar:
        root = Path(folder)
        names = {"warm-up": "small", "small-long": "small", "small": "small", "steady": "steady"}
        names |= {"large": "large", "log-only": "large"}
        settings = {name: stream_settings(root / f"{files}-events", root / name) for name, files in names.items()}
        spark = build_session(settings["large"])
        times = TriggerTimes()
        spark.streams.addListener(times)
        write_files(root / "small-events", shape, shape.small, SMALL)
        write_files(root / "large-events", shape, shape.large, LARGE)
        run_log_only(spark, settings["warm-up"])
        times.take(shape.small)
        seconds, rows = {}, {}
        # What is later still runs on warmer code: so the longer history has the harder part.
        for name, history in (("small-long", 10 * shape.history), ("small", shape.history), ("large", shape.history)):
            write_history(spark, settings[name], shape, history)
            batches = shape.large if name == "large" else shape.small
            run_stream(settings[name], batches=batches)
            seconds[name] = times.take(batches)[shape.warm_up :]
            rows[name] = learned(spark, settings[name])[shape.warm_up :]
            bar.update()
        summing = run_log_only(spark, settings["log-only"])[shape.warm_up :]
        bare = times.take(shape.large)[shape.warm_up :]
        bar.update()
        spark.streams.removeListener(times)
        write_history(spark, settings["steady"], shape, shape.history)
        run_steadily(settings["steady"], shape)
        rows["steady"] = learned(spark, settings["steady"])
        bar.update()

    rows["steady"] = rows["steady"][len(rows["steady"]) // 2 :]
    print(f"{shape.users:,} users, {shape.items:,} items, {shape.history:,} events before, {os.cpu_count()} cores")
    print(f"log only, {LARGE:,}: {np.median(bare):.2f} s a batch, {LARGE * len(bare) / bare.sum():,.0f} events/s")
    print(f"  parse, check, weigh, sum: {np.median(summing):.2f} s, {LARGE / np.mean(summing):,.0f} events/s")
    for name, size in (("large", LARGE), ("small", SMALL), ("small-long", SMALL)):
        print(f"{name}, {size:,}: {np.median(seconds[name]):.2f} s a batch; {Stages.of(rows[name])}")
    fresh = {share: median_of(rows["steady"], f"freshness_{share}_seconds") for share in ("p50", "p95")}
    size = np.mean([row.events for row in rows["steady"]])
    print(
        f"steady, {size:,.0f} a batch: {fresh['p50']:.2f} s from event to model, {fresh['p95']:.2f} s for the last 5 %"
    )
    whole, small = seconds["large"], seconds["small"]
    print(
        f"stream_events_per_s={LARGE * len(whole) / whole.sum():.0f} small_batch_ms={1000 * np.median(small):.0f} "
        f"overhead_ratio={whole.sum() / bare.sum():.2f} "
        f"batch_time_growth_10x={np.median(seconds['small-long']) / np.median(small):.2f} "
        f"event_to_model_p95_s={fresh['p95']:.2f}"
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


def write_files(folder: Path, shape: StreamSize, files: int, per_file: int) -> None:
    """Write consecutive event files, their modification times a second apart."""
    folder.mkdir()
    for number in tqdm(range(files), desc="writing events", leave=False):
        start = 10 * shape.history + number * per_file
        batch = events(per_file, shape.users, shape.items, seed=0, start=start)
        file = folder / f"{number:05d}.json"
        file.write_text(to_json_lines(batch), encoding="utf-8")
        os.utime(file, (1_700_000_000 + number, 1_700_000_000 + number))


def run_steadily(settings: Settings, shape: StreamSize) -> None:
    """Run the stream while a file of events arrives every second, and end with the batch after the last one."""
    folder = Path(settings.source.path)
    folder.mkdir()
    options = {key: value for key, value in settings.source.options.items() if key != "maxFilesPerTrigger"}
    settings = settings.model_copy(
        update={
            "source": settings.source.model_copy(update={"options": options}),
            "trigger": Trigger(mode="processing_time", interval="0 seconds"),
        }
    )

    def arrive() -> None:
        began = time.time()
        for number in range(shape.seconds):
            time.sleep(max(0.0, began + number + 1 - time.time()))
            start = 10 * shape.history + number * SMALL
            batch = events(SMALL, shape.users, shape.items, seed=0, start=start)
            # Evenly over the second before.
            stamps = pd.Timestamp(began + number, unit="s") + pd.to_timedelta(np.arange(SMALL) / SMALL, "s")
            batch["event_time"] = np.char.add(np.datetime_as_string(stamps.to_numpy().astype("datetime64[us]")), "Z")
            hidden = folder / f".{number:05d}.json"
            hidden.write_text(to_json_lines(batch), encoding="utf-8")
            hidden.rename(folder / hidden.name[1:])

    writer = threading.Thread(target=arrive, name="arriving events")

    def observe(stage: str, step: StepId) -> None:
        if stage == "batch" and not writer.is_alive():
            os.kill(os.getpid(), signal.SIGTERM)

    writer.start()
    run_stream(settings, observe=observe)
    writer.join()


def learned(spark: SparkSession, settings: Settings) -> list[LedgerRow]:
    """The ledger rows of batches with events, in order."""
    tables = Tables(spark, settings.storage)
    return [row for row in ledger.read(tables, generation=1, after=-1) if row.events]


def median_of(rows: Sequence[LedgerRow], metric: str) -> float:
    """Median of a metric over batches."""
    return float(np.median([row.metrics[metric] for row in rows]))


def run_log_only(spark: SparkSession, settings: Settings) -> list[float]:
    """Work off a source with a stream that only appends to the interaction log.

    Returns:
        Seconds of each batch from the first line to the sums.
    """
    tables, seconds = Tables(spark, settings.storage), list[float]()
    tables.create_missing()

    def append(batch: DataFrame, batch_id: int) -> None:
        started = time.perf_counter()
        rows, _ = log.collect(batch, settings.weights)
        seconds.append(time.perf_counter() - started)
        log.append(tables, rows, StepId(0, batch_id), application_id(batch))

    query = (
        open_events(spark, settings)
        .writeStream.foreachBatch(append)
        .option("checkpointLocation", str(checkpoint_folder(settings.storage.root)))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()
    return seconds


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
    Snapshot.of(model).save(snapshot.path_for(snapshot_folder(settings.storage.root), begin))
    row = LedgerRow(begin, version, 0, 0, 0, 0, datetime.now(UTC))
    ledger.append(tables, [row], APPLICATION, begin.generation)


if __name__ == "__main__":
    main()

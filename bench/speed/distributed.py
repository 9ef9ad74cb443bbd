"""Scoring and rebuild on 1 executor and on 2, of one core each, and a rebuild that the driver's memory has no room for.

    python -m bench.speed.distributed [--quick]

A generated log is written once. Each figure comes from a process of its own with a small cluster (`local-cluster`), its
executors being processes; what they load and compile is done before the clock starts. Efficiency is the time on 1
executor divided by twice that on 2: 1 where the second core is used fully, and driver and machine cost nothing.

Last, the driver's Python may have so many more bytes than at its start, fewer than the history takes: a rebuild on it
fails, and one on executors does not. Both have the same loss.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyspark

from bench.harness.generated_stream import GeneratedStream
from recsys import memory
from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.als.objective import training_loss
from recsys.model.interactions.history import BYTES_PER_PAIR
from recsys.model.recommender import OnlineModel
from recsys.registry import versions
from recsys.registry.client import connect
from recsys.registry.runs import GenerationRun
from recsys.scoring.distributed import DistributedVersion, request_of
from recsys.scoring.inputs import Inputs
from recsys.stream.distributed import Factors, train
from recsys.stream.scope import Scope
from recsys.tables import log
from recsys.tables.delta import Tables
from recsys.tables.session import build_session

# The step of the model; the first step of the log, and one after its last.
STEP = StepId(1, -1)
FIRST, THROUGH = StepId(0, 0), StepId(0, sys.maxsize)
EXECUTORS = (1, 2)
Result = TypeVar("Result")
DRIFT = 0.002
MIB = 1 << 20


@dataclass(frozen=True)
class LogSize:
    """A generated log, and how it is learned.

    Attributes:
        users, items, batches, events: how many there are; events in each batch.
        factors, sweeps: settings of the model.
        spare: bytes that the driver may have more than at its start, at the end of the bench.
    """

    users: int
    items: int
    batches: int
    events: int
    factors: int
    sweeps: int
    spare: int


QUICK = LogSize(10_000, 10_000, 6, 200_000, 16, 3, 32 * MIB)
FULL = LogSize(20_000, 20_000, 20, 200_000, 64, 8, 96 * MIB)


@dataclass(frozen=True)
class Times:
    """Seconds with some executors."""

    rebuild: float
    scoring: float


@dataclass(frozen=True)
class Alone:
    """One process, on one core.

    Attributes:
        pairs: pairs that it has learned.
        seconds: time to solve all factors.
        loss: of its factors; distributed: of those that executors have solved.
    """

    pairs: int
    seconds: float
    loss: float
    distributed: float


def main() -> None:
    """Run the bench and print its figures."""
    parser = argparse.ArgumentParser(description="Distributed scoring and rebuild.")
    parser.add_argument("--quick", action="store_true", help="a smaller log")
    size = QUICK if parser.parse_args().quick else FULL
    # Java may still write its last files.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        settings = settings_of(root, size)
        in_process(write_log, settings, size)
        times = {}
        for count in EXECUTORS:
            times[count] = taken = in_process(measure, settings, count, root)
            print(f"{count} executors: rebuild {taken.rebuild:.1f} s, scoring {taken.scoring:.2f} s", flush=True)
        alone = in_process(on_one_core, settings)
        solved = 2 * size.sweeps * alone.pairs / alone.seconds
        print(f"{alone.pairs:,} pairs; one core solves {solved / 1e6:.2f} M pairs/s with {size.factors} factors")
        history = alone.pairs * BYTES_PER_PAIR
        print(f"memory: {size.spare / MIB:.0f} MiB to spare on the driver, a history of {history / MIB:.0f} MiB")
        for distributed, name in ((False, "on the driver"), (True, "on executors")):
            outcome = fits(settings, size.spare, distributed, root)
            print(f"a rebuild {name}: {'done' if outcome else 'no memory'}")
        scoring, rebuild = (getattr(times[1], name) / (2 * getattr(times[2], name)) for name in ("scoring", "rebuild"))
        difference = abs(alone.distributed - alone.loss) / alone.loss
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print(
            f"distributed_scoring_efficiency={scoring:.2f} distributed_rebuild_efficiency={rebuild:.2f} "
            f"distributed_loss_difference={difference:.1e}"
        )


def settings_of(root: Path, size: LogSize) -> Settings:
    """Those of the log; lists may hold what a user has interacted with, so that scoring is scoring alone."""
    return Settings.model_validate(
        {
            "device": "cpu",
            "storage": {"root": str(root / "storage")},
            "model": {"kind": "als", "factors": size.factors, "rebuild_sweeps": size.sweeps},
            "recommend": {"exclude_seen": False},
            "rebuild": {"distributed": True},
        }
    )


def write_log(settings: Settings, size: LogSize) -> None:
    """Append the batches to a new log."""
    tables = Tables(build_session(settings), settings.storage)
    tables.create_missing()
    stream = GeneratedStream(size.users, size.items, settings.seed, DRIFT)
    for number in range(size.batches):
        batch = stream.take(size.events)
        times = pa.array((batch.times * 1e6).astype(np.int64)).cast(pa.timestamp("us", "UTC"))
        columns = (batch.user_ids, batch.item_ids, batch.weights, batch.events, times, times)
        rows = pa.table([*map(pa.array, columns), pa.array(np.zeros(len(batch), np.int64))], names=log.ROWS.names)
        log.append(tables, log.sorted_rows(rows), StepId(0, number), "bench")


def measure(settings: Settings, executors: int, root: Path) -> Times:
    """Rebuild and score with some executors, after both were done once."""
    tables = cluster(settings, executors, root)
    train(settings, tables, Scope(), FIRST, STEP)
    begin = time.perf_counter()
    model = train(settings, tables, Scope(), THROUGH, STEP)
    rebuild = time.perf_counter() - begin
    model.save(settings)
    client = connect(settings)
    run = GenerationRun.open(client, settings, executors, settings.mlflow.model_name)
    version = versions.register(client, settings, run.run_id, model.served(), STEP, {})
    scorer = DistributedVersion.of(tables, version, settings)
    lists = scorer.lists(scorer.audience(Inputs()), request_of(tables.spark, Inputs(), settings), datetime.now(UTC))
    taken = []
    for _ in range(3):
        begin = time.perf_counter()
        lists.write.format("noop").mode("overwrite").save()
        taken.append(time.perf_counter() - begin)
    return Times(rebuild, min(taken))


def cluster(settings: Settings, executors: int, root: Path) -> Tables:
    """The tables, with executors of one core in processes of their own."""
    # They work in a folder of the bench, not where Spark is installed.
    home = root / f"spark-{os.getpid()}"
    home.mkdir()
    for entry in Path(pyspark.__file__).parent.iterdir():
        (home / entry.name).symlink_to(entry)
    os.environ |= {"SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    spark = {
        "spark.master": f"local-cluster[{executors},1,1024]",
        "spark.driver.memory": "2g",
        "spark.executorEnv.PYTHONPATH": os.pathsep.join(sys.path),
        "spark.executorEnv.NUMBA_NUM_THREADS": "1",
        "spark.executorEnv.OMP_NUM_THREADS": "1",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "4",
        "spark.log.level": "ERROR",
    }
    session = build_session(settings.model_copy(update={"spark": spark}))
    return Tables(session, settings.storage)


def on_one_core(settings: Settings) -> Alone:
    """The same on one core of this process; the loss of both, by the same history."""
    import numba

    numba.set_num_threads(1)
    model = absorbed(settings, THROUGH)
    model.refit(STEP)  # Compiles.
    begin = time.perf_counter()
    model.refit(STEP)
    seconds = time.perf_counter() - begin
    solved = Factors.load(settings, STEP)
    assert solved is not None, "`measure` has saved it"
    losses = []
    for learner in (model.als, solved.learner):
        by_user, by_item = learner.every_row(model.history, STEP)
        losses.append(training_loss(by_user, by_item, learner.user_factors, learner.item_factors, learner.objective))
    return Alone(len(model.history), seconds, *losses)


def absorbed(settings: Settings, through: StepId) -> OnlineModel:
    """A model that has taken in the log up to a step, without having learned it."""
    model = OnlineModel(settings)
    for step, batch in log.batches(Tables(None, settings.storage), through=through):
        model.absorb(batch, step)
    return model


def fits(settings: Settings, spare: int, distributed: bool, root: Path) -> bool:
    """Whether a rebuild ends in a process that may have so many bytes more than at its start."""
    try:
        in_process(limited, settings, spare, distributed, root)
    except (MemoryError, BrokenProcessPool):  # Rust and C++ end the process.
        return False
    return True


def limited(settings: Settings, spare: int, distributed: bool, root: Path) -> None:
    """Rebuild under a limit on the writable memory of this process, which Java and the executors do not share.

    Raises:
        MemoryError: it was not enough.
    """
    tables = cluster(settings, 1, root) if distributed else None

    def work(through: StepId) -> None:
        if tables is None:
            absorbed(settings, through).refit(STEP)
        else:
            train(settings, tables, Scope(), through, STEP)

    work(FIRST)  # What is loaded and compiled once is there before.
    memory.give_back()
    (held,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line)
    most = int(held) * 1024 + spare
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    try:
        work(THROUGH)
    except (pa.ArrowMemoryError, RuntimeError) as error:  # What Arrow and torch raise.
        raise MemoryError(str(error)) from error


def in_process(work: Callable[..., Result], *given: object) -> Result:
    """Call a function in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


if __name__ == "__main__":
    main()

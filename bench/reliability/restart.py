"""How long a stream takes to be ready again behind a long log, and how much memory the log costs then.

    python -m bench.reliability.restart --rows 20000000

A first process fills log and ledger, batch by batch, and saves a snapshot a few batches before the end. A second one
does what every start does: it looks up the current generation and recovers the model, from the snapshot and the batches
of the log since. Then it reads the whole log, as a rebuild does. Spark is started before the clock is.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime

from tqdm import tqdm

from bench.harness.generate import draw
from bench.harness.logs import logged
from recsys.config import Settings
from recsys.contracts import EVENTS, LedgerRow, StepId
from recsys.model.recommender import OnlineModel
from recsys.model.snapshot import Snapshot
from recsys.storage import snapshot_folder
from recsys.stream.recovery import current_generation, recover_model
from recsys.tables import ledger, log
from recsys.tables.delta import Tables
from recsys.tables.session import build_session

USERS, ITEMS, PER_BATCH = 200_000, 40_000, 20_000
# Batches after the last snapshot: `storage.snapshot_every_batches` is twice as much by default.
TAIL = 10
APPLICATION = "recsys:bench"
GIGABYTE = 2.0**30


def main() -> None:
    """Run the bench and print its figures."""
    parser = argparse.ArgumentParser(description="Time and memory of a start behind a long log.")
    parser.add_argument("--rows", type=int, default=20_000_000, help="rows of the log")
    parser.add_argument("--kind", default="mixture", help="model.kind")
    parser.add_argument("--fill", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--start", metavar="FOLDER", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.fill:
        fill(restart_settings(given.fill, given.kind), given.rows)
    elif given.start:
        start(restart_settings(given.start, given.kind))
    else:
        measure(given.rows, given.kind)


def measure(rows: int, kind: str) -> None:
    """Run both processes and print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bench.reliability.restart", "--rows", str(rows), "--kind", kind]
        subprocess.run([*command, "--fill", folder], check=True)
        done = subprocess.run([*command, "--start", folder], check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{found['rows']:,} rows in {found['batches']:,} batches, model.kind {kind}")
    print(f"memory: {found['model_gb']:.2f} GB with the model, {found['peak_gb']:.2f} GB at most while the log is read")
    print(
        f"restart_rows={found['rows']} restart_seconds={found['restart']:.2f} read_seconds={found['read']:.1f} "
        f"restart_peak_gb={found['peak_gb']:.2f}"
    )


def restart_settings(root: str, kind: str) -> Settings:
    """Default settings of a storage."""
    return Settings.model_validate({"storage": {"root": root}, "weights": {"purchase": 1.0}, "model": {"kind": kind}})


def fill(settings: Settings, rows: int) -> None:
    """Write about so many rows of the log, the ledger, and one snapshot."""
    tables = Tables(build_session(settings), settings.storage)
    tables.create_missing()
    model, written, number = OnlineModel(settings), 0, 0
    total = max(rows // PER_BATCH, TAIL + 1)
    learned: list[LedgerRow] = []
    for number in tqdm(range(total), desc="filling the log", unit=" batches", leave=False):
        batch = logged(draw(PER_BATCH, USERS, ITEMS, seed=0, start=number * PER_BATCH))
        version = log.append(tables, batch, StepId(0, number), APPLICATION)
        events = int(batch[EVENTS].to_numpy().sum())
        learned.append(LedgerRow(StepId(0, number), version, events, 0, 0, 0, datetime.now(UTC)))
        written += batch.num_rows
        if number < total - TAIL:
            model.absorb(log.to_batch(batch), StepId(0, number))
        if number == total - TAIL - 1:
            Snapshot.of(model).save_in(snapshot_folder(settings.storage.root))
    ledger.append(tables, learned, APPLICATION, number)


def start(settings: Settings) -> None:
    """Recover the model, read the whole log, and print what that took as JSON."""
    tables = Tables(build_session(settings), settings.storage)
    began = time.perf_counter()
    model = recover_model(settings, tables, current_generation(tables))
    ready = time.perf_counter()
    with_model = peak()
    rows = batches = 0
    for _, batch in log.batches(tables):
        rows, batches = rows + len(batch), batches + 1
    found = {
        "rows": rows,
        "batches": batches,
        "restart": ready - began,
        "read": time.perf_counter() - ready,
        "model_gb": with_model,
        "peak_gb": peak(),
    }
    assert model.step == StepId(0, batches - 1)
    print(json.dumps(found))


def peak() -> float:
    """Largest memory of this process so far, in gigabytes; Java has a process of its own."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIGABYTE


if __name__ == "__main__":
    main()

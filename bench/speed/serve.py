"""How fast the server answers while the champion changes: the real job, asked by locust.

    python -m bench.speed.serve [--quick] [--seconds 120] [--rate 200]

Two versions of the default mixture learn a generated stream and are registered, the first one is champion, and
`batch_score` writes its lists. Then `jobs/serve.py` is asked at random times, so many times a second on average: 40 %
for the list of one user, 40 % for that of the table, 15 % with 5 recent items, and 5 % for 20 users at once. After a
third of the time the second version becomes champion, after two thirds the first one again. Times are those that the
client sees; client and server share the machine. An error is whatever is not answered with 200.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import requests

from bench.harness.generate import draw
from recsys.config import Settings, load_settings
from recsys.contracts import InteractionBatch, StepId
from recsys.model.recommender import OnlineModel
from recsys.registry import decisions, versions
from recsys.registry.client import connect
from recsys.registry.decisions import RegistryDecision
from recsys.registry.runs import GenerationRun
from recsys.registry.versions import Version

CLIENTS = 100
START_SECONDS = 120
BY_BENCH = RegistryDecision("bench", "to see what requests notice of it")


@dataclass(frozen=True)
class ServeSize:
    """A generated stream."""

    users: int
    items: int
    events: int


QUICK, FULL = ServeSize(3_000, 1_000, 60_000), ServeSize(60_000, 20_000, 1_200_000)
# When a request began (seconds since 1970), its kind, milliseconds, whether it was answered, and by which version.
Note = tuple[float, str, float, bool, str]


def main() -> None:
    """Run the bench and print its figures."""
    parser = argparse.ArgumentParser(description="Latency of the server while the champion changes.")
    parser.add_argument("--quick", action="store_true", help="a small model, for 15 seconds")
    parser.add_argument("--seconds", type=int, help="how long it is asked; default: 120")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    given = parser.parse_args()
    size, seconds = (QUICK, 15) if given.quick else (FULL, 120)
    seconds = given.seconds or seconds
    with tempfile.TemporaryDirectory() as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        overrides = [f"storage.root={folder}/recsys", f"serve.port={port}", "weights.purchase.weight=1"]
        settings = load_settings(overrides=overrides)
        first, second = registered(settings, size)
        run("batch_score", overrides)
        with served(overrides, port, Path(folder, "serve.log")) as address:
            notes, moved = asked(settings, address, size, given.rate, seconds, (second, first))
    report(notes, moved, seconds)


def registered(settings: Settings, size: ServeSize) -> list[Version]:
    """Two versions, the first one as champion."""
    client = connect(settings)
    run = GenerationRun.open(client, settings, 0, "bench")
    model, made = OnlineModel(settings), list[Version]()
    for number in range(2):
        part = size.events // 2
        model.absorb(batch_of(size, part, number * part), StepId(0, number))
        if number == 0:
            model.refit(StepId(0, number))
        made.append(versions.register(client, settings, run.run_id, model.served(), StepId(0, number), {}))
    decisions.promote(client, made[0], BY_BENCH)
    return made


def batch_of(size: ServeSize, events: int, start: int) -> InteractionBatch:
    """A part of the stream as one batch, a row for each pair."""
    drawn = draw(events, size.users, size.items, seed=0, start=start)
    pairs = drawn.groupby(["user", "item"], as_index=False).agg(events=("time", "size"), time=("time", "max"))
    counts = pairs["events"].to_numpy()
    return InteractionBatch(
        ("u" + pairs["user"].astype(str)).tolist(),
        ("i" + pairs["item"].astype(str)).tolist(),
        counts.astype(float),
        counts,
        pairs["time"].astype("int64").to_numpy() / 1e9,
    )


def run(job: str, overrides: Sequence[str]) -> None:
    """Run a job to its end."""
    subprocess.run([sys.executable, f"jobs/{job}.py", *overrides], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def served(overrides: Sequence[str], port: int, log: Path) -> Iterator[str]:
    """The job as a process, once it answers; gives its address."""
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "jobs/serve.py", *overrides], stdout=output, stderr=output)
    try:
        limit = time.monotonic() + START_SECONDS
        while True:
            try:
                requests.get(f"{address}/healthz", timeout=START_SECONDS).raise_for_status()
                break
            except requests.ConnectionError:
                if process.poll() is not None or time.monotonic() > limit:
                    raise SystemExit(f"the server did not start: {log.read_text()}") from None
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def asked(
    settings: Settings, address: str, size: ServeSize, rate: float, seconds: int, then: Sequence[Version]
) -> tuple[list[Note], list[tuple[float, str]]]:
    """Ask for some time, with another champion after equal parts of it; all requests, and when which version came."""
    client, moved = connect(settings), list[tuple[float, str]]()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "notes.json")
        environment = {
            "LOAD_RATE_PER_CLIENT": str(rate / CLIENTS),
            "LOAD_USERS": str(size.users),
            "LOAD_ITEMS": str(size.items),
            "LOAD_NOTES": str(file),
        }
        command = [sys.executable, "-m", "locust", "-f", "bench/harness/serve_load.py", "--headless", "--host", address]
        command += ["-u", str(CLIENTS), "-r", str(CLIENTS), "-t", f"{seconds}s", "--stop-timeout", "20"]
        command += ["--only-summary", "--exit-code-on-error", "0", "--loglevel", "ERROR"]
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
        for version in then:
            time.sleep(seconds / (len(then) + 1))
            decisions.promote(client, version, BY_BENCH)
            moved.append((time.time(), version.version))
        if process.wait():
            raise SystemExit("locust failed, see above")
        return [tuple(note) for note in json.loads(file.read_text("utf-8"))], moved


def report(notes: Sequence[Note], moved: Sequence[tuple[float, str]], seconds: float) -> None:
    """Print the figures."""
    for kind in sorted({note[1] for note in notes}):
        print(f"{kind:18} {described([note for note in notes if note[1] == kind])}")
    for when, version in moved:
        taken_over = [note[0] - when for note in notes if note[0] >= when and note[4] == version]
        took = f"{min(taken_over):.1f} s later" if taken_over else "never"
        loading = [note for note in notes if when <= note[0] < when + min(taken_over, default=0.0)]
        print(f"version {version} champion: answers {took}; until then {described(loading)}")
    times = [note[2] for note in notes]
    print(
        f"serve_requests_per_s={len(notes) / seconds:.0f} serve_p50_ms={np.quantile(times, 0.5):.1f} "
        f"serve_p99_ms={np.quantile(times, 0.99):.1f} serve_errors={sum(not note[3] for note in notes)}"
    )


def described(notes: Sequence[Note]) -> str:
    """How long some requests took."""
    if not notes:
        return "no requests"
    p50, p99, most = np.quantile([note[2] for note in notes], (0.5, 0.99, 1.0))
    return f"{len(notes):6,} requests, p50 {p50:.1f}, p99 {p99:.1f}, at most {most:.1f} ms"


if __name__ == "__main__":
    main()

"""Kills the jobs at every fault point, and at random instants, and compares what they leave with an undisturbed run.

    python -m tests.fire [--quick] [--seeds N] [--first SEED] [--kinds mixture ncf]

Each job is killed again and again in one storage, at one point after the other, and started again each time. A point
that a job does not pass any more, because all its work is done, is reported as not reached.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from tqdm import tqdm

from recsys.config import load_settings
from tests.fire import jobs
from tests.fire.compare import Difference, compare
from tests.fire.jobs import Fault
from tests.stream.disturbed import write_config, write_event_files

FILES = 30
# A backfill takes the first files, too few for a version that is due; the stream goes on with what arrives after it.
ARRIVING = {"backfill": slice(2), "stream_update": slice(2, None)}
JOBS = ("backfill", "stream_update", "batch_score", "rebuild", "maintain")
KINDS = ("mixture", "ncf")
QUICK_SHARE = 1 / 20
_MADE = "MLflow create_model_version"


@dataclass
class Tally:
    """What became of a scenario.

    Attributes:
        points: names of the fault points passed, with the job.
        killed: points at which a process has died.
        random_kills: kills at random instants.
        missed: points that a job did not pass again.
        difference: from the undisturbed storage.
    """

    points: set[tuple[str, str]] = field(default_factory=set)
    killed: set[tuple[str, str]] = field(default_factory=set)
    kills: int = 0
    random_kills: int = 0
    missed: set[tuple[str, str]] = field(default_factory=set)
    difference: Difference = field(default_factory=Difference)


def scenario(folder: Path, kind: str, seed: int, share: float = 1, files: int = FILES) -> Tally:
    """Run one job after the other, undisturbed in one storage and under fire in another, and compare.

    Args:
        folder: an empty folder.
        kind: `model.kind`.
        seed: chooses random instants and, for a share below 1, points.
        share: of each job's points, how many it is killed at.
        files: how many files of events there are, of a batch each.
    """
    draw, tally = random.Random(f"{kind} {seed}"), Tally()
    stored, events = folder / "all", folder / "events"
    write_event_files(stored, files)
    events.mkdir()
    undisturbed, disturbed = (_config(folder, name, kind) for name in ("undisturbed", "disturbed"))
    for job in JOBS:
        for file in sorted(stored.iterdir())[ARRIVING.get(job, slice(0))]:
            shutil.copy2(file, events / file.name)
        if job == "maintain":
            # It deletes some of what there is to compare.
            tally.difference += compare(load_settings(disturbed), load_settings(undisturbed))
            _abandon_files(folder)
        record = folder / f"{job}.points"
        _finish(job, undisturbed, record)
        points = _deadly(job, [line.partition(" ")[2] for line in record.read_text().splitlines()])
        tally.points |= {(job, point) for point in points}
        chosen = sorted(draw.sample(range(len(points)), max(1, round(share * len(points)))))
        _under_fire(job, disturbed, [points[place] for place in chosen], draw, tally)
    tally.difference += compare(load_settings(disturbed), load_settings(undisturbed))
    return tally


def _abandon_files(folder: Path) -> None:
    """Leave in every table what a writer leaves that died long ago, so that there is something to vacuum."""
    for table in folder.glob("*disturbed/tables/*"):
        file = table / "abandoned.parquet"
        file.touch()
        os.utime(file, (0, 0))


def _deadly(job: str, points: list[str]) -> list[str]:
    """The points at which a job may die and be started again as if it had never run.

    A rebuild that dies after its version was registered is complete: started again, it is another rebuild.
    """
    if job != "rebuild":
        return points
    return points[: next(place for place, point in enumerate(points) if point.startswith("after") and _MADE in point)]


def _under_fire(job: str, config: Path, targets: list[str], draw: random.Random, tally: Tally) -> None:
    """Kill a job at one point after the other, at random instants in between, and let it end.

    At the first one the job does what it did undisturbed, so it passes it.

    A rebuild that ends before its point is the rebuild: started again, it would be another one.
    """
    for place, target in enumerate(targets):
        started = time.monotonic()
        status = jobs.end(jobs.start(job, config, Fault(target)), config)
        if status == 0:
            tally.missed.add((job, target))
            if not place:
                raise RuntimeError(f"{job} does not pass '{target}' again, so it was not disturbed at all")
            if job == "rebuild":
                tally.missed |= {(job, later) for later in targets[place:]}
                return
            continue
        tally.kills += 1
        tally.killed.add((job, target))
        # A rebuild that has ended by then would be started again as another one.
        if job != "rebuild" and draw.random() < 1 / 8:
            process = jobs.start(job, config)
            if jobs.end(process, config, within=draw.uniform(1, time.monotonic() - started)) == -signal.SIGKILL:
                tally.kills += 1
                tally.random_kills += 1
    _finish(job, config)


def _finish(job: str, config: Path, record: Path | None = None) -> None:
    status = jobs.end(jobs.start(job, config, record=record), config)
    if status != 0:
        raise RuntimeError(f"{job} did not end: {jobs.printed(config).read_text()[-4000:]}")


def _config(folder: Path, name: str, kind: str) -> Path:
    file = write_config(folder, name)
    settings = yaml.safe_load(file.read_text())
    settings["model"] |= {"kind": kind}
    settings["source"]["max_records_per_batch"] = 195
    settings["maintain"] = {"versions_kept": 1, "quarantine_days": 1e-9}
    file.write_text(yaml.safe_dump(settings))
    return file


def main(arguments: list[str] | None = None) -> int:
    """Run every kind side by side; returns 0 if nothing was lost, doubled or different."""
    parser = argparse.ArgumentParser(prog="python -m tests.fire", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a sample of the points, under 10 minutes")
    parser.add_argument("--seeds", type=int, default=3, help="how often each point is tried")
    parser.add_argument("--first", type=int, default=0, help="the first seed, to go through them in several runs")
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    given = parser.parse_args(arguments)
    seeds = range(given.first, given.first + (1 if given.quick else given.seeds))
    rounds = [(kind, seed) for seed in seeds for kind in given.kinds]
    tallies: dict[tuple[str, int], Tally] = {}
    failures: list[str] = []
    waiting, lock = list(rounds), threading.Lock()
    with tempfile.TemporaryDirectory() as folder, tqdm(total=len(rounds), unit=" scenarios") as progress:

        def work() -> None:
            while True:
                with lock:
                    if not waiting:
                        return
                    kind, seed = waiting.pop(0)
                own = Path(folder, f"{kind}-{seed}")
                own.mkdir()
                try:
                    share = QUICK_SHARE if given.quick else 1
                    tallies[kind, seed] = scenario(own, kind, seed, share)
                except Exception:  # The other scenarios go on; this one is reported.
                    failures.append(f"{kind}, seed {seed}: {traceback.format_exc()}")
                progress.update()

        workers = [threading.Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    for failure in failures:
        print(failure, file=sys.stderr)
    print(report(tallies))
    differing = sum(len(tally.difference.different) for tally in tallies.values()) + len(failures)
    points = {point for tally in tallies.values() for point in tally.killed}
    lost, doubled = (sum(getattr(tally.difference, name) for tally in tallies.values()) for name in ("lost", "doubled"))
    kills = sum(tally.kills for tally in tallies.values())
    print(f"fire_points={len(points)} fire_kills={kills} fire_lost={lost}", end=" ")
    print(f"fire_doubled={doubled} fire_different={differing}")
    return int(bool(lost or doubled or differing))


def report(tallies: dict[tuple[str, int], Tally]) -> str:
    """A table of the scenarios, what differs in them, and the points that no process died at."""
    lines = ["kind      seed  points  kills  at random  lost  doubled  different"]
    for (kind, seed), tally in sorted(tallies.items()):
        counts = (len(tally.killed), tally.kills, tally.random_kills, tally.difference.lost, tally.difference.doubled)
        columns = "  ".join(f"{count:>{width}}" for count, width in zip(counts, (6, 5, 9, 4, 7), strict=True))
        lines.append(f"{kind:<8}  {seed:>4}  {columns}  {len(tally.difference.different):>9}")
        lines += [f"    {what}" for what in tally.difference.different]
    killed = {point for tally in tallies.values() for point in tally.killed}
    missed = {point for tally in tallies.values() for point in tally.missed} - killed
    if missed:
        lines += ["not reached after the kills before:", *(f"    {job}: {point}" for job, point in sorted(missed))]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

"""How the cost of a batch grows with users, items and history: stage by stage, from 1 to 16 times.

    python -m bench.speed.scale [--quick]

For each size a process of its own fills a default mixture with a generated stream, retrains it, and lets batches of
5,000 events follow. Each is evaluated on 500 users, for the live model, a champion and popularity, and then learned.
What is due only now and then is timed once: the snapshot, and the arrays of a version.

The smallest size has 30,000 users, 10,000 items and 1 million events; `--quick`: a tenth of that, up to 4 times.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from tqdm import tqdm

from bench.harness.charts import COLORS, in_rows, plain
from bench.harness.generated_stream import GeneratedStream, following
from recsys.config import Settings
from recsys.model.evaluation.prequential import evaluate
from recsys.model.evaluation.rivals import Rivals
from recsys.model.recommender import OnlineModel
from recsys.model.snapshot import Snapshot
from recsys.stream.plots import INK

PLOT = Path("docs/scale.png")
USERS, ITEMS, EVENTS = 30_000, 10_000, 1_000_000
FACTORS, QUICK = (1, 4, 16), (1, 2, 4)
QUICK_SHARE = 0.1
BATCH, BATCHES = 5_000, 11
PER_FILL = 1_000_000
DRIFT = 0.002
STAGES = ("evaluate", "learn", "snapshot", "version")


@dataclass(frozen=True)
class Costs:
    """What was measured at one size; seconds of a batch are medians.

    Attributes:
        times: the size, in multiples of the smallest one.
        pairs: distinct pairs that the model has learned.
        evaluate, learn: seconds for one batch; learn_worst: for the slowest one.
        snapshot: seconds to save the state; version: to make the arrays of a version.
        rebuild: seconds to take in the stream and retrain.
        bytes_per_pair: memory that the process has gained since before, by pair.
    """

    times: int
    pairs: int
    evaluate: float
    learn: float
    learn_worst: float
    snapshot: float
    version: float
    rebuild: float
    bytes_per_pair: float


def measure(times: int, share: float) -> Costs:
    """Fill a model, and time some batches; the first one warms up.

    Args:
        times: the size, in multiples of the smallest one.
        share: of the sizes that the module names.
    """
    users, items, events = (round(share * times * number) for number in (USERS, ITEMS, EVENTS))
    settings = Settings()
    model, stream = OnlineModel(settings), GeneratedStream(users, items, settings.seed, DRIFT)
    before, begin = resident_bytes(), time.perf_counter()
    while stream.taken < events:
        model.absorb(stream.take(min(PER_FILL, events - stream.taken)), following(model.step))
    model.refit(following(model.step))
    rebuild = time.perf_counter() - begin
    bytes_per_pair = (resident_bytes() - before) / len(model.history)
    begin = time.perf_counter()
    champion = model.served()
    version, rivals = time.perf_counter() - begin, Rivals({"champion": champion})
    evaluated, learned = [], []
    for _ in range(BATCHES):
        batch, step = stream.take(BATCH), following(model.step)
        begin = time.perf_counter()
        evaluate(batch, model, rivals, settings, step)
        evaluated.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        model.update(batch, step)
        learned.append(time.perf_counter() - begin)
    return Costs(
        times=times,
        pairs=len(model.history),
        evaluate=float(np.median(evaluated[1:])),
        learn=float(np.median(learned[1:])),
        learn_worst=max(learned[1:]),
        snapshot=snapshot_seconds(model),
        version=version,
        rebuild=rebuild,
        bytes_per_pair=bytes_per_pair,
    )


def snapshot_seconds(model: OnlineModel) -> float:
    """Time to save the state of a model."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        Snapshot.of(model).save_in(Path(folder))
        return time.perf_counter() - begin


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def draw_costs(costs: list[Costs], path: Path) -> Path:
    """A panel for the seconds of each stage by size, and one for memory."""
    return in_rows([partial(_draw_seconds, costs=costs), partial(_draw_bytes, costs=costs)], path, (9, 3.2), columns=2)


def growth(costs: list[Costs], stage: str) -> float:
    """Time of a stage at the largest size by that at the smallest."""
    return float(getattr(costs[-1], stage) / getattr(costs[0], stage))


def _draw_seconds(axes: Axes, costs: list[Costs]) -> None:
    for stage, color in zip(STAGES, COLORS[-len(STAGES) :], strict=True):
        axes.plot([one.times for one in costs], [getattr(one, stage) for one in costs], "o-", color=color, label=stage)
    _sizes(axes, costs)
    axes.set_yscale("log")
    axes.set_title("seconds", loc="left", color=INK, fontsize=9, fontweight="bold")


def _draw_bytes(axes: Axes, costs: list[Costs]) -> None:
    axes.plot([one.times for one in costs], [one.bytes_per_pair for one in costs], "o-", color=COLORS[-1])
    _sizes(axes, costs)
    axes.set_ylim(bottom=0)
    axes.set_title("bytes of memory per pair", loc="left", color=INK, fontsize=9, fontweight="bold")


def _sizes(axes: Axes, costs: list[Costs]) -> None:
    plain(axes, 8)
    axes.set_xscale("log", base=2)
    axes.set_xticks([one.times for one in costs], [f"{one.times} ×" for one in costs])
    axes.set_xlabel("users, items and events", color=INK, fontsize=8)


def main() -> None:
    """Run, draw, and print a table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes, up to 4 times, without a picture")
    quick = parser.parse_args().quick
    share, sizes = (QUICK_SHARE, QUICK) if quick else (1.0, FACTORS)
    costs = []
    # A new process for each size, so that memory of one is not that of the one before.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for times in tqdm(sizes, unit=" sizes"):
            costs.append(pool.apply(measure, (times, share)))
    print(f"\n{pd.DataFrame([asdict(one) for one in costs]).round(3).to_string(index=False)}")
    if not quick:
        print(f"picture: {draw_costs(costs, PLOT)}")
    grown = (f"scale_{stage}_{sizes[-1]}x={growth(costs, stage):.2f}" for stage in ("evaluate", "learn"))
    print(*grown, f"scale_bytes_per_pair={costs[-1].bytes_per_pair:.0f}")


if __name__ == "__main__":
    main()

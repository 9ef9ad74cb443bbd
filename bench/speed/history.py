"""The history alone: what a pair costs in memory, and what a batch costs behind a short and a long history.

    python -m bench.speed.history [--quick] [--interactions 100000000] [--users 2000000] [--items 200000] [--batch 5000]

Fills a history with generated pairs, popular ones repeated. Whenever it holds 1, 10 and 100 million distinct pairs
(`--quick`: 1 and 5), small batches are added as a stream would, and the rows they touch are copied out.
"""

import argparse
import resource
import time
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from bench.harness.generate import zipf_codes
from recsys.model.interactions.history import History

IntArray = npt.NDArray[np.int64]

MILESTONES = (1_000_000, 10_000_000, 100_000_000)
QUICK = 5_000_000
SMALL_BATCHES = 41
PER_FILL = 1_000_000
SECONDS_PER_EVENT = 0.01
HALF_LIFE_DAYS = 30.0


@dataclass(frozen=True)
class HistoryCosts:
    """What was measured at one length of the history.

    Attributes:
        pairs: distinct pairs held.
        bytes_per_pair: bytes that the history says it holds, by pair.
        peak_gb: largest resident memory of the process so far, 10^9 bytes.
        add_ms: median of the time to add a small batch.
        slowest_add_ms: the longest of those times.
        gather_ms: median of the time to copy out all rows of a small batch's users and items.
        gathered: median number of interactions in those rows.
        fill_s: seconds that filling the history up to here took.
    """

    pairs: int
    bytes_per_pair: float
    peak_gb: float
    add_ms: float
    slowest_add_ms: float
    gather_ms: float
    gathered: int
    fill_s: float


class PairStream:
    """Draws events of a stream: Zipf users and items, flat enough that most pairs are distinct."""

    def __init__(self, users: int, items: int) -> None:
        self._users, self._items = users, items
        self._drawn = 0

    def draw(self, size: int) -> tuple[IntArray, IntArray, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The next events: users, items, weights and times, (size,) each."""
        generator = np.random.default_rng([self._drawn, size])
        users = zipf_codes(generator, size, self._users, exponent=0.5)
        items = zipf_codes(generator, size, self._items, exponent=0.7)
        times = (self._drawn + np.arange(size, dtype=np.float64)) * SECONDS_PER_EVENT
        self._drawn += size
        return users, items, np.ones(size), times


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(history: History, stream: PairStream, batch: int, fill_s: float) -> HistoryCosts:
    """Add small batches to a history and copy out the rows they touch."""
    adds, gathers, gathered = [], [], []
    for _ in range(SMALL_BATCHES):
        users, items, weights, times = stream.draw(batch)
        begin = time.perf_counter()
        history.add(users, items, weights, times)
        adds.append(1000 * (time.perf_counter() - begin))
        touched = np.unique(users), np.unique(items)
        begin = time.perf_counter()
        by_user, by_item = history.user_rows(touched[0]), history.item_rows(touched[1])
        gathers.append(1000 * (time.perf_counter() - begin))
        gathered.append(len(by_user.others) + len(by_item.others))
    return HistoryCosts(
        pairs=len(history),
        bytes_per_pair=history.nbytes / len(history),
        peak_gb=peak_bytes() / 1e9,
        add_ms=float(np.median(adds)),
        slowest_add_ms=max(adds),
        gather_ms=float(np.median(gathers)),
        gathered=int(np.median(gathered)),
        fill_s=fill_s,
    )


def run(sizes: list[int], users: int, items: int, batch: int) -> list[HistoryCosts]:
    """Measure at each size, in ascending order."""
    history, stream = History(HALF_LIFE_DAYS), PairStream(users, items)
    history.add_rows(users, items)
    results, fill_s = [], 0.0
    with tqdm(total=sizes[-1], unit="pair", unit_scale=True, dynamic_ncols=True) as bar:
        for size in sizes:
            while len(history) < size:
                events = stream.draw(max(min(PER_FILL, size - len(history)), batch))
                before, begin = len(history), time.perf_counter()
                history.add(*events)
                fill_s += time.perf_counter() - begin
                bar.update(len(history) - before)
            results.append(measure(history, stream, batch, fill_s))
    return results


def main() -> None:
    """Run, print a table and the two figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="stop at 5 million pairs")
    parser.add_argument("--interactions", type=int, default=MILESTONES[-1], help="distinct pairs to stop at")
    parser.add_argument("--users", type=int, default=2_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=5_000, help="events of a small batch")
    arguments = parser.parse_args()
    largest = min(arguments.interactions, QUICK) if arguments.quick else arguments.interactions
    sizes = [*(size for size in MILESTONES if size < largest), largest]
    results = run(sizes, arguments.users, arguments.items, arguments.batch)
    print(f"\n{pd.DataFrame([asdict(result) for result in results]).round(2).to_string(index=False)}")
    growth = results[-1].add_ms / results[0].add_ms
    print(f"history_bytes_per_interaction={results[-1].bytes_per_pair:.1f} history_add_growth={growth:.2f}")


if __name__ == "__main__":
    main()

"""Training from scratch: seconds until a training loss that `implicit`, and that MLlib, reach in ten iterations.

    python -m bench.speed.als [--quick] [--data DIR] [--no-mllib]

All run in one process on the same matrix and all cores, in turn, each repeat from other random factors, each package
drawing them as it does by default. The loss of all is computed by the same function, with the same confidences
1 + alpha * (events of the pair). Seconds are those of the iterations with all that belongs to them; not counted are the
loss, the compilation (one run warms up), and the transposing of the matrix: all get it from both sides.

`implicit` runs with its defaults (3 steps of conjugate gradients) and one thread of linear algebra in each of its own,
as its documentation asks. Both columns of cores should be near the number that the machine has: where they are not,
something else ran, and the seconds do not compare.

MLlib penalizes a row by its number of ratings, so it is compared under that loss.

--data adds completejourney (from its package) and movietweetings (DIR holds `movietweetings_142k.parquet`).
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from bench.harness import curves, limits, peers
from bench.harness.peers import Matrix, Run
from bench.harness.streams import read_completejourney, read_movietweetings
from recsys.model.als.objective import Objective, training_loss

ITERATIONS = 10
REPEATS, MLLIB_REPEATS = 5, 3
# Our default confidence; the penalties are the defaults of `implicit` and of MLlib.
OBJECTIVE = Objective(alpha=4.0, regularization=0.01, exponent=0.0, offset=1.0)
MLLIB_REGULARIZATION = 0.1
MLLIB_FACTORS = 64
# The largest part of the peer's time that we want to need.
AIMS = {64: 0.5, 128: 0.45}
MLLIB_AIM = 0.06
LOSS_TOLERANCE = 1e-4
GENERATED = "generated"


@dataclass(frozen=True)
class MatrixSize:
    """A generated matrix, and the numbers of factors to learn."""

    users: int
    items: int
    pairs: int
    factors: tuple[int, ...]


QUICK = MatrixSize(15_000, 5_000, 650_000, (64, 128))
FULL = MatrixSize(60_000, 20_000, 3_500_000, (64, 128, 256))


@dataclass(frozen=True)
class Comparison:
    """Runs of two learners on one matrix.

    Attributes:
        data: name of the matrix.
        matrix: what was learned from.
        factors: length of a row.
        peer: name of the other one.
        aim: the largest part of the peer's seconds that we want to need; None: nothing is aimed at here.
        ours, theirs: their runs, one of each in each repeat.
    """

    data: str
    matrix: Matrix
    factors: int
    peer: str
    aim: float | None
    ours: Sequence[Run]
    theirs: Sequence[Run]

    def medians(self) -> tuple[float, float, float]:
        """Our iterations and seconds to the last loss of the other one in the same repeat, and its seconds."""
        both = list(zip(self.ours, self.theirs, strict=True))
        return (
            float(np.median([our.iterations_to(their.losses[-1]) for our, their in both])),
            float(np.median([our.seconds_to(their.losses[-1]) for our, their in both])),
            float(np.median([their.seconds[-1] for their in self.theirs])),
        )

    @property
    def ratio(self) -> float:
        """Our seconds to the loss by those of the other one."""
        _, ours, theirs = self.medians()
        return ours / theirs

    def row(self) -> dict[str, str | float]:
        """What the table says of it.

        The shares of the limit are the least time that the machine allows for an iteration by conjugate gradients of 3
        steps, by the time that was taken, whatever the method.
        """
        iterations, ours, theirs = self.medians()
        our_step = float(np.median([run.seconds[-1] / len(run.seconds) for run in self.ours]))
        their_step = theirs / ITERATIONS
        least = least_seconds(self.matrix, self.factors)
        return {
            "data": self.data,
            "factors": self.factors,
            "peer": self.peer,
            "their s/iteration": their_step,
            "our s/iteration": our_step,
            "their cores": float(np.median([run.cores for run in self.theirs])),
            "our cores": float(np.median([run.cores for run in self.ours])),
            "their limit share": least / their_step,
            "our limit share": least / our_step,
            "their seconds": theirs,
            "our seconds": ours,
            "our iterations": iterations,
            "ratio": self.ratio,
            "aim": "" if self.aim is None else f"{self.aim:g}",
        }


def least_seconds(matrix: Matrix, factors: int) -> float:
    """What an iteration takes at least, at the speeds that are measured now."""
    users, items = matrix.by_user.shape
    operations = limits.operations_per_second()
    return sum(
        limits.HalfStep(rows, others, matrix.pairs, factors).least_seconds(
            operations, limits.bytes_per_second(4 * others * factors)
        )
        for rows, others in ((users, items), (items, users))
    )


def compare(data: str, matrix: Matrix, factors: int, aim: float | None, bar: "tqdm[Any]") -> Comparison:
    """Our alternations and `implicit`, in turn."""
    ours, theirs = [], []
    for seed in range(REPEATS + 1):
        # The first run warms up, the second is drawn: it goes on beyond the others to where the loss hardly falls.
        drawn = seed == 1
        their = peers.learn_implicit(matrix, OBJECTIVE, factors, seed, ITERATIONS if seed else 1, watched=drawn)
        ours.append(peers.learn(matrix, OBJECTIVE, factors, seed, 2 * ITERATIONS if drawn else 1, their.losses[-1]))
        theirs.append(their)
        bar.update()
    return Comparison(data, matrix, factors, "implicit", aim, ours[1:], theirs[1:])


def compare_mllib(data: str, matrix: Matrix, bar: "tqdm[Any]") -> Comparison:
    """Our alternations and MLlib, in turn."""
    objective = peers.with_penalty_by_ratings(OBJECTIVE, MLLIB_REGULARIZATION)
    spark = peers.open_spark()
    ratings = peers.to_ratings(spark, matrix)
    ours, theirs = [], []
    for seed in range(MLLIB_REPEATS + 1):
        iterations = ITERATIONS if seed else 1
        theirs.append(peers.learn_mllib(ratings, matrix, objective, MLLIB_FACTORS, seed, iterations))
        ours.append(peers.learn(matrix, objective, MLLIB_FACTORS, seed, iterations, theirs[-1].losses[-1]))
        bar.update()
    spark.stop()
    return Comparison(data, matrix, MLLIB_FACTORS, "MLlib", MLLIB_AIM, ours[1:], theirs[1:])


def check_loss(matrix: Matrix) -> float:
    """The loss of some factors as `implicit` computes it, relative to ours.

    Raises:
        RuntimeError: they are not the same.
    """
    generator = np.random.default_rng(0)
    users, items = (generator.random((rows, 32), dtype=np.float32) * np.float32(0.1) for rows in matrix.by_user.shape)
    ours = training_loss(*matrix.selections(), torch.from_numpy(users), torch.from_numpy(items), OBJECTIVE)
    ratio = peers.implicit_loss(matrix, OBJECTIVE, users, items) / ours
    if abs(ratio - 1) > LOSS_TOLERANCE:
        raise RuntimeError(f"implicit's loss is {ratio} of ours: the figures would not compare")
    return ratio


def panel(comparison: Comparison) -> curves.Panel:
    """Losses over seconds in the first repeat, above the lowest one that anybody reached."""
    lowest = min(run.losses.min() for run in (*comparison.ours, *comparison.theirs))
    lines = [
        curves.Line(name, color, run.seconds[:ITERATIONS], run.losses[:ITERATIONS] / lowest - 1)
        for name, color, run in (
            ("implicit", curves.THEIRS, comparison.theirs[0]),
            ("ours", curves.OURS, comparison.ours[0]),
        )
    ]
    level = float(lines[0].y[-1])
    return curves.Panel(f"{comparison.factors} factors", "seconds", "loss above the lowest", lines, level=level)


def matrices(shape: MatrixSize, folder: Path | None) -> dict[str, tuple[Matrix, tuple[int, ...]]]:
    """What is learned from, by name, with the numbers of factors."""
    found = {GENERATED: (peers.generated(shape.users, shape.items, shape.pairs, seed=0), shape.factors)}
    if folder:
        for name, read in (("completejourney", read_completejourney), ("movietweetings", read_movietweetings)):
            events = read(folder)
            users, user_ids = pd.factorize(events["user"])
            items, item_ids = pd.factorize(events["item"])
            found[name] = (peers.matrix_of(users, items, len(user_ids), len(item_ids)), shape.factors[:1])
    return found


def main() -> None:
    """Compare, print a table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller matrix, under 3 minutes on 2 cores")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of movietweetings_142k.parquet")
    parser.add_argument("--no-mllib", action="store_true", help="without Spark")
    parser.add_argument("--plot", type=Path, metavar="FILE", default=Path("docs/als_speed.png"), help="to write")
    arguments = parser.parse_args()
    peers.require_implicit()
    shape = QUICK if arguments.quick else FULL
    data = matrices(shape, arguments.data)
    matrix = data[GENERATED][0]
    print(f"implicit's loss is {check_loss(matrix):.6f} of ours for the same factors")

    runs = sum(len(factors) for _, factors in data.values()) * (REPEATS + 1)
    runs += 0 if arguments.no_mllib else MLLIB_REPEATS + 1
    with tqdm(total=runs, unit="run", dynamic_ncols=True) as bar:
        neighbors = peers.Neighbors()
        results = [
            compare(name, learned, factors, AIMS.get(factors) if name == GENERATED else None, bar)
            for name, (learned, several) in data.items()
            for factors in several
        ]
        verdict = neighbors.verdict()
        mllib = [] if arguments.no_mllib else [compare_mllib(GENERATED, matrix, bar)]

    for name, (learned, _) in data.items():
        users, items = learned.by_user.shape
        print(f"{name}: {users:,} users, {items:,} items, {learned.pairs:,} pairs")
    table = pd.DataFrame([result.row() for result in results + mllib])
    print(f"\n{table.to_string(index=False, float_format='{:.3g}'.format)}\n")
    drawn = [result for result in results if result.data == GENERATED]
    print(curves.draw_panels([panel(result) for result in drawn], arguments.plot))
    print(peers.versions("implicit", "torch", "numba", "numpy", "pyspark"))
    print(verdict)
    ratios = {f"als_vs_implicit_f{result.factors}": result.ratio for result in drawn if result.aim is not None}
    ratios["als_vs_mllib_f64"] = mllib[0].ratio if mllib else np.nan
    print(" ".join(f"{name}={ratio:.3f}" for name, ratio in ratios.items()))


if __name__ == "__main__":
    main()

"""What the machine allows: the least time of an iteration by its arithmetic and by the bytes that it reads.

A half-step solves n rows, with z pairs in all, by s steps of conjugate gradients against m fixed rows of f factors.
Each pass over a row's pairs takes 4 z f operations and reads 4 z f bytes, if the product and the sum share one reading;
there are s + 1 passes, the first for the residual. The matrix that all rows share takes 2 n f^2 operations in each
pass, and 2 m f^2 once to be made.
"""

import time
from dataclasses import dataclass

import torch

STEPS = 3
_GEMM_ROWS = 2048
_TRIALS = 7
# Copies of small arrays are repeated until they have moved this many bytes, so that the clock can see them.
_BYTES_PER_TRIAL = 1 << 28


@dataclass(frozen=True)
class HalfStep:
    """One side, solved against the other.

    Attributes:
        rows: rows solved.
        others: rows they are solved against.
        pairs: pairs of the rows solved.
        factors: length of a row.
    """

    rows: int
    others: int
    pairs: int
    factors: int

    @property
    def operations(self) -> int:
        """Additions and multiplications."""
        passes = (STEPS + 1) * (4 * self.pairs * self.factors + 2 * self.rows * self.factors**2)
        return passes + 2 * self.others * self.factors**2

    @property
    def bytes_read(self) -> int:
        """Bytes of factors that are read, those of the same row again for each pair."""
        return bytes_read(self.pairs, self.factors)

    def least_seconds(self, operations_per_second: float, bytes_per_second: float) -> float:
        """The larger of the time that the arithmetic takes and the time that reading takes."""
        return max(self.operations / operations_per_second, self.bytes_read / bytes_per_second)


def bytes_read(pairs: int, factors: int) -> int:
    """Bytes of float32 factors that conjugate gradients read for so many pairs."""
    return 4 * pairs * factors * (STEPS + 1)


def operations_per_second() -> float:
    """Of a product of large float32 matrices, the best of several."""
    left, right = torch.rand(_GEMM_ROWS, _GEMM_ROWS), torch.rand(_GEMM_ROWS, _GEMM_ROWS)
    out = torch.empty_like(left)
    best = min(_seconds(lambda: torch.mm(left, right, out=out), 1) for _ in range(_TRIALS))
    return float(2 * _GEMM_ROWS**3 / best)


def bytes_per_second(size: int) -> float:
    """Read and written in a copy of an array of `size` bytes, the best of several: a small one stays in a cache."""
    source, target = torch.ones(size // 4), torch.zeros(size // 4)
    repeats = max(1, _BYTES_PER_TRIAL // size)
    best = min(_seconds(lambda: target.copy_(source), repeats) for _ in range(_TRIALS))
    return float(2 * size / best)


def _seconds(work: object, repeats: int) -> float:
    """Seconds that one of several calls takes on average."""
    assert callable(work)
    begin = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - begin) / repeats

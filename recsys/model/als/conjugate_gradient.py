"""Rows solved by conjugate gradients on the CPU, each row in one go: the fast kernel of alternating least squares.

The matrix of a row, M + sum d_i y_i y_i' with M = G + penalty I (see `objective`), is never formed. The factors of the
row's pairs are gathered once, into memory that stays in the processor's cache, and every step passes over them there:
four dot products, then four additions of a vector, for four pairs at a time.

The method is conjugate gradients (Takacs, Pilaszy & Tikk, "Applications of the conjugate gradient method for implicit
feedback collaborative filtering", 2011), here with a preconditioner: N = G + (the smallest penalty) I, the same for all
rows and inverted once. N p need not be computed: with z = N^-1 r and p = z + b p_before it is r + b (N p)_before. What
is left to converge is nearly I + (a matrix whose rank is the number of the row's pairs), so short rows take few steps.
When so many rows are solved that it pays, all factors are turned beforehand into the basis in which G is diagonal; then
each row has M itself for its preconditioner, at the cost of a division.
"""

from dataclasses import dataclass
from typing import Protocol

import numba
import numpy as np
import torch

from recsys.errors import SolveError
from recsys.model.als.conjugate_gradient_kernel import Number, Vector, solve_blocks
from recsys.model.als.objective import Objective
from recsys.model.als.selection import Selection
from recsys.model.common.arrays import Float32Array, FloatArray

# Bound on the error of an exact solution, relative, in the norm that belongs to the row's matrix.
_EXACT = 1e-7
# The same for rows that are solved closely, and how many steps are spent on it.
_CLOSE = 1e-3
_CLOSE_STEPS = 50
# More than conjugate gradients should ever take, since the number of factors bounds their steps but for rounding.
_STEPS_PER_FACTOR = 20
# Blocks of rows per thread; more of them even out the work, fewer save their set-up.
_BLOCKS_PER_THREAD = 8
# Parts of the working memory. A long row is read in pieces of one part, so their number is not that of the threads.
_PARTS = 16
# The work on a row besides that on its pairs, in pairs.
_PAIRS_PER_ROW = 16
# Turning all factors of the other side into another basis pays below this many of them per row that is solved.
_TURN_BELOW = 8
_BLOCK_ROWS = 1 << 12


class RowsElsewhere(Protocol):
    """Rows of a side whose pairs are in other processes, which solve them by `solve_rows`."""

    @property
    def totals(self) -> FloatArray:
        """(rows,) current sum of |weight| over all pairs of each."""

    def __len__(self) -> int: ...

    def solve(self, penalties: FloatArray, work: "Work", solution: Vector) -> int:
        """Improve `solution` (rows, factors) in place; see `solve_rows`."""


# All rows of a side, or some of them.
SomeRows = Selection | RowsElsewhere


def solve_exactly(
    selection: SomeRows,
    others: torch.Tensor,
    gram: torch.Tensor,
    start: torch.Tensor,
    objective: Objective,
    chunk_bytes: int,
) -> torch.Tensor:
    """Solve rows until nothing is left to gain: factors in float32, sums in float64.

    Args:
        selection: The rows.
        others: (others, factors) float32, the other side's factors.
        gram: (factors, factors) float64, others' * others.
        start: (rows, factors) float32, where to start from: the nearer, the quicker.
        objective: What is solved.
        chunk_bytes: Bound on the memory for gathered factors.

    Returns:
        (rows, factors) float32; zero for rows without a positive weight.

    Raises:
        SolveError: a solution is not finite, or was not reached.
    """
    limit = 100 + _STEPS_PER_FACTOR * others.shape[1]
    solution, unfinished = _solve_in_basis(
        selection, others, gram, start.double(), objective, chunk_bytes, limit, _EXACT
    )
    if unfinished:
        raise SolveError(f"{unfinished} rows did not converge in {limit} steps: check model.alpha and the weights")
    return solution


def solve_closely(
    selection: SomeRows,
    others: torch.Tensor,
    gram: torch.Tensor,
    start: torch.Tensor,
    objective: Objective,
    chunk_bytes: int,
) -> torch.Tensor:
    """Solve rows to within a thousandth, in float32; arguments and errors as for `solve_exactly`."""
    return _solve_in_basis(selection, others, gram, start.clone(), objective, chunk_bytes, _CLOSE_STEPS, _CLOSE)[0]


def improve(
    selection: SomeRows, others: torch.Tensor, start: torch.Tensor, objective: Objective, chunk_bytes: int, steps: int
) -> torch.Tensor:
    """Bring rows nearer to their solution by a few steps, in float32.

    Args:
        selection, others, objective, chunk_bytes: See `solve_exactly`.
        start: (rows, factors) float32, where to start from.
        steps: Steps of conjugate gradients.

    Returns:
        (rows, factors) float32; zero for rows without a positive weight.

    Raises:
        SolveError: a solution is not finite.
    """
    gram = torch.zeros(others.shape[1], others.shape[1], dtype=torch.float64)
    for block in torch.split(others, _BLOCK_ROWS):
        gram += block.T @ block
    return _solve_in_basis(selection, others, gram, start.clone(), objective, chunk_bytes, steps, 0.0)[0]


def _solve_in_basis(
    selection: SomeRows,
    others: torch.Tensor,
    gram: torch.Tensor,
    start: torch.Tensor,
    objective: Objective,
    chunk_bytes: int,
    steps: int,
    tolerance: Number,
) -> tuple[torch.Tensor, int]:
    """Turn the factors or not, whichever takes less time, and solve in numbers of the type of `start`.

    Returns:
        The rows' factors in float32, and the number of rows that are not within the tolerance after all steps.

    Raises:
        SolveError: a solution is not finite.
    """
    penalties = objective.penalties(selection.totals, len(others))
    turn = None
    if len(others) < _TURN_BELOW * len(selection):
        eigenvalues, basis = torch.linalg.eigh(gram)
        turn = basis.to(start.dtype)
        solution = start @ turn
        # Rounding may leave a tiny negative eigenvalue.
        system = _System.diagonal(_turned(others, turn), eigenvalues.clamp(min=0).to(start.dtype).numpy())
    else:
        solution = start
        system = _System.dense(others, gram, float(penalties.min(initial=np.inf)), start.dtype)
    work = Work(system, objective, chunk_bytes, steps, tolerance)
    if isinstance(selection, Selection):
        unfinished = solve_rows(selection, penalties, work, solution.numpy())
    else:
        unfinished = selection.solve(penalties, work, solution.numpy())
    solution = (solution if turn is None else solution @ turn.T).float()
    if not bool(torch.isfinite(solution).all()):
        raise SolveError("a row of factors is not finite: check the weights, model.alpha and model.regularization")
    return solution, unfinished


def _turned(others: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Factors (others, factors) times turn, computed in the numbers of turn and kept in float32."""
    turned = torch.empty_like(others)
    for into, block in zip(torch.split(turned, _BLOCK_ROWS), torch.split(others, _BLOCK_ROWS), strict=True):
        into.copy_(block.to(turn.dtype) @ turn)
    return turned


@dataclass(frozen=True)
class _System:
    """What all rows share: the other side's factors, and their Gram matrix in numbers of the solution's type.

    Attributes:
        others: (others, factors) float32.
        gram, inverse: (factors, factors), the Gram matrix, and the inverse of gram + smallest * I; both empty if
            `others` is in the basis in which the Gram matrix is diagonal.
        eigenvalues: (factors,) of the Gram matrix in that basis, else empty.
        smallest: the smallest penalty.
    """

    others: Float32Array
    gram: Vector
    inverse: Vector
    eigenvalues: Vector
    smallest: float

    @classmethod
    def diagonal(cls, others: torch.Tensor, eigenvalues: Vector) -> "_System":
        nothing = np.zeros((0, 0), eigenvalues.dtype)
        return cls(others.numpy(), nothing, nothing, eigenvalues, 0.0)

    @classmethod
    def dense(cls, others: torch.Tensor, gram: torch.Tensor, smallest: float, numbers: torch.dtype) -> "_System":
        # By rows, as the kernel reads it; it comes by columns.
        inverse = torch.linalg.inv(gram + smallest * torch.eye(len(gram), dtype=gram.dtype)).contiguous()
        nothing = torch.zeros(0, dtype=numbers).numpy()
        return cls(others.numpy(), gram.to(numbers).numpy(), inverse.to(numbers).numpy(), nothing, smallest)


@dataclass(frozen=True)
class Work:
    """What all rows of a half-step share: arrays and numbers only, so that it can be sent to other processes.

    Attributes:
        system: the other side.
        objective: what is solved.
        chunk_bytes: bound on the memory for gathered factors.
        steps: steps of conjugate gradients, at most.
        tolerance: relative error at which a row is done.
    """

    system: _System
    objective: Objective
    chunk_bytes: int
    steps: int
    tolerance: Number


def solve_rows(selection: Selection, penalties: FloatArray, work: Work, solution: Vector) -> int:
    """Improve a solution in place.

    The bits of a row depend on its own pairs, penalty and start and on `work` alone, so rows may be solved in any
    blocks, by any number of threads and processes.

    Args:
        selection: The rows; their totals are not read.
        penalties: (rows,) from `Objective.penalties`.
        work: What the rows share.
        solution: (rows, factors), where to start from, in the basis and the numbers of `work.system`.

    Returns:
        The number of rows that are not within the tolerance after all steps.
    """
    if not len(selection):
        return 0
    system, objective = work.system, work.objective
    number = solution.dtype.type
    threads = numba.get_num_threads()
    costs = np.cumsum(selection.used + _PAIRS_PER_ROW)
    blocks = min(len(selection), _BLOCKS_PER_THREAD * threads)
    bounds = np.searchsorted(costs, np.linspace(0, costs[-1], blocks + 1))
    bounds[-1] = len(selection)
    table = selection.table
    unfinished: int = solve_blocks(
        table.starts[selection.rows],
        table.lengths[selection.rows],
        selection.used,
        selection.phases,
        table.others,
        table.weights,
        system.others,
        system.gram,
        system.inverse,
        system.eigenvalues,
        number(system.smallest),
        penalties.astype(solution.dtype),
        solution,
        bounds,
        max(work.chunk_bytes // (_PARTS * system.others[:1].nbytes), 1),
        number(objective.alpha * selection.scale),
        number(objective.offset),
        work.steps,
        number(work.tolerance**2),
    )
    return unfinished

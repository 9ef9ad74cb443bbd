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
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch

from recsys.errors import SolveError
from recsys.model.arrays import Float32Array, FloatArray, Int32Array, IntArray
from recsys.model.jit import compiled_fast, compiled_parallel
from recsys.model.objective import Objective
from recsys.model.selection import Selection

Vector = npt.NDArray[np.floating[Any]]
Number = np.floating[Any] | float

# Bound on the error of an exact solution, relative, in the norm that belongs to the row's matrix.
_EXACT = 1e-7
# More than conjugate gradients should ever take, since the number of factors bounds their steps but for rounding.
_STEPS_PER_FACTOR = 20
# Blocks of rows per thread; more of them even out the work, fewer save their set-up.
_BLOCKS_PER_THREAD = 8
# The work on a row besides that on its pairs, in pairs.
_PAIRS_PER_ROW = 16
# Turning all factors of the other side into another basis pays below this many of them per row that is solved.
_TURN_BELOW = 8
_BLOCK_ROWS = 1 << 12


def solve_exactly(
    selection: Selection,
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


def improve(
    selection: Selection, others: torch.Tensor, start: torch.Tensor, objective: Objective, chunk_bytes: int, steps: int
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
    selection: Selection,
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
    unfinished = _run(selection, system, penalties, solution.numpy(), objective, chunk_bytes, steps, tolerance)
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
        inverse = torch.linalg.inv(gram + smallest * torch.eye(len(gram), dtype=gram.dtype))
        nothing = torch.zeros(0, dtype=numbers).numpy()
        return cls(others.numpy(), gram.to(numbers).numpy(), inverse.to(numbers).numpy(), nothing, smallest)


def _run(
    selection: Selection,
    system: _System,
    penalties: FloatArray,
    solution: Vector,
    objective: Objective,
    chunk_bytes: int,
    steps: int,
    tolerance: Number,
) -> int:
    """Improve `solution` in place; the number of rows that are not within the tolerance after all steps."""
    if not len(selection):
        return 0
    number = solution.dtype.type
    threads = numba.get_num_threads()
    work = np.cumsum(selection.used + _PAIRS_PER_ROW)
    blocks = min(len(selection), _BLOCKS_PER_THREAD * threads)
    bounds = np.searchsorted(work, np.linspace(0, work[-1], blocks + 1))
    bounds[-1] = len(selection)
    table = selection.table
    unfinished: int = _solve(
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
        max(chunk_bytes // (threads * system.others[:1].nbytes), 1),
        number(objective.alpha * selection.scale),
        number(objective.offset),
        steps,
        number(tolerance**2),
    )
    return unfinished


@compiled_parallel
def _solve(
    starts: IntArray,
    lengths: IntArray,
    used: IntArray,
    phases: IntArray,
    codes: Int32Array,
    weights: Float32Array,
    others: Float32Array,
    gram: Vector,
    inverse: Vector,
    eigenvalues: Vector,
    smallest: Number,
    penalties: Vector,
    solution: Vector,
    bounds: IntArray,
    capacity: int,
    alpha: Number,
    offset: Number,
    steps: int,
    tolerance: Number,
) -> int:
    """Conjugate gradients for all rows, blocks of rows in parallel; the number of rows that ran out of steps."""
    blocks = len(bounds) - 1
    unfinished = np.zeros(blocks, np.int64)
    for block in numba.prange(blocks):
        longest = 0
        for row in range(bounds[block], bounds[block + 1]):
            longest = max(longest, used[row])
        room = max(1, min(longest, capacity))
        gathered = np.empty((room, others.shape[1]), np.float32)
        extra = np.empty(room, solution.dtype)
        target = np.empty(room, solution.dtype)
        vectors = np.empty((5, others.shape[1]), solution.dtype)
        for row in range(bounds[block], bounds[block + 1]):
            place = (starts[row], lengths[row], used[row], phases[row])
            reached = _solve_row(
                place,
                codes,
                weights,
                others,
                gram,
                inverse,
                eigenvalues,
                smallest,
                penalties[row],
                solution[row],
                (gathered, extra, target, vectors),
                alpha,
                offset,
                steps,
                tolerance,
            )
            unfinished[block] += not reached
    return int(unfinished.sum())


@compiled_fast
def _solve_row(
    place: tuple[int, int, int, int],
    codes: Int32Array,
    weights: Float32Array,
    others: Float32Array,
    gram: Vector,
    inverse: Vector,
    eigenvalues: Vector,
    smallest: Number,
    penalty: Number,
    x: Vector,
    scratch: tuple[Float32Array, Vector, Vector, Vector],
    alpha: Number,
    offset: Number,
    steps: int,
    tolerance: Number,
) -> bool:
    """Conjugate gradients for one row, which start from x and change it; whether the tolerance was reached."""
    gathered, extra, target, vectors = scratch
    r, z, p, mp, product = vectors[0], vectors[1], vectors[2], vectors[3], vectors[4]
    diagonal, used, room = len(gram) == 0, place[2], len(extra)
    one, zero = x.dtype.type(1), x.dtype.type(0)
    before, ratio = one, zero
    # What the row's own penalty has that the preconditioner lacks.
    beyond = zero if diagonal else penalty - smallest
    if diagonal:
        for j in range(len(x)):
            r[j] = -(eigenvalues[j] + penalty) * x[j]
    else:
        _multiply(gram, x, r)
        for j in range(len(x)):
            r[j] = -r[j] - penalty * x[j]
    # What x takes off the loss, twice: the yardstick for the error.
    gain, attraction = zero, zero
    for begin in range(0, used, room):
        pairs = min(room, used - begin)
        attraction += _gather(place, begin, pairs, codes, weights, others, alpha, offset, gathered, extra, target)
        gain += _add_products(gathered, extra, target, pairs, -one, one, x, r)
    if attraction == 0:
        x[:] = 0
        return True
    if gain + _dot(x, r) < 0:
        # The start is worse than nothing, as when all weights of the row have faded since it was last solved.
        x[:] = 0
        r[:] = 0
        gain = zero
        for begin in range(0, used, room):
            pairs = min(room, used - begin)
            if used > room:
                _gather(place, begin, pairs, codes, weights, others, alpha, offset, gathered, extra, target)
            _add_products(gathered, extra, target, pairs, zero, one, x, r)
    for step in range(steps):
        if diagonal:
            for j in range(len(x)):
                z[j] = r[j] / (eigenvalues[j] + penalty)
        else:
            _multiply(inverse, r, z)
        now = _dot(r, z)
        if now <= tolerance * gain:
            return True
        if step:
            ratio = now / before
        before = now
        for j in range(len(x)):
            # mp is the preconditioner times p. At the first step both hold what an earlier row left there.
            p[j] = z[j] + ratio * p[j] if step else z[j]
            mp[j] = r[j] + ratio * mp[j] if step else r[j]
            product[j] = mp[j] + beyond * p[j]
        along = zero
        for begin in range(0, used, room):
            pairs = min(room, used - begin)
            if used > room:
                _gather(place, begin, pairs, codes, weights, others, alpha, offset, gathered, extra, target)
            along += _add_products(gathered, extra, target, pairs, one, zero, p, product)
        length = now / _dot(p, product)
        gain += length * along
        for j in range(len(x)):
            x[j] += length * p[j]
            r[j] -= length * product[j]
    return False


@compiled_fast
def _gather(
    place: tuple[int, int, int, int],
    begin: int,
    pairs: int,
    codes: Int32Array,
    weights: Float32Array,
    others: Float32Array,
    alpha: Number,
    offset: Number,
    gathered: Float32Array,
    extra: Vector,
    target: Vector,
) -> Number:
    """Copy pairs begin to begin + pairs - 1 of a row to where they can be worked on; the sum of their targets.

    Into gathered (pairs, factors) go the factors of the other side, into extra the d and into target the t of
    `objective`.
    """
    start, length, used, phase = place
    confidence, total = alpha, alpha * 0
    if used < length:
        confidence = alpha * (length / used)
    for i in range(pairs):
        at = start + begin + i
        if used < length:
            at = start + ((begin + i) * length + phase) // used
        amount = extra.dtype.type(confidence * weights[at])
        extra[i] = abs(amount)
        # Written so that a weight that is no number does not pass for none.
        target[i] = 0 if amount <= 0 else amount + offset
        total += target[i]
        source = others[codes[at]]
        for j in range(others.shape[1]):
            gathered[i, j] = source[j]
    return total


@compiled_fast
def _add_products(
    rows: Float32Array, extra: Vector, target: Vector, count: int, factor: Number, share: Number, v: Vector, out: Vector
) -> Number:
    """Add the sum of (factor * extra_i * rows_i.v + share * target_i) rows_i over i to out.

    Returns:
        The sum of target_i * rows_i.v.
    """
    gain = v.dtype.type(0)
    first = 0
    while first + 4 <= count:
        a, b, c, d = rows[first], rows[first + 1], rows[first + 2], rows[first + 3]
        sa = sb = sc = sd = v.dtype.type(0)
        for j in range(len(v)):
            sa += a[j] * v[j]
            sb += b[j] * v[j]
            sc += c[j] * v[j]
            sd += d[j] * v[j]
        ta, tb, tc, td = target[first], target[first + 1], target[first + 2], target[first + 3]
        gain += (ta * sa + tb * sb) + (tc * sc + td * sd)
        sa = factor * extra[first] * sa + share * ta
        sb = factor * extra[first + 1] * sb + share * tb
        sc = factor * extra[first + 2] * sc + share * tc
        sd = factor * extra[first + 3] * sd + share * td
        for j in range(len(v)):
            out[j] += (sa * a[j] + sb * b[j]) + (sc * c[j] + sd * d[j])
        first += 4
    for i in range(first, count):
        s = v.dtype.type(0)
        for j in range(len(v)):
            s += rows[i, j] * v[j]
        gain += target[i] * s
        s = factor * extra[i] * s + share * target[i]
        for j in range(len(v)):
            out[j] += s * rows[i, j]
    return gain


@compiled_fast
def _multiply(matrix: Vector, v: Vector, out: Vector) -> None:
    """out = matrix * v for a square matrix, four rows at a time."""
    first = 0
    while first + 4 <= len(v):
        a, b, c, d = matrix[first], matrix[first + 1], matrix[first + 2], matrix[first + 3]
        sa = sb = sc = sd = v.dtype.type(0)
        for j in range(len(v)):
            sa += a[j] * v[j]
            sb += b[j] * v[j]
            sc += c[j] * v[j]
            sd += d[j] * v[j]
        out[first], out[first + 1], out[first + 2], out[first + 3] = sa, sb, sc, sd
        first += 4
    for i in range(first, len(v)):
        out[i] = _dot(matrix[i], v)


@compiled_fast
def _dot(left: Vector, right: Vector) -> Number:
    total = left.dtype.type(0)
    for j in range(len(left)):
        total += left[j] * right[j]
    return total

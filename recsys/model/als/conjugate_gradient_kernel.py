"""The compiled loops of the fused kernel: conjugate gradients for one row after the other (see `fused`)."""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from recsys.model.common.arrays import Float32Array, Int32Array, IntArray
from recsys.model.common.jit import compiled_fast, compiled_parallel

Vector = npt.NDArray[np.floating[Any]]
Number = np.floating[Any] | float


@compiled_parallel
def solve_blocks(
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
                (place, codes, weights, others, alpha, offset),
                (gram, inverse, eigenvalues, smallest),
                penalties[row],
                solution[row],
                (gathered, extra, target),
                vectors,
                steps,
                tolerance,
            )
            unfinished[block] += not reached
    return int(unfinished.sum())


# Where a row's pairs come from: its start, its length, how many are used and the phase (see `Selection`); the codes and
# weights of all pairs, the other side's factors, alpha and offset.
Source = tuple[tuple[int, int, int, int], Int32Array, Float32Array, Float32Array, Number, Number]
# Gram matrix, inverse, eigenvalues and smallest penalty (see `fused`).
System = tuple[Vector, Vector, Vector, Number]
# For pairs at work: factors of the other side, the d and the t of `objective`.
Buffers = tuple[Float32Array, Vector, Vector]


@compiled_fast
def _solve_row(
    source: Source,
    system: System,
    penalty: Number,
    x: Vector,
    buffers: Buffers,
    vectors: Vector,
    steps: int,
    tolerance: Number,
) -> bool:
    """Conjugate gradients for one row, which start from x and change it; whether the tolerance was reached."""
    r, z, p, applied, product = vectors[0], vectors[1], vectors[2], vectors[3], vectors[4]
    one, zero = x.dtype.type(1), x.dtype.type(0)
    before: Number = one
    ratio: Number = zero
    # What the row's own penalty has that the preconditioner lacks.
    beyond = zero if len(system[2]) else penalty - system[3]
    _residual_without_pairs(system, penalty, x, r)
    # What x takes off the loss, twice, is the yardstick for the error.
    gain, attraction = _pass_over(source, buffers, True, -one, one, x, r)
    if attraction == 0:
        x[:] = 0
        return True
    if gain + _dot(x, r) < 0:
        # The start is worse than nothing, as when all weights of the row have faded since it was last solved.
        x[:] = 0
        r[:] = 0
        gain, _ = _pass_over(source, buffers, False, zero, one, x, r)
    for step in range(steps):
        _precondition(system, penalty, r, z)
        now = _dot(r, z)
        if now <= tolerance * gain:
            return True
        if step:
            ratio = now / before
        before = now
        for j in range(len(x)):
            # applied is the preconditioner times p. At the first step both hold what an earlier row left there.
            p[j] = z[j] + ratio * p[j] if step else z[j]
            applied[j] = r[j] + ratio * applied[j] if step else r[j]
            product[j] = applied[j] + beyond * p[j]
        along, _ = _pass_over(source, buffers, False, one, zero, p, product)
        length = now / _dot(p, product)
        gain += length * along
        for j in range(len(x)):
            x[j] += length * p[j]
            r[j] -= length * product[j]
    return False


@compiled_fast
def _residual_without_pairs(system: System, penalty: Number, x: Vector, r: Vector) -> None:
    """r = -(Gram matrix + penalty I) x."""
    gram, _, eigenvalues, _ = system
    if len(eigenvalues):
        for j in range(len(x)):
            r[j] = -(eigenvalues[j] + penalty) * x[j]
    else:
        _multiply(gram, x, r)
        for j in range(len(x)):
            r[j] = -r[j] - penalty * x[j]


@compiled_fast
def _precondition(system: System, penalty: Number, r: Vector, z: Vector) -> None:
    """z = the inverse of the preconditioner times r."""
    _, inverse, eigenvalues, _ = system
    if len(eigenvalues):
        for j in range(len(r)):
            z[j] = r[j] / (eigenvalues[j] + penalty)
    else:
        _multiply(inverse, r, z)


@compiled_fast
def _pass_over(
    source: Source, buffers: Buffers, first: bool, factor: Number, share: Number, v: Vector, out: Vector
) -> tuple[Number, Number]:
    """Add the sum of (factor * d_i * y_i.v + share * t_i) y_i over the row's pairs i to out.

    Pairs are gathered at the first pass, and again at each other one if the row does not fit into the buffers.

    Returns:
        The sum of t_i * y_i.v, and the sum of t_i of the pairs gathered in this pass.
    """
    used, room = source[0][2], len(buffers[1])
    gain, attraction = v.dtype.type(0), v.dtype.type(0)
    for begin in range(0, used, room):
        pairs = min(room, used - begin)
        if first or used > room:
            attraction += _gather(source, begin, pairs, buffers)
        gain += _add_products(buffers, pairs, factor, share, v, out)
    return gain, attraction


@compiled_fast
def _gather(source: Source, begin: int, pairs: int, buffers: Buffers) -> Number:
    """Copy pairs begin to begin + pairs - 1 of a row to where they can be worked on; the sum of their targets."""
    (start, length, used, phase), codes, weights, others, alpha, offset = source
    gathered, extra, target = buffers
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
        other = others[codes[at]]
        for j in range(others.shape[1]):
            gathered[i, j] = other[j]
    return total


@compiled_fast
def _add_products(buffers: Buffers, count: int, factor: Number, share: Number, v: Vector, out: Vector) -> Number:
    """What `_pass_over` does, for the first `count` pairs in the buffers, four at a time; the sum of t_i * y_i.v."""
    rows, extra, target = buffers
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

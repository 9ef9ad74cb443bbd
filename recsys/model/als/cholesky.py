"""Many rows solved exactly at once with torch operations, on any device: batched Cholesky factorizations.

Each row has the equations of `objective`, (G + penalty I + Y' D Y) x = Y' t with Y the factors of the row's own pairs
and D = diag(alpha |w|). G is the same for every row, so it is diagonalized once, G = Q L Q'. In the basis Q the matrix
A = L + penalty I is diagonal for each row; with V = sqrt(D) Y Q A^(-1/2) and s = D^(-1/2) t the solution is
x = Q A^(-1/2) y with either of

    y = (I + V' V)^(-1) V' s      (a matrix of size factors)
    y = V' (I + V V')^(-1) s      (a matrix of size pairs: cheap for short rows)

and both matrices have eigenvalues of at least 1, so that float32 suffices where the plain equations would lose digits.
The two forms are the push-through identity.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recsys.errors import SolveError
from recsys.model.als.objective import Objective
from recsys.model.als.selection import Selection
from recsys.model.common.arrays import FloatArray, Int32Array, IntArray, offsets_of
from recsys.model.interactions.history import Rows
from recsys.serving.arrays import ragged_ranges

# Rows with more pairs are cut into pieces whose Gram matrices are added up.
_PIECE = 4096
_FLOAT_BYTES = 4
# Working bytes per pair of a part: place, code, weight, root, target, index.
_BYTES_PER_PAIR = 64


def solve_exactly(
    selection: Selection, others: torch.Tensor, gram: torch.Tensor, objective: Objective, chunk_bytes: int
) -> torch.Tensor:
    """Solve rows exactly against fixed factors of the other side.

    Args:
        selection: The rows.
        others: (others, factors) float32, the other side's factors.
        gram: (factors, factors) float64 on the CPU, others' * others.
        objective: What is solved.
        chunk_bytes: Bound on the working memory of one step.

    Returns:
        (rows, factors) float32 on the device of `others`; zero for rows without a positive weight.

    Raises:
        SolveError: a solution is not finite.
    """
    eigenvalues, basis = torch.linalg.eigh(gram)
    # Rounding may leave a tiny negative eigenvalue.
    spectrum = eigenvalues.clamp(min=0).numpy()
    rotation = basis.to(device=others.device, dtype=torch.float32)
    solved = [torch.zeros(0, others.shape[1], device=others.device)]
    for part in selection.parts(max(chunk_bytes // _BYTES_PER_PAIR, 1)):
        scale = 1 / np.sqrt(spectrum + objective.penalties(part.totals, len(others))[:, None])
        solved.append(_solve_part(part.gather(), others, rotation, scale, objective, chunk_bytes))
    solution = torch.cat(solved)
    if not bool(torch.isfinite(solution).all()):
        raise SolveError("a row of factors is not finite: check the weights, model.alpha and model.regularization")
    return solution


def _solve_part(
    rows: Rows,
    others: torch.Tensor,
    rotation: torch.Tensor,
    scale: FloatArray,
    objective: Objective,
    chunk_bytes: int,
) -> torch.Tensor:
    system = _NormalEquations.build(rows, others, rotation, scale, objective)
    solution = torch.zeros(len(rows.lengths), others.shape[1], device=others.device)
    for numbers, width in _groups(rows.lengths):
        solve, row_bytes = _method(width, others.shape[1])
        for chunk in np.array_split(numbers, min(len(numbers), -(-len(numbers) * row_bytes // chunk_bytes))):
            solution[torch.from_numpy(chunk).to(others.device)] = solve(system, chunk, width)
    return torch.mm(solution * system.scale, rotation.T)


@dataclass(frozen=True)
class _NormalEquations:
    """What the steps share. One entry stands behind the last pair to pad with: its root and target are 0.

    Attributes:
        starts, lengths: (rows,) where the pairs of each row lie.
        factors: (used others, factors) float32 in the basis Q.
        indices: (pairs + 1,) rows of `factors`.
        roots: (pairs + 1,) sqrt(alpha |w|).
        targets: (pairs + 1,) the vector s.
        scale: (rows, factors) the diagonals of A^(-1/2).
    """

    starts: IntArray
    lengths: IntArray
    factors: torch.Tensor
    indices: torch.Tensor
    roots: torch.Tensor
    targets: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def build(
        cls, rows: Rows, others: torch.Tensor, rotation: torch.Tensor, scale: FloatArray, objective: Objective
    ) -> "_NormalEquations":
        device = others.device
        roots = np.sqrt(objective.alpha * np.abs(rows.weights))
        liked = rows.weights > 0
        targets = np.zeros_like(roots)
        targets[liked] = roots[liked] + objective.offset / roots[liked]
        indices, used = _compact(rows.others, len(others))
        return cls(
            starts=offsets_of(rows.lengths)[:-1],
            lengths=rows.lengths,
            factors=(others if used is None else others[torch.from_numpy(used).to(device)]) @ rotation,
            indices=torch.from_numpy(np.append(indices, 0)).to(device),
            roots=_with_padding(roots, device),
            targets=_with_padding(targets, device),
            scale=torch.from_numpy(scale.astype(np.float32)).to(device),
        )

    def rows_of_pairs(self, starts: IntArray, lengths: IntArray, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """sqrt(D) Y Q, (n, width, factors), and s, (n, width, 1), for runs of pairs padded to a width."""
        along = np.arange(width)
        padding = len(self.roots) - 1
        places = np.where(along < lengths[:, None], starts[:, None] + along, padding)
        at = torch.from_numpy(places.ravel()).to(self.factors.device)
        values = self.factors.index_select(0, self.indices[at]).view(len(starts), width, -1)
        values *= self.roots[at].view(len(starts), width, 1)
        return values, self.targets[at].view(len(starts), width, 1)

    def scale_of(self, numbers: IntArray) -> torch.Tensor:
        """Diagonals of A^(-1/2) of rows, (n, factors)."""
        return self.scale[torch.from_numpy(numbers).to(self.scale.device)]


def _solve_short(system: _NormalEquations, numbers: IntArray, width: int) -> torch.Tensor:
    """y = V' (I + V V')^(-1) s."""
    values, targets = system.rows_of_pairs(system.starts[numbers], system.lengths[numbers], width)
    values *= system.scale_of(numbers)[:, None, :]
    inner = _solve_identity_plus(torch.bmm(values, values.mT), targets)
    return torch.bmm(values.mT, inner).squeeze(2)


def _solve_long(system: _NormalEquations, numbers: IntArray, width: int) -> torch.Tensor:
    """y = (I + V' V)^(-1) V' s."""
    values, targets = system.rows_of_pairs(system.starts[numbers], system.lengths[numbers], width)
    return _solve_sums(system, numbers, torch.bmm(values.mT, values), torch.bmm(values.mT, targets))


def _solve_cut(system: _NormalEquations, numbers: IntArray, width: int) -> torch.Tensor:
    """As `_solve_long`, with V' V and V' s of each row added up from pieces of at most _PIECE pairs."""
    del width
    counts = -(-system.lengths[numbers] // _PIECE)
    owners = np.repeat(numbers, counts)
    begins = ragged_ranges(np.zeros_like(counts), counts) * _PIECE
    lengths = np.minimum(system.lengths[owners] - begins, _PIECE)
    products, sums = [], []
    for start, length in zip((system.starts[owners] + begins)[:, None], lengths[:, None], strict=True):
        values, targets = system.rows_of_pairs(start, length, _PIECE)
        products.append(torch.bmm(values.mT, values))
        sums.append(torch.bmm(values.mT, targets))
    # A segmented sum, not index_add: its order of addition is fixed on every device.
    segments = torch.from_numpy(counts).to(system.scale.device)
    return _solve_sums(
        system,
        numbers,
        torch.segment_reduce(torch.cat(products), "sum", lengths=segments),
        torch.segment_reduce(torch.cat(sums), "sum", lengths=segments),
    )


def _solve_sums(
    system: _NormalEquations, numbers: IntArray, products: torch.Tensor, sums: torch.Tensor
) -> torch.Tensor:
    """y from (sqrt(D) Y Q)' (sqrt(D) Y Q), (n, factors, factors), and (sqrt(D) Y Q)' s, (n, factors, 1)."""
    scale = system.scale_of(numbers)
    products *= scale[:, :, None]
    products *= scale[:, None, :]
    return _solve_identity_plus(products, sums * scale[:, :, None]).squeeze(2)


def _solve_identity_plus(matrices: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(I + M)^(-1) right for symmetric positive semidefinite M (n, m, m), which is overwritten; right is (n, m, 1)."""
    matrices.diagonal(dim1=1, dim2=2).add_(1)
    lower, _ = torch.linalg.cholesky_ex(matrices)
    return torch.cholesky_solve(right, lower)


def _method(width: int, factors: int) -> tuple[Callable[[_NormalEquations, IntArray, int], torch.Tensor], int]:
    """How rows of a width are solved, and about how many bytes one row takes while it is."""
    if width <= factors:
        return _solve_short, 4 * _FLOAT_BYTES * width * (factors + width)
    if width <= _PIECE:
        return _solve_long, 4 * _FLOAT_BYTES * factors * (factors + width)
    return _solve_cut, 2 * _FLOAT_BYTES * factors * factors * -(-width // _PIECE)


def _groups(lengths: IntArray) -> Iterator[tuple[IntArray, int]]:
    """Rows that have pairs, by length: (row numbers, a width that is at least their length and below 1.5 times it).

    Rows with more than _PIECE pairs form one group, its width the longest length.
    """
    longest = int(lengths.max(initial=0))
    powers = 2 ** np.arange(_PIECE.bit_length())
    # 1, 2, 3, 4, 6, 8, 12, 16, ...: powers of two and the numbers halfway between them
    widths = np.unique(np.concatenate([powers, powers[1:-1] * 3 // 2, [max(longest, _PIECE)]]))
    group = np.searchsorted(widths, lengths)
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(len(widths) + 1))
    for width, begin, end in zip(widths.tolist(), bounds, bounds[1:], strict=False):
        numbers = order[begin:end]
        numbers = numbers[lengths[numbers] > 0]
        if len(numbers):
            yield numbers, width


def _compact(indices: Int32Array, count: int) -> tuple[npt.NDArray[Any], Int32Array | None]:
    """Renumber the distinct indices, if there can be fewer of them than `count`.

    Returns:
        The new numbers of `indices`, and the old number of each new one; None when they are kept as they are.
    """
    if len(indices) >= count:
        return indices, None
    used = np.unique(indices)
    return np.searchsorted(used, indices), used


def _with_padding(values: FloatArray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.append(values, 0).astype(np.float32)).to(device)

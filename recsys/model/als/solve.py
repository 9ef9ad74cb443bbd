"""Which kernel solves rows: the fused one of the CPU, or batched torch operations (ADR 7)."""

import torch

from recsys.model.als import cholesky as batched
from recsys.model.als import conjugate_gradient as fused
from recsys.model.als.conjugate_gradient import SomeRows
from recsys.model.als.objective import Objective
from recsys.model.als.selection import Selection

# Conjugate gradient steps per row in a sweep that does not solve exactly.
_SWEEP_STEPS = 3


def solve_exactly(
    selection: SomeRows,
    others: torch.Tensor,
    gram: torch.Tensor,
    start: torch.Tensor,
    objective: Objective,
    chunk_bytes: int,
) -> torch.Tensor:
    """Solve rows exactly against fixed factors of the other side.

    Args:
        selection: The rows; those in other processes are solved on the CPU only.
        others: (others, factors) float32, the other side's factors.
        gram: (factors, factors) float64 on the CPU, others' * others.
        start: (rows, factors) float32, the current factors of the rows; they affect the time, not the solution.
        objective: What is solved.
        chunk_bytes: Bound on the working memory.

    Returns:
        (rows, factors) float32 on the device of `others`; zero for rows without a positive weight.

    Raises:
        SolveError: a solution is not finite, or was not reached.
    """
    if not isinstance(selection, Selection) or others.device.type == "cpu":
        return fused.solve_exactly(selection, others, gram, start, objective, chunk_bytes)
    return batched.solve_exactly(selection, others, gram, objective, chunk_bytes)


def solve_closely(
    selection: Selection,
    others: torch.Tensor,
    gram: torch.Tensor,
    start: torch.Tensor,
    objective: Objective,
    chunk_bytes: int,
) -> torch.Tensor:
    """Solve rows to within a thousandth if that is faster than exactly; arguments and errors as for `solve_exactly`."""
    if others.device.type == "cpu":
        return fused.solve_closely(selection, others, gram, start, objective, chunk_bytes)
    return batched.solve_exactly(selection, others, gram, objective, chunk_bytes)


def solve_roughly(
    selection: SomeRows, others: torch.Tensor, start: torch.Tensor, objective: Objective, chunk_bytes: int
) -> torch.Tensor:
    """Bring all rows of a side close to their solution, as fast as possible; arguments as for `solve_exactly`."""
    if not isinstance(selection, Selection) or others.device.type == "cpu":
        return fused.improve(selection, others, start, objective, chunk_bytes, _SWEEP_STEPS)
    wide = others.double()
    return batched.solve_exactly(selection, others, (wide.T @ wide).cpu(), objective, chunk_bytes)

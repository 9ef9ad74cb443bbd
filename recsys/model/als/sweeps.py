"""Full sweeps of alternating least squares, which train factors on a whole history."""

import itertools
from collections.abc import Iterator

import numpy as np
import torch

from recsys.model.als.conjugate_gradient import SomeRows
from recsys.model.als.factors import gram_of
from recsys.model.als.objective import Objective
from recsys.model.als.solve import solve_exactly, solve_roughly
from recsys.model.common.arrays import Float32Array

# Standard deviation of random factors, times sqrt(factors).
_START_SCALE = 0.1
# Share of their last move by which items are extrapolated before users are solved against them.
_MOMENTUM = 0.5
# The first moves lead away from a random start and do not predict the next ones.
_MOMENTUM_FROM = 2


def random_factors(count: int, factors: int, generator: np.random.Generator) -> Float32Array:
    """Factors (count, factors) to start from, of mean 0, so that users and items start nearly orthogonal."""
    drawn = generator.standard_normal((count, factors), dtype=np.float32)
    return drawn * np.float32(_START_SCALE / factors**0.5)


def alternations(
    by_user: SomeRows,
    by_item: SomeRows,
    users: torch.Tensor,
    items: torch.Tensor,
    objective: Objective,
    chunk_bytes: int,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Improve all users, then all items, repeatedly.

    Close to convergence, alternating least squares is a linear map that shrinks every error by a factor between 0 and
    1. Momentum b < 1 along the last move keeps it convergent (an error that shrinks by m then shrinks by a root of
    z^2 = m (1 + b) z - m b, of modulus below 1) and speeds up the slow errors, whose m is close to 1.

    Args:
        by_user, by_item: All rows of either side.
        users, items: (users, factors) and (items, factors) float32, to start from.
        objective: What is minimized.
        chunk_bytes: Bound on the working memory.

    Yields:
        Users and items after each iteration, without end.

    Raises:
        SolveError: a solution is not finite.
    """
    before = items
    for iteration in itertools.count():
        ahead = items if iteration <= _MOMENTUM_FROM else items + _MOMENTUM * (items - before)
        before = items
        users = solve_roughly(by_user, ahead, users, objective, chunk_bytes)
        items = solve_roughly(by_item, users, items, objective, chunk_bytes)
        yield users, items


def trained(
    by_user: SomeRows,
    by_item: SomeRows,
    users: torch.Tensor,
    items: torch.Tensor,
    objective: Objective,
    chunk_bytes: int,
    sweeps: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Users and items after a number of alternations, the last of which solves exactly: items, then users.

    Args:
        by_user, by_item, users, items, objective, chunk_bytes: See `alternations`.
        sweeps: Alternations, at least 1.

    Raises:
        SolveError: a solution is not finite, or was not reached.
    """
    rounds = alternations(by_user, by_item, users, items, objective, chunk_bytes)
    for round_ in itertools.islice(rounds, sweeps - 1):
        users, items = round_
    items = solve_exactly(by_item, users, gram_of(users), items, objective, chunk_bytes)
    return solve_exactly(by_user, items, gram_of(items), users, objective, chunk_bytes), items

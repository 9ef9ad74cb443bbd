"""The loss against its definition, the penalties, and that alternating lowers it."""

import itertools

import numpy as np
import pytest
import torch

from recsys.model.als.objective import Objective, training_loss
from recsys.model.als.sweeps import alternations, random_factors
from recsys.model.interactions.history import Rows
from tests.model.helpers import select_all


def to_rows(matrix: np.ndarray) -> Rows:
    """The cells of a matrix that are not 0, row by row."""
    owners, others = np.nonzero(matrix)
    lengths = np.bincount(owners, minlength=len(matrix))
    return Rows(lengths, others.astype(np.int32), matrix[owners, others].astype(np.float64))


def planted(users: int, items: int, seed: int = 0) -> np.ndarray:
    """Users with four kinds of preferences, with weights of 1 to 3 and some dislikes."""
    generator = np.random.default_rng(seed)
    liked = (np.arange(users)[:, None] % 4 == np.arange(items) % 4) & (generator.random((users, items)) < 0.5)
    weights = liked * generator.integers(1, 4, size=(users, items)).astype(np.float64)
    weights[generator.random((users, items)) < 0.02] = -1.0
    return weights


def dense_loss(weights: np.ndarray, users: np.ndarray, items: np.ndarray, objective: Objective) -> float:
    """The definition, written out over all pairs."""
    confidence = 1 + objective.alpha * np.abs(weights)
    target = (objective.alpha * np.maximum(weights, 0) + objective.offset * (weights > 0)) / confidence
    loss = (confidence * (target - users @ items.T) ** 2).sum()
    for factors, axis in ((users, 1), (items, 0)):
        base = objective.alpha * np.abs(weights).sum(axis=axis) + weights.shape[axis]
        loss += objective.regularization * (base**objective.exponent * (factors**2).sum(axis=1)).sum()
    return float(loss)


@pytest.mark.parametrize(
    "objective", [Objective(4.0, 0.003, 1.0), Objective(10.0, 0.1, 0.0, offset=1.0), Objective(2.0, 0.01, 0.5)]
)
def test_the_loss_is_the_sum_over_all_pairs(objective: Objective, torch_device: str) -> None:
    weights, generator = planted(30, 20), np.random.default_rng(1)
    users, items = (generator.normal(size=(n, 5)).astype(np.float32) for n in weights.shape)
    by_user, by_item = select_all(to_rows(weights)), select_all(to_rows(weights.T))
    on_device = (torch.from_numpy(factors).to(torch_device) for factors in (users, items))
    loss = training_loss(by_user, by_item, *on_device, objective)
    wide = (factors.astype(np.float64) for factors in (users, items))
    assert loss == pytest.approx(dense_loss(weights, *wide, objective), rel=1e-6)


def test_the_penalty_follows_the_frequency() -> None:
    totals = np.array([0.0, 5.0])
    assert Objective(10.0, 0.5, 1.0).penalties(totals, 100).tolist() == [50.0, 75.0]
    assert Objective(10.0, 0.5, 0.0).penalties(totals, 100).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("objective", [Objective(4.0, 0.003, 1.0), Objective(10.0, 0.1, 0.0, offset=1.0)])
def test_alternating_lowers_the_loss_to_where_it_stays(objective: Objective, torch_device: str) -> None:
    weights, generator = planted(60, 40), np.random.default_rng(1)
    by_user, by_item = select_all(to_rows(weights)), select_all(to_rows(weights.T))
    users, items = (torch.from_numpy(random_factors(n, 6, generator)).to(torch_device) for n in weights.shape)
    rounds = alternations(by_user, by_item, users, items, objective, 1 << 20)
    losses = [training_loss(by_user, by_item, *round_, objective) for round_ in itertools.islice(rounds, 40)]
    assert losses[4] < losses[0]
    assert losses[-1] <= min(losses) * (1 + 1e-3)
    assert losses[-1] == pytest.approx(losses[-2], rel=0.005)

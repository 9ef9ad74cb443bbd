"""Optimizers against plain loops; growing and saving them in the middle."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.config.model import NeuralSettings
from recsys.model.neural.optimizers import (
    FtrlProximal,
    grow_rows,
    make_optimizer,
    make_schedule,
    optimizer_state,
    restore_optimizer,
    resume_schedule,
)

KINDS = ["adam", "adagrad", "ftrl"]


def slow_ftrl(
    gradients: list[float], rates: list[float], beta: float, l1: float, l2: float, start: float = 0.0
) -> list[float]:
    """One coordinate, as the paper writes it, with a rate of its own for every step.

    A start that is not 0 is that of a leader who was drawn there with the strength of the first rate.
    """
    strength = beta / rates[0]
    z, n, weight, path = -start * (strength + l2) - math.copysign(l1, start) * (start != 0), 0.0, start, []
    for gradient, rate in zip(gradients, rates, strict=True):
        after = (beta + math.sqrt(n + gradient**2)) / rate
        sigma, strength = after - strength, after
        z += gradient - sigma * weight
        n += gradient**2
        weight = 0.0 if abs(z) <= l1 else -(z - math.copysign(l1, z)) / (strength + l2)
        path.append(weight)
    return path


@given(
    gradients=st.lists(st.floats(-3, 3), min_size=1, max_size=12),
    l1=st.sampled_from([0.0, 0.3, 2.0]),
    l2=st.sampled_from([0.0, 0.7]),
    start=st.sampled_from([0.0, 0.5, -1.5]),
    changing=st.booleans(),
)
def test_ftrl_equals_its_definition(gradients: list[float], l1: float, l2: float, start: float, changing: bool) -> None:
    weight = torch.tensor([start], dtype=torch.float64, requires_grad=True)
    rates = [0.3 / (1 + changing * step) for step in range(len(gradients))]
    optimizer = FtrlProximal([weight], lr=0.3, beta=0.9, l1=l1, l2=l2)
    path = []
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        path.append(weight.item())
    assert path == pytest.approx(slow_ftrl(gradients, rates, 0.9, l1, l2, start), abs=1e-9)


def test_ftrl_leaves_coordinates_without_evidence_at_zero() -> None:
    weight = torch.zeros(2, requires_grad=True)
    optimizer = FtrlProximal([weight], lr=0.5, l1=1.0)
    for _ in range(5):
        weight.grad = torch.tensor([0.1, -1.0])
        optimizer.step()
    assert weight[0] == 0
    assert weight[1] > 0.3


def sparse(rows: list[int], values: torch.Tensor, size: int) -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.tensor([rows]), values, (size, values.shape[1]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sparse_gradient_moves_the_rows_it_has_and_no_others(kind: str) -> None:
    start = torch.arange(10.0).reshape(5, 2)
    table, dense = (torch.nn.Parameter(start.clone()) for _ in range(2))
    neural = NeuralSettings(optimizer=kind, learning_rate=0.1)
    optimizers = make_optimizer([table], neural, sparse=True), make_optimizer([dense], neural, sparse=False)
    values = torch.tensor([[1.0, -2.0], [0.5, 1.0], [3.0, 0.0]])
    # Row 3 comes twice.
    table.grad = sparse([3, 1, 3], values, 5)
    dense.grad = torch.zeros(5, 2).index_add(0, torch.tensor([3, 1, 3]), values)
    for optimizer in optimizers:
        optimizer.step()
    assert torch.equal(table[[0, 2, 4]], start[[0, 2, 4]])
    torch.testing.assert_close(table, dense)
    assert (table[3] != start[3]).any()


def learn(table: torch.nn.Parameter, optimizer: torch.optim.Optimizer, steps: range, rows: int) -> None:
    for step in steps:
        generator = np.random.default_rng(step)
        drawn = generator.integers(rows, size=4).tolist()
        values = torch.from_numpy(generator.standard_normal((4, table.shape[1]), dtype=np.float32))
        table.grad = sparse(drawn, values, len(table))
        optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_that_grows_learns_as_one_that_was_large_from_the_start(kind: str) -> None:
    neural = NeuralSettings(optimizer=kind)
    small, large = torch.nn.Parameter(torch.ones(4, 3)), torch.nn.Parameter(torch.zeros(11, 3))
    large.data[:4] = 1
    optimizers = [make_optimizer([table], neural, sparse=True) for table in (small, large)]
    for table, optimizer in zip((small, large), optimizers, strict=True):
        learn(table, optimizer, range(3), rows=4)
    grow_rows(small, 5, optimizers[0])
    assert len(small) == 8
    grow_rows(small, 11, optimizers[0])
    for table, optimizer in zip((small, large), optimizers, strict=True):
        learn(table, optimizer, range(3, 9), rows=11)
    assert torch.equal(small[:11], large)


@pytest.mark.parametrize("is_sparse", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_saved_state_continues_to_the_last_bit(kind: str, is_sparse: bool) -> None:
    neural = NeuralSettings(optimizer=kind)
    first = torch.nn.Parameter(torch.ones(6, 2))
    optimizer = make_optimizer([first], neural, is_sparse)

    def go(table: torch.nn.Parameter, optimizer: torch.optim.Optimizer, steps: range) -> None:
        if is_sparse:
            learn(table, optimizer, steps, rows=6)
        for step in () if is_sparse else steps:
            table.grad = torch.full_like(table, math.sin(step))
            optimizer.step()

    go(first, optimizer, range(4))
    saved = optimizer_state(optimizer, {"table": first}, lambda name: 6)
    saved = {name: np.ascontiguousarray(array).copy() for name, array in saved.items()}
    second = torch.nn.Parameter(first.detach().clone())
    again = make_optimizer([second], neural, is_sparse)
    restore_optimizer(again, {"table": second}, saved)
    go(first, optimizer, range(4, 8))
    go(second, again, range(4, 8))
    assert torch.equal(first, second)


def test_the_rate_rises_then_falls() -> None:
    neural = NeuralSettings(optimizer="adam", learning_rate=0.5, warmup_steps=4, decay_steps=10)
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))], neural, sparse=False)
    schedule = make_schedule(optimizer, neural)
    rates = []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.5 * min((t + 1) / 4, 1) / (1 + t / 10) ** 0.5 for t in range(12)])
    other = make_optimizer([torch.nn.Parameter(torch.zeros(1))], neural, sparse=False)
    resumed = make_schedule(other, neural)
    resume_schedule(resumed, 12)
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    for one, two in ((optimizer, schedule), (other, resumed)):
        one.step()
        two.step()
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]

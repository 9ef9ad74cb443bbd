"""The fast solver against the normal equations of each row written out densely."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import SolveError
from recsys.model import solve
from recsys.model.history import Rows
from recsys.model.solve import Penalty, row_penalties, solve_rows
from tests.model.helpers import dense_rows

PENALTY = Penalty(alpha=10.0, regularization=0.003, exponent=1.0)


def make_rows(lengths: list[int], others: int, seed: int = 0, scale: float = 1.0) -> Rows:
    """Rows with distinct others and weights of which a third are negative."""
    generator = np.random.default_rng(seed)
    indices = [generator.choice(others, length, replace=False) for length in lengths]
    weights = [generator.exponential(scale, length) * generator.choice([1, 1, -1], length) for length in lengths]
    none = [np.empty(0)]
    return Rows(
        np.array(lengths, dtype=np.int64),
        np.concatenate([*indices, *none]).astype(np.int64),
        np.concatenate([*weights, *none]),
    )


def make_others(count: int, factors: int, seed: int = 1) -> np.ndarray:
    """Factors whose directions differ in strength by a factor of 100, as learnt ones do."""
    strengths = np.geomspace(1, 0.01, factors)
    return (np.random.default_rng(seed).normal(size=(count, factors)) * strengths).astype(np.float32)


def check(rows: Rows, others: np.ndarray, penalty: Penalty, device: str, chunk_bytes: int = 1 << 20) -> None:
    on_device = torch.from_numpy(others).to(device)
    gram = torch.from_numpy(others.astype(np.float64).T @ others.astype(np.float64))
    fast = solve_rows(rows, on_device, gram, penalty, chunk_bytes)
    assert fast.shape == (len(rows.lengths), others.shape[1])
    assert fast.dtype == torch.float32
    slow = dense_rows(rows, others, penalty)
    error = np.linalg.norm(fast.cpu().numpy() - slow, axis=1)
    assert (error <= 1e-5 * np.linalg.norm(slow, axis=1)).all()


@pytest.mark.parametrize("factors", [1, 8, 64])
@pytest.mark.parametrize("penalty", [PENALTY, Penalty(1.0, 0.1, 0.0), Penalty(40.0, 0.01, 0.5)])
def test_rows_of_all_lengths_equal_the_dense_solution(factors: int, penalty: Penalty, torch_device: str) -> None:
    rows = make_rows([0, 1, 2, 3, 5, 0, 8, 13, 63, 64, 65, 100, 129, 400], others=500)
    check(rows, make_others(500, factors), penalty, torch_device)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1e3])
def test_tiny_and_huge_weights_keep_the_accuracy(scale: float, torch_device: str) -> None:
    check(make_rows([1, 10, 200], others=300, scale=scale), make_others(300, 16), PENALTY, torch_device)


def test_rows_longer_than_a_piece_are_added_up_from_pieces(torch_device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve, "_PIECE", 64)
    rows = make_rows([700, 64, 65, 128, 129, 3, 0, 700], others=800)
    check(rows, make_others(800, 16), PENALTY, torch_device)


def test_a_real_piece_boundary(torch_device: str) -> None:
    piece = solve._PIECE
    check(
        make_rows([piece, piece + 1, 2 * piece + 5], others=3 * piece), make_others(3 * piece, 8), PENALTY, torch_device
    )


def test_the_memory_bound_does_not_change_the_solution(torch_device: str) -> None:
    rows, others = make_rows([1, 2, 7, 7, 7, 90, 90, 5] * 9, others=100), make_others(100, 16)
    check(rows, others, PENALTY, torch_device, chunk_bytes=1)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(0, 1000))
def test_any_mixture_of_lengths(lengths: list[int], seed: int) -> None:
    check(make_rows(lengths, others=40, seed=seed), make_others(40, 12, seed), PENALTY, "cpu")


def test_rows_without_positive_weight_are_exactly_zero(torch_device: str) -> None:
    others = torch.from_numpy(make_others(10, 4)).to(torch_device)
    rows = Rows(np.array([0, 2, 1]), np.array([1, 2, 3]), np.array([-1.0, -2.0, 0.0]))
    gram = (others.double().T @ others.double()).cpu()
    assert not solve_rows(rows, others, gram, PENALTY, 1 << 20).any()


def test_a_weight_that_is_not_finite_is_refused() -> None:
    others = torch.from_numpy(make_others(10, 4))
    rows = Rows(np.array([1]), np.array([1]), np.array([np.nan]))
    with pytest.raises(SolveError, match="not finite"):
        solve_rows(rows, others, others.double().T @ others.double(), PENALTY, 1 << 20)


def test_the_penalty_follows_the_frequency() -> None:
    totals = np.array([0.0, 5.0])
    assert row_penalties(totals, 100, Penalty(10.0, 0.5, 1.0)).tolist() == [50.0, 75.0]
    assert row_penalties(totals, 100, Penalty(10.0, 0.5, 0.0)).tolist() == [0.5, 0.5]

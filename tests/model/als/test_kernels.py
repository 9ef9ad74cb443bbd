"""Both kernels against the normal equations of each row written out densely."""

from collections.abc import Callable

import numba
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import SolveError
from recsys.model.als import cholesky as batched
from recsys.model.als import conjugate_gradient as fused
from recsys.model.als.factors import gram_of
from recsys.model.als.objective import Objective
from recsys.model.als.selection import Selection
from recsys.model.interactions.history import Rows
from tests.model.helpers import dense_rows, select_all

OBJECTIVE = Objective(alpha=10.0, regularization=0.003, exponent=1.0)
OBJECTIVES = [OBJECTIVE, Objective(1.0, 0.1, 0.0), Objective(40.0, 0.01, 0.5), Objective(10.0, 0.1, 0.0, offset=1.0)]
ROOMY = 1 << 20

Kernel = Callable[[Selection, npt.NDArray[np.float32], Objective, int], npt.NDArray[np.float32]]


@pytest.fixture(params=["fused", "fused in place", "batched"])
def kernel(request: pytest.FixtureRequest, torch_device: str, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Solves rows exactly; the fused kernel, which is the CPU's, in both of its ways."""
    if request.param == "batched":

        def on_device(
            selection: Selection, others: npt.NDArray[np.float32], objective: Objective, chunk_bytes: int
        ) -> npt.NDArray[np.float32]:
            factors = torch.from_numpy(others).to(torch_device)
            return batched.solve_exactly(selection, factors, gram_of(factors), objective, chunk_bytes).cpu().numpy()

        return on_device
    if torch_device != "cpu":
        pytest.skip("the fused kernel runs on the CPU")
    monkeypatch.setattr(fused, "_TURN_BELOW", 0 if request.param == "fused in place" else 10**9)
    return fused_exactly


def fused_exactly(
    selection: Selection, others: npt.NDArray[np.float32], objective: Objective, chunk_bytes: int = ROOMY
) -> npt.NDArray[np.float32]:
    factors = torch.from_numpy(others)
    start = torch.from_numpy(np.random.default_rng(5).normal(size=(len(selection), others.shape[1])).astype(np.float32))
    return fused.solve_exactly(selection, factors, gram_of(factors), start, objective, chunk_bytes).numpy()


def make_rows(lengths: list[int], others: int, seed: int = 0, scale: float = 1.0) -> Rows:
    """Rows with distinct others and weights of which a third are negative."""
    generator = np.random.default_rng(seed)
    indices = [generator.choice(others, length, replace=False) for length in lengths]
    weights = [generator.exponential(scale, length) * generator.choice([1, 1, -1], length) for length in lengths]
    none = [np.empty(0)]
    return Rows(
        np.array(lengths, dtype=np.int64),
        np.concatenate([*indices, *none]).astype(np.int32),
        # As the history holds them.
        np.concatenate([*weights, *none]).astype(np.float32).astype(np.float64),
    )


def make_others(count: int, factors: int, seed: int = 1) -> npt.NDArray[np.float32]:
    """Factors whose directions differ in strength by a factor of 100, as learned ones do."""
    strengths = np.geomspace(1, 0.01, factors)
    return (np.random.default_rng(seed).normal(size=(count, factors)) * strengths).astype(np.float32)


def check(kernel: Kernel, rows: Rows, others: npt.NDArray[np.float32], objective: Objective, room: int = ROOMY) -> None:
    fast = kernel(select_all(rows), others, objective, room)
    assert fast.shape == (len(rows.lengths), others.shape[1])
    assert fast.dtype == np.float32
    slow = dense_rows(rows, others, objective)
    error = np.linalg.norm(fast - slow, axis=1)
    assert (error <= 1e-5 * np.linalg.norm(slow, axis=1)).all()


@pytest.mark.parametrize("factors", [1, 8, 64])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_rows_of_all_lengths_equal_the_dense_solution(kernel: Kernel, factors: int, objective: Objective) -> None:
    rows = make_rows([0, 1, 2, 3, 5, 0, 8, 13, 63, 64, 65, 100, 129, 400], others=500)
    check(kernel, rows, make_others(500, factors), objective)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1e3])
def test_tiny_and_huge_weights_keep_the_accuracy(kernel: Kernel, scale: float) -> None:
    check(kernel, make_rows([1, 10, 200], others=300, scale=scale), make_others(300, 16), OBJECTIVE)


def test_rows_longer_than_a_piece_are_added_up_from_pieces(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched, "_PIECE", 64)
    rows = make_rows([700, 64, 65, 128, 129, 3, 0, 700], others=800)
    check(kernel, rows, make_others(800, 16), OBJECTIVE)


def test_a_row_longer_than_any_piece(kernel: Kernel) -> None:
    piece = batched._PIECE
    check(kernel, make_rows([piece, piece + 1, 2 * piece + 5], 3 * piece), make_others(3 * piece, 8), OBJECTIVE)


def test_the_memory_bound_does_not_change_the_solution(kernel: Kernel) -> None:
    rows, others = make_rows([1, 2, 7, 7, 7, 90, 90, 5] * 9, others=100), make_others(100, 16)
    check(kernel, rows, others, OBJECTIVE, room=1)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(0, 1000), st.sampled_from(OBJECTIVES))
def test_any_mixture_of_lengths(lengths: list[int], seed: int, objective: Objective) -> None:
    check(fused_exactly, make_rows(lengths, others=40, seed=seed), make_others(40, 12, seed), objective)


def test_stored_weights_count_by_their_scale(kernel: Kernel) -> None:
    rows, others = make_rows([3, 40], others=50), make_others(50, 8)
    scaled = kernel(select_all(rows, scale=0.25), others, OBJECTIVE, ROOMY)
    np.testing.assert_allclose(scaled, kernel(select_all(rows), others, OBJECTIVE, ROOMY), rtol=1e-4, atol=1e-6)


def test_a_sampled_row_is_the_solution_for_its_sample(kernel: Kernel) -> None:
    rows, others = make_rows([5, 90, 31], others=100), make_others(100, 8)
    selection = select_all(rows, cap=30)
    sample = selection.gather()
    assert sample.lengths.tolist() == [5, 30, 30]
    slow = dense_rows(sample, others, Objective(OBJECTIVE.alpha, 0.5, 0.0))
    fast = kernel(selection, others, Objective(OBJECTIVE.alpha, 0.5, 0.0), ROOMY)
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-6)


def test_rows_without_positive_weight_are_exactly_zero(kernel: Kernel) -> None:
    rows = Rows(np.array([0, 2, 1]), np.array([1, 2, 3], dtype=np.int32), np.array([-1.0, -2.0, 0.0]))
    assert not kernel(select_all(rows), make_others(10, 4), OBJECTIVE, ROOMY).any()


def test_no_rows_have_no_factors(kernel: Kernel) -> None:
    nothing = Rows(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int32), np.zeros(0))
    assert kernel(select_all(nothing), make_others(10, 4), OBJECTIVE, ROOMY).shape == (0, 4)


def test_a_weight_that_is_not_finite_is_refused(kernel: Kernel) -> None:
    rows = Rows(np.array([1]), np.array([1], dtype=np.int32), np.array([np.nan]))
    with pytest.raises(SolveError, match="not finite"):
        kernel(select_all(rows), make_others(10, 4), OBJECTIVE, ROOMY)


def test_the_number_of_threads_does_not_change_a_bit() -> None:
    rows, others = make_rows([1, 2, 7, 7, 7, 90, 90, 5] * 9, others=100), make_others(100, 16)
    selection, threads = select_all(rows), numba.get_num_threads()
    solutions = []
    for number in {1, threads}:
        numba.set_num_threads(number)
        solutions.append(fused_exactly(selection, others, OBJECTIVE).tobytes())
    numba.set_num_threads(threads)
    assert len(set(solutions)) == 1


def test_rough_steps_lead_to_the_exact_solution() -> None:
    rows, others = make_rows([1, 5, 30, 90] * 5, others=100), torch.from_numpy(make_others(100, 16))
    exact = torch.from_numpy(fused_exactly(select_all(rows), others.numpy(), OBJECTIVE))
    start = torch.zeros_like(exact)
    errors = [
        float((fused.improve(select_all(rows), others, start, OBJECTIVE, ROOMY, steps) - exact).norm() / exact.norm())
        for steps in (0, 1, 3, 6, 30)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == 1
    assert errors[-1] < 1e-4
    assert not start.any()


@settings(max_examples=40)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(0, 1000), st.sampled_from(OBJECTIVES))
def test_closely_is_within_a_thousandth_in_the_norm_of_the_equations(
    lengths: list[int], seed: int, objective: Objective
) -> None:
    rows, others = make_rows(lengths, others=40, seed=seed), make_others(40, 12, seed)
    factors, exact = torch.from_numpy(others), dense_rows(rows, others, objective)
    start = torch.zeros(len(lengths), 12)
    close = fused.solve_closely(select_all(rows), factors, gram_of(factors), start, objective, ROOMY).double().numpy()
    # The energy of the error: what the loss is above its least value.
    wide, begin = others.astype(np.float64), 0
    for row, length in enumerate(lengths):
        own = slice(begin, begin + length)
        near, total = wide[rows.others[own]], np.abs(rows.weights[own]).sum()
        matrix = wide.T @ wide + near.T @ (objective.alpha * np.abs(rows.weights[own])[:, None] * near)
        matrix += objective.penalties(np.array([total]), 40)[0] * np.eye(12)
        error = close[row] - exact[row]
        assert error @ matrix @ error <= (2e-3) ** 2 * (exact[row] @ matrix @ exact[row]) + 1e-12
        begin += length


def test_both_kernels_agree(torch_device: str) -> None:
    rows, others = make_rows([1, 2, 7, 7, 7, 90, 290, 5] * 9, others=300), make_others(300, 64)
    factors = torch.from_numpy(others).to(torch_device)
    one = batched.solve_exactly(select_all(rows), factors, gram_of(factors), OBJECTIVE, ROOMY).cpu().numpy()
    other = fused_exactly(select_all(rows), others, OBJECTIVE)
    assert (np.linalg.norm(one - other, axis=1) <= 1e-4 * np.linalg.norm(other, axis=1)).all()

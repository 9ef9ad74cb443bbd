"""The bound on what choosing among rankings costs, over any losses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recsys.model.evaluation.metrics import Relevant, ranked_by_scores, ranking_figures
from recsys.model.mixture.adahedge import AdaHedge, ndcg_of_rankings

LOSSES = arrays.arrays(np.float64, st.tuples(st.integers(1, 60), st.integers(2, 6)), elements=st.floats(0, 1))


def played(losses: np.ndarray) -> tuple[float, AdaHedge]:
    """The expected loss over all rounds, (rounds, experts), and the experts afterward."""
    experts, spent = AdaHedge(np.zeros(losses.shape[1])), 0.0
    for losses_of_round in losses:
        spent += float(experts.weights @ losses_of_round)
        experts.update(losses_of_round)
    return spent, experts


def stated_bound(losses: np.ndarray) -> float:
    widest = float(np.ptp(losses, axis=1).max())
    hardness = np.log(2 * (losses.shape[1] - 1))
    return widest * (np.sqrt(len(losses) * hardness) + 4 / 3 * hardness + 2)


@given(LOSSES, st.sampled_from([1e-6, 1.0, 1e3]), st.floats(-5, 5))
@settings(max_examples=150, deadline=None)
def test_the_regret_is_within_the_bound_whatever_the_losses(losses: np.ndarray, scale: float, shift: float) -> None:
    losses = scale * losses + shift
    spent, experts = played(losses)
    regret = spent - losses.sum(axis=0).min()
    slack = 1e-9 * (np.abs(losses).sum() + 1)
    assert regret <= experts.regret_bound() + slack
    assert regret <= stated_bound(losses) + slack


@pytest.mark.parametrize("experts", [2, 9])
def test_an_adversary_who_hits_the_heaviest_stays_within_the_bound(experts: int) -> None:
    hedge, spent = AdaHedge(np.zeros(experts)), 0.0
    for _ in range(2000):
        losses = np.zeros(experts)
        losses[hedge.weights.argmax()] = 1.0
        spent += float(hedge.weights @ losses)
        hedge.update(losses)
    regret = spent - hedge.losses.min()
    # The adversary does harm, but no more than was stated.
    assert 5 < regret <= hedge.regret_bound()
    assert hedge.regret_bound() <= np.sqrt(2000 * hedge.hardness) + 4 / 3 * hedge.hardness + 2


def test_weights_follow_the_expert_who_keeps_ahead() -> None:
    generator = np.random.default_rng(0)
    losses = 0.8 + 0.01 * generator.standard_normal((100, 5))
    losses[:, 3] -= 0.01
    spent, experts = played(losses)
    assert experts.weights[3] > 0.99
    # Differences of a hundredth cost hundredths, not the range that losses could have.
    assert spent - losses[:, 3].sum() < 0.1


def test_before_the_first_round_the_first_expert_has_half_the_weight() -> None:
    assert AdaHedge(np.zeros(5)).weights.tolist() == [0.5, 0.125, 0.125, 0.125, 0.125]


def test_a_hopeless_expert_that_wins_once_breaks_nothing() -> None:
    experts = AdaHedge(np.array([0.0, 1e9]), gap=1e-12)
    experts.update(np.array([1.0, 0.0]))
    assert experts.gap == pytest.approx(1e-12)
    assert experts.weights.tolist() == [1.0, 0.0]


@given(st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_ndcg_of_rankings_is_that_of_the_metrics(seed: int) -> None:
    generator = np.random.default_rng(seed)
    users, items, rankings, k = 4, 12, 3, 5
    # Few different numbers, so that there are ties.
    scores = generator.integers(0, 6, size=(users * items, rankings)).astype(np.float64)
    relevant = generator.random((users, items)) < 0.3
    relevant[:, 0] = True
    unknown = generator.integers(0, 3, users)
    wanted = relevant.sum(axis=1) + unknown
    best = np.cumsum(1 / np.log2(np.arange(k) + 2))[np.minimum(wanted, k) - 1]
    ndcg = ndcg_of_rankings(scores, np.arange(users + 1) * items, relevant.ravel().astype(np.float64), best, k)
    owners, columns = np.nonzero(relevant)
    hits = Relevant(np.searchsorted(owners, np.arange(users + 1)), columns, unknown)
    for ranking in range(rankings):
        own = torch.from_numpy(scores[:, ranking].reshape(users, items).astype(np.float32))
        np.testing.assert_allclose(
            ndcg[:, ranking], ranking_figures(ranked_by_scores(own, hits.lists, k + 1), hits, k).ndcg
        )

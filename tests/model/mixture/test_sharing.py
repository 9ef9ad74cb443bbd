"""Groups take the weights that all share where these have ranked better, and the regret stays within its bound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.model.mixture.choosing import Choosing
from recsys.model.mixture.reranker import LabeledCandidates
from recsys.model.mixture.sharing import Sharing
from tests.model.helpers import make_settings

WIDTH, K = 4, 3
PREFERENCE = np.array([2.0, -1.0, 0.5, 0.0])
SETTINGS = make_settings()


def users_of(
    draw: np.random.Generator, preferences: list[np.ndarray], candidates: int = 12
) -> tuple[LabeledCandidates, np.ndarray]:
    """Users who take the candidate that each prefers, but for noise; and the candidates' features."""
    features = draw.standard_normal((len(preferences), candidates, WIDTH))
    noisy = np.einsum("ucf,uf->uc", features, np.array(preferences)) + draw.gumbel(size=features.shape[:2])
    relevant = noisy >= noisy.max(axis=1, keepdims=True)
    flat = features.reshape(-1, WIDTH)
    owners = np.repeat(np.arange(len(preferences)), candidates)
    wanted = np.ones(len(preferences), dtype=np.int64)
    return LabeledCandidates.labeled(flat, owners, relevant.ravel(), np.ones(len(flat)), wanted, K), flat


def learned(
    choosing: Choosing, draw: np.random.Generator, groups: np.ndarray, preferences: np.ndarray
) -> tuple[float, np.ndarray]:
    """Learn a batch of users of groups with a preference each, a ranking is chance; returns what `learn` does."""
    examples, features = users_of(draw, [preferences[group] for group in groups.tolist()])
    of_candidates = np.repeat(groups, np.diff(examples.offsets))
    reranked = np.einsum("cf,cf->c", features, choosing.weights[of_candidates])
    return choosing.learn(groups, examples, np.column_stack([reranked, draw.standard_normal(len(features))]))


def test_a_group_of_few_users_ranks_as_all_do_where_they_are_alike() -> None:
    draw, choosing = np.random.default_rng(0), Choosing(SETTINGS, ["reranker", "chance"], np.zeros(WIDTH), 3)
    groups = np.array([0] * 40 + [1] * 40 + [2])
    for _ in range(30):
        learned(choosing, draw, groups, np.tile(PREFERENCE, (3, 1)))
    weights = choosing.state()["weights"]
    assert weights.shape == (4, WIDTH)
    np.testing.assert_array_equal(choosing.weights[2], weights[3])


def test_a_group_that_differs_keeps_weights_of_its_own() -> None:
    draw, choosing = np.random.default_rng(1), Choosing(SETTINGS, ["reranker", "chance"], np.zeros(WIDTH), 2)
    for _ in range(30):
        learned(choosing, draw, np.array([0] * 60 + [1] * 20), np.stack([PREFERENCE, -PREFERENCE]))
    np.testing.assert_array_equal(choosing.weights, choosing.state()["weights"][:2])
    assert choosing.weights[0] @ PREFERENCE > 1 > -1 > choosing.weights[1] @ PREFERENCE


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_regret_is_within_its_bound_whatever_weights_are_taken(seed: int) -> None:
    draw, gained, single = np.random.default_rng(seed), 0.0, np.zeros(2)
    choosing = Choosing(SETTINGS, ["reranker", "chance"], draw.standard_normal(WIDTH), 3)
    for _ in range(12):
        preferences = draw.standard_normal((3, WIDTH)) * draw.choice([0, 3])
        expected, means = learned(choosing, draw, np.sort(draw.integers(0, 3, draw.integers(1, 12))), preferences)
        gained, single = gained + expected, single + means
    assert gained >= single.max() - sum(experts.regret_bound() for experts in choosing.experts) - 1e-9


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_gains_are_those_of_the_definition(seed: int) -> None:
    draw = np.random.default_rng(seed)
    sharing, expected = Sharing(np.zeros((2, 2))), np.zeros((2, 2))
    for _ in range(4):
        group, share = int(draw.integers(2)), float(draw.random())
        examples, features = users_of(draw, [PREFERENCE] * 5)
        own, shared = draw.standard_normal((2, WIDTH))
        sharing.update(group, examples, own, shared, share)
        found = []
        for weights in (own, shared):
            scores = (features * weights).sum(axis=1).reshape(5, -1)
            hits = examples.relevant.reshape(5, -1).argmax(axis=1)
            ranks = (scores > scores[np.arange(5), hits][:, None]).sum(axis=1)
            found.append(np.where(ranks < K, 1 / np.log2(ranks + 2), 0).mean())
        gain = share * (found[1] - found[0])
        expected[group] += gain, gain**2
    np.testing.assert_allclose(sharing.gains, expected, atol=1e-12)


@pytest.mark.parametrize(("gains", "taken"), [([1.0, 1.0], True), ([0.5, 1.0], False), ([0.0, 0.0], False)])
def test_chance_alone_moves_no_group(gains: list[float], taken: bool) -> None:
    assert Sharing(np.array([gains])).taken.tolist() == [taken]

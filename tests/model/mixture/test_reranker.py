"""The re-ranker's loss, gradient and curvature against their definition, and planted preferences that it learns."""

import numpy as np
import pytest
import torch

from recsys.model.mixture.reranker import LabeledCandidates, Reranker, _loss, _pairwise, _ranks

WIDTH, K = 4, 3


def random_examples(seed: int, users: int = 6, most: int = 9) -> LabeledCandidates:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0, most, users)
    owners = np.repeat(np.arange(users), lengths)
    relevant = generator.random(len(owners)) < 0.3
    wanted = np.bincount(owners[relevant], minlength=users) + generator.integers(1, 3, users)
    return LabeledCandidates.labeled(
        generator.standard_normal((len(owners), WIDTH)),
        owners,
        relevant,
        generator.choice([1.0, 3.0], len(owners)),
        wanted,
        K,
    )


def slow_loss(examples: LabeledCandidates, weights: torch.Tensor, ranks: np.ndarray) -> torch.Tensor:
    """Pair by pair, as the class says it."""
    scores = torch.from_numpy(examples.features) @ weights
    discounts = np.where(ranks < K, 1 / np.log2(ranks + 2), 0)
    loss = torch.zeros((), dtype=torch.float64)
    for user, best in enumerate(examples.best):
        own = range(examples.offsets[user], examples.offsets[user + 1])
        for hit in own:
            for other in own:
                if examples.relevant[hit] and not examples.relevant[other]:
                    change = examples.costs[other] * abs(discounts[hit] - discounts[other]) / best
                    loss = loss + change * torch.nn.functional.softplus(scores[other] - scores[hit])
    return loss


@pytest.mark.parametrize("seed", range(5))
def test_loss_gradient_and_curvature_are_those_of_the_definition(seed: int) -> None:
    examples, at = random_examples(seed), np.random.default_rng(seed).standard_normal(WIDTH)
    ranks = _ranks(examples.features @ at, examples.offsets)
    weights = torch.from_numpy(at).requires_grad_()
    expected = slow_loss(examples, weights, ranks)
    arrays = (examples.features, examples.offsets, examples.relevant, examples.costs, examples.best, ranks, K, at)
    loss, gradient, curvature = _pairwise(*arrays)
    assert loss == pytest.approx(float(expected.detach())) == pytest.approx(_loss(*arrays))
    (slope,) = torch.autograd.grad(expected, weights)
    bend = torch.autograd.functional.hessian(lambda values: slow_loss(examples, values, ranks), torch.from_numpy(at))
    np.testing.assert_allclose(gradient, slope.numpy(), atol=1e-12)
    np.testing.assert_allclose(curvature, bend.numpy(), atol=1e-12)


def test_ranks_start_over_with_each_user() -> None:
    assert _ranks(np.array([1.0, 3.0, 3.0, 0.5, 0.7]), np.array([0, 3, 3, 5])).tolist() == [2, 0, 1, 1, 0]


def test_examples_of_some_users_are_theirs() -> None:
    examples = random_examples(3)
    part = examples.of(np.array([1, 4]))
    for number, user in enumerate((1, 4)):
        own, whole = (slice(*each.offsets[place : place + 2]) for each, place in ((part, number), (examples, user)))
        np.testing.assert_array_equal(part.features[own], examples.features[whole])
        np.testing.assert_array_equal(part.relevant[own], examples.relevant[whole])
        np.testing.assert_array_equal(part.costs[own], examples.costs[whole])
        assert part.best[number] == examples.best[user]


def planted(seed: int, preference: np.ndarray, users: int = 60) -> LabeledCandidates:
    """Users who take the two candidates of twelve that a preference puts first, not always."""
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((users * 12, WIDTH))
    noisy = (features @ preference + 0.3 * generator.standard_normal(users * 12)).reshape(users, 12)
    relevant = (-noisy).argsort(axis=1).argsort(axis=1) < 2
    return LabeledCandidates.labeled(
        features, np.repeat(np.arange(users), 12), relevant.ravel(), np.ones(12 * users), np.full(users, 2), K
    )


def fresh(forgetting: float = 0.1, regularization: float = 1.0) -> Reranker:
    return Reranker(np.zeros((2, WIDTH)), np.zeros((2, WIDTH, WIDTH)), forgetting, regularization)


def test_a_planted_preference_is_found_and_followed_when_it_changes() -> None:
    preferences = [np.array([2.0, -1.0, 0.0, 0.0]), np.array([0.0, 0.0, 2.0, 1.0])]
    reranker, nothing = fresh(), np.zeros(WIDTH)
    for number, preference in enumerate(preferences):
        for batch in range(25):
            reranker.learn(0, planted(100 * number + batch, preference), nothing)
        cosine = reranker.weights[0] @ preference / np.linalg.norm(reranker.weights[0]) / np.linalg.norm(preference)
        assert cosine > 0.97
    assert not reranker.weights[1].any()


def test_a_step_never_raises_what_it_makes_small() -> None:
    for seed in range(20):
        generator, reranker = np.random.default_rng(seed), fresh(regularization=0.01)
        # Far from the best weights, where a whole Newton step may overshoot.
        reranker.weights[0] = before = 30 * generator.standard_normal(WIDTH)
        examples = planted(seed, generator.standard_normal(WIDTH), users=5)
        ranks = _ranks(examples.features @ before, examples.offsets)
        reranker.learn(0, examples, before)
        arrays = (examples.features, examples.offsets, examples.relevant, examples.costs, examples.best, ranks, K)
        distance = reranker.weights[0] - before
        assert _loss(*arrays, reranker.weights[0]) + 0.005 * distance @ distance <= _loss(*arrays, before) + 1e-12


def test_without_examples_weights_go_toward_the_prior() -> None:
    reranker, prior = fresh(), np.ones(WIDTH)
    reranker.learn(0, random_examples(0).of(np.zeros(0, dtype=np.int64)), prior)
    np.testing.assert_allclose(reranker.weights[0], prior)

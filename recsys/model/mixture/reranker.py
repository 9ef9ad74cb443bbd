"""Online learning to rank: a linear model of features of candidates, trained with LambdaRank."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from recsys.model.common.arrays import FloatArray, IntArray
from recsys.model.common.jit import compiled

# A step is halved at most this often until it lowers the objective.
_HALVINGS = 10


class Reranker:
    """Weights of features, one set per group of users.

    The loss is LambdaRank's (Burges 2010, "From RankNet to LambdaRank to LambdaMART"). A pair of a relevant candidate
    and another one costs log(1 + exp(score of the other - score of the relevant one)), weighted by how much swapping
    the two would change the NDCG@k of the current ranking. With the ranks fixed this is convex. A batch is learned by
    one Newton step on the sum of its loss, a quadratic that stands for the losses of earlier batches (their curvature,
    which decays with every batch), and a quadratic that shrinks the weights of a group toward a prior. So the state is
    one vector and one matrix per group, and no example is kept.

    Args:
        weights: (groups, features).
        curvature: (groups, features, features) of the earlier losses.
        forgetting: Share of the curvature that is lost with each batch.
        regularization: Strength of the shrinkage toward the prior.
    """

    def __init__(self, weights: FloatArray, curvature: FloatArray, forgetting: float, regularization: float) -> None:
        self.weights, self.curvature = weights, curvature
        self._kept, self._regularization = 1 - forgetting, regularization

    def learn(self, group: int, examples: "LabeledCandidates", prior: FloatArray) -> None:
        """Learn from the interactions of users of a group.

        Args:
            group: Number of the group.
            examples: Their candidates.
            prior: (features,) weights toward which those of the group are shrunk.
        """
        before = self.weights[group]
        past = self._kept * self.curvature[group]
        arrays = (examples.features, examples.offsets, examples.relevant, examples.costs, examples.best)
        ranks = _ranks(examples.features @ before, examples.offsets)
        loss, gradient, curvature = _pairwise(*arrays, ranks, examples.k, before)
        shrinkage = self._regularization * (before - prior)
        whole = past + curvature + self._regularization * np.eye(len(before))
        step = torch.linalg.solve(torch.from_numpy(whole), torch.from_numpy(-(gradient + shrinkage))).numpy()
        start = loss + 0.5 * float(shrinkage @ (before - prior))
        self.curvature[group] = past + curvature
        for _ in range(_HALVINGS):
            after = before + step
            distance = after - prior
            reached = _loss(*arrays, ranks, examples.k, after)
            reached += 0.5 * float(step @ past @ step) + 0.5 * self._regularization * float(distance @ distance)
            if reached <= start:
                self.weights[group] = after
                return
            step = step / 2


@dataclass(frozen=True)
class LabeledCandidates:
    """Candidates of some users, one user after the other, labeled by whether they are relevant.

    Attributes:
        features: (candidates, features).
        offsets: (users + 1,) where the candidates of each user begin and end.
        relevant: (candidates,) float64, 1 if the user interacted with it, else 0.
        costs: (candidates,) what it costs to rank one before a relevant one, 1 for most.
        best: (users,) the highest discounted cumulative gain that a list can have.
        k: Length of the lists that are evaluated.
    """

    features: FloatArray
    offsets: IntArray
    relevant: FloatArray
    costs: FloatArray
    best: FloatArray
    k: int

    @classmethod
    def labeled(
        cls,
        features: FloatArray,
        owners: IntArray,
        relevant: npt.NDArray[np.bool_],
        costs: FloatArray,
        wanted: IntArray,
        k: int,
    ) -> "LabeledCandidates":
        """From candidates with their users.

        Args:
            features: (candidates, features).
            owners: (candidates,) user of each, ascending from 0.
            relevant: (candidates,) whether the user interacted with it.
            costs: (candidates,) see above.
            wanted: (users,) number of relevant items of each user, candidates or not; at least 1.
            k: Length of the lists.
        """
        offsets = np.searchsorted(owners, np.arange(len(wanted) + 1))
        best: FloatArray = np.cumsum(1 / np.log2(np.arange(k) + 2))[np.minimum(wanted, k) - 1]
        return cls(features, offsets, relevant.astype(np.float64), costs, best, k)

    def of(self, users: IntArray) -> "LabeledCandidates":
        """The candidates of users (n,), ascending."""
        lengths = np.diff(self.offsets)
        chosen = np.zeros(len(lengths), dtype=bool)
        chosen[users] = True
        kept = np.repeat(chosen, lengths)
        offsets = np.concatenate([[0], np.cumsum(lengths[users])])
        features, relevant, costs = self.features[kept], self.relevant[kept], self.costs[kept]
        return LabeledCandidates(features, offsets, relevant, costs, self.best[users], self.k)


@compiled
def _ranks(scores: FloatArray, offsets: IntArray) -> IntArray:
    """(candidates,) rank of each among its user's candidates, from 0; ties keep their order."""
    ranks = np.empty(len(scores), dtype=np.int64)
    for user in range(len(offsets) - 1):
        begin, end = offsets[user], offsets[user + 1]
        order = np.argsort(-scores[begin:end], kind="mergesort")
        for rank in range(end - begin):
            ranks[begin + order[rank]] = rank
    return ranks


@compiled
def _discounts(ranks: IntArray, k: int) -> FloatArray:
    """(candidates,) what a hit at each one's rank adds to the discounted cumulative gain."""
    discounts = np.zeros(len(ranks))
    for candidate in range(len(ranks)):
        if ranks[candidate] < k:
            discounts[candidate] = 1 / np.log2(ranks[candidate] + 2.0)
    return discounts


@compiled
def _softplus(number: float) -> float:
    """log(1 + exp(number))."""
    return float(max(number, 0.0) + np.log1p(np.exp(-abs(number))))


@compiled
def _products(features: FloatArray, weights: FloatArray) -> FloatArray:
    """(candidates,) inner products, in a loop: numba needs SciPy for the matrix product."""
    products = np.zeros(len(features))
    for row in range(len(features)):
        for column in range(len(weights)):
            products[row] += features[row, column] * weights[column]
    return products


@compiled
def _loss(
    features: FloatArray,
    offsets: IntArray,
    relevant: FloatArray,
    costs: FloatArray,
    best: FloatArray,
    ranks: IntArray,
    k: int,
    weights: FloatArray,
) -> float:
    """The loss at given weights, with the weights of pairs from given ranks."""
    loss = 0.0
    scores, discounts = _products(features, weights), _discounts(ranks, k)
    for user in range(len(best)):
        for hit in range(offsets[user], offsets[user + 1]):
            if relevant[hit] == 0:
                continue
            for other in range(offsets[user], offsets[user + 1]):
                change = costs[other] * abs(discounts[hit] - discounts[other]) / best[user]
                if relevant[other] == 0 and change > 0:
                    loss += change * _softplus(scores[other] - scores[hit])
    return loss


@compiled
def _pairwise(
    features: FloatArray,
    offsets: IntArray,
    relevant: FloatArray,
    costs: FloatArray,
    best: FloatArray,
    ranks: IntArray,
    k: int,
    weights: FloatArray,
) -> tuple[float, FloatArray, FloatArray]:
    """Loss, gradient (features,) and curvature (features, features) at given weights.

    The curvature is the sum of h (x - y)(x - y)' over pairs of hits x and others y. It is split into squares and
    x (sum h y)', so that the cost of a pair is linear, not quadratic, in the number of features. Its lower half is
    computed, and mirrored. Features that are 0 add nothing: most candidates are none of the user's own items.
    """
    width = len(weights)
    loss, gradient, curvature = 0.0, np.zeros(width), np.zeros((width, width))
    scores, slopes, bends = _products(features, weights), np.zeros(len(features)), np.zeros(len(features))
    discounts = _discounts(ranks, k)
    around, told = np.zeros(width), np.empty(width, dtype=np.int64)
    for user in range(len(best)):
        begin, end = offsets[user], offsets[user + 1]
        for hit in range(begin, end):
            if relevant[hit] == 0:
                continue
            around[:] = 0
            for other in range(begin, end):
                change = costs[other] * abs(discounts[hit] - discounts[other]) / best[user]
                if relevant[other] != 0 or change == 0:
                    continue
                ahead = scores[other] - scores[hit]
                small = np.exp(-abs(ahead))
                chance = (1.0 if ahead >= 0 else small) / (1 + small)
                loss += change * (max(ahead, 0.0) + np.log1p(small))
                slopes[hit] -= change * chance
                slopes[other] += change * chance
                bend = change * chance * (1 - chance)
                bends[hit] += bend
                bends[other] += bend
                for column in range(width):
                    around[column] += bend * features[other, column]
            for column in range(width):
                for across in range(column + 1):
                    products = features[hit, column] * around[across] + features[hit, across] * around[column]
                    curvature[column, across] -= products
    for row in range(len(features)):
        if bends[row] == 0 and slopes[row] == 0:
            continue
        count = 0
        for column in range(width):
            if features[row, column] != 0:
                told[count] = column
                count += 1
        for place in range(count):
            column = told[place]
            gradient[column] += slopes[row] * features[row, column]
            bent = bends[row] * features[row, column]
            for beside in range(place + 1):
                curvature[column, told[beside]] += bent * features[row, told[beside]]
    for column in range(width):
        for across in range(column):
            curvature[across, column] = curvature[column, across]
    return loss, gradient, curvature

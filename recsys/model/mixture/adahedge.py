"""Expert weights that follow past performance, with a bound on the regret."""

import numpy as np

from recsys.model.common.arrays import FloatArray, IntArray
from recsys.model.common.jit import compiled


class AdaHedge:
    """Weights of experts that follow their losses.

    Each round draws an expert with probabilities equal to the weights, and then reveals the losses of all experts.
    AdaHedge (de Rooij, van Erven, Grünwald & Koolen 2014, "Follow the leader if you can, hedge if you must", JMLR 15,
    figure 1) sets the weights in proportion to exp(-rate * cumulative loss). The rate is C / gap, where the gap is the
    cumulative mixability gap. The number of rounds and the range of the losses need not be known. In the paper all
    experts start with equal weights, and C is ln K. Here the first expert starts with half of the weight and the K - 1
    others share the rest, so C, the largest logarithm of the inverse of an initial weight, is ln(2 (K - 1)). For T
    rounds and losses whose range within a round is at most S, the expected loss of the drawn experts is at most that of
    the best expert plus

        min(2 * gap, S * sqrt(T C) + S * (4/3 C + 2)),

    for any losses. (The paper shows that the regret is at most 2 * gap, and bounds the gap by the variance of the
    losses, which is at most S^2 / 4 in a round.) When one expert stays ahead, the gap and the regret stay small.

    Args:
        losses: (K,) cumulative losses, K > 1.
        gap: The cumulative mixability gap.
    """

    def __init__(self, losses: FloatArray, gap: float = 0.0) -> None:
        self.losses, self.gap = losses, gap
        others = len(losses) - 1
        self._first = np.concatenate([[0.5], np.full(others, 0.5 / others)])
        self.hardness = float(np.log(2 * others))

    @property
    def weights(self) -> FloatArray:
        """(K,) probabilities of the experts; they sum to 1."""
        behind = self.losses - self.losses.min()
        # Without a gap the rate is infinite: the leaders share all the weight.
        weights = self._first * (np.exp(-self.hardness * (behind / self.gap)) if self.gap > 0 else behind == 0)
        normalized: FloatArray = weights / weights.sum()
        return normalized

    def update(self, losses: FloatArray) -> None:
        """Add the losses (K,) of a round."""
        behind = self.losses - self.losses.min()
        after = behind + losses
        expected = float(self.weights @ losses)
        if self.gap > 0:
            # Relative to the smallest sum, and divided by the gap first, so that nothing underflows or overflows.
            excesses = [(sums - sums.min()) / self.gap for sums in (after, behind)]
            totals = [np.log(self._first @ np.exp(-self.hardness * excess)) for excess in excesses]
            mixed = float(after.min()) + float(totals[1] - totals[0]) * self.gap / self.hardness
        else:
            mixed = float(after.min())
        self.losses = self.losses + losses
        self.gap += max(float(expected - mixed), 0.0)

    def regret_bound(self) -> float:
        """Upper bound on the expected regret of the draws so far against the best expert: twice the gap."""
        return 2 * self.gap


@compiled
def ndcg_of_rankings(
    scores: FloatArray, offsets: IntArray, relevant: FloatArray, best: FloatArray, k: int
) -> FloatArray:
    """NDCG@k of rankings of candidates. Ties count as misses.

    Args:
        scores: (candidates, rankings), higher is better.
        offsets: (users + 1,) the candidates of user u are offsets[u], ..., offsets[u + 1] - 1.
        relevant: (candidates,) 1 for those that count as hits, else 0.
        best: (users,) the discounted cumulative gain of a perfect list.
        k: Length of the lists.

    Returns:
        (users, rankings).
    """
    ndcg = np.zeros((len(best), scores.shape[1]))
    for user in range(len(best)):
        for hit in range(offsets[user], offsets[user + 1]):
            if relevant[hit] == 0:
                continue
            for ranking in range(scores.shape[1]):
                above = -1
                for other in range(offsets[user], offsets[user + 1]):
                    above += scores[other, ranking] >= scores[hit, ranking]
                if above < k:
                    ndcg[user, ranking] += 1 / np.log2(above + 2) / best[user]
    return ndcg

"""Which of several rankings to trust, by how well each has ranked so far, with a bound on what that can cost."""

import numpy as np

from recsys.model.common.arrays import FloatArray, IntArray
from recsys.model.common.jit import compiled


class AdaHedge:
    """Weights of experts that follow their losses.

    Each round an expert is drawn by the weights, and then the losses of all are seen. AdaHedge (de Rooij, van Erven,
    Grünwald & Koolen 2014, "Follow the leader if you can, hedge if you must", JMLR 15, figure 1) weighs experts by
    exp(-rate * loss so far) with the rate C / gap, where the gap is what mixing has cost so far. It needs to know
    neither the number of rounds nor the range of the losses. There all experts begin alike and C is ln K; here the
    first begins with half of the weight and the K - 1 others share the rest, so that C, the largest logarithm of one
    over a first weight, is ln(2 (K - 1)). For T rounds and losses whose range within a round is at most S, the expected
    loss of the drawn experts is at most that of the best one, plus

        min(2 * gap, S * sqrt(T C) + S * (4/3 C + 2)),

    whatever the losses are (there: regret <= 2 * gap, and the bound of the gap by the variance of the losses, which is
    at most S^2 / 4 in a round). Where one expert keeps ahead the gap, and so the regret, stays small.

    Args:
        losses: (K,) sums of the losses so far, K > 1.
        gap: The mixability gap so far.
    """

    def __init__(self, losses: FloatArray, gap: float = 0.0) -> None:
        self.losses, self.gap = losses, gap
        others = len(losses) - 1
        self._first = np.concatenate([[0.5], np.full(others, 0.5 / others)])
        self.hardness = float(np.log(2 * others))

    @property
    def weights(self) -> FloatArray:
        """(K,) chances of the experts, which sum to 1."""
        behind = self.losses - self.losses.min()
        # Without a gap the rate is infinite: the leaders share all.
        weights = self._first * (np.exp(-self.hardness * (behind / self.gap)) if self.gap > 0 else behind == 0)
        normalized: FloatArray = weights / weights.sum()
        return normalized

    def update(self, losses: FloatArray) -> None:
        """See the losses (K,) of a round."""
        behind = self.losses - self.losses.min()
        after = behind + losses
        expected = float(self.weights @ losses)
        if self.gap > 0:
            # Of what is largest, and divided by the gap first, so that nothing underflows or overflows.
            excesses = [(sums - sums.min()) / self.gap for sums in (after, behind)]
            totals = [np.log(self._first @ np.exp(-self.hardness * excess)) for excess in excesses]
            mixed = float(after.min()) + float(totals[1] - totals[0]) * self.gap / self.hardness
        else:
            mixed = float(after.min())
        self.losses = self.losses + losses
        self.gap += max(float(expected - mixed), 0.0)

    def regret_bound(self) -> float:
        """What the draws so far may have lost, in expectation, against the best expert: twice the gap."""
        return 2 * self.gap


@compiled
def ranked_gains(opinions: FloatArray, offsets: IntArray, relevant: FloatArray, best: FloatArray, k: int) -> FloatArray:
    """NDCG@k of rankings of candidates, ties being misses.

    Args:
        opinions: (candidates, rankings) higher is better.
        offsets: (users + 1,) the candidates of user u are offsets[u], ..., offsets[u + 1] - 1.
        relevant: (candidates,) 1 for those that count as hits, else 0.
        best: (users,) the best gain that is possible.
        k: Length of the lists.

    Returns:
        (users, rankings).
    """
    gains = np.zeros((len(best), opinions.shape[1]))
    for user in range(len(best)):
        for hit in range(offsets[user], offsets[user + 1]):
            if relevant[hit] == 0:
                continue
            for ranking in range(opinions.shape[1]):
                above = -1
                for other in range(offsets[user], offsets[user + 1]):
                    above += opinions[other, ranking] >= opinions[hit, ranking]
                if above < k:
                    gains[user, ranking] += 1 / np.log2(above + 2) / best[user]
    return gains

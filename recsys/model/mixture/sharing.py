"""Which groups of users are ranked by weights that all groups share."""

import numpy as np
import numpy.typing as npt

from recsys.model.common.arrays import FloatArray
from recsys.model.mixture.adahedge import ndcg_of_rankings
from recsys.model.mixture.reranker import LabeledCandidates

# Standard errors.
_MARGIN = 0.5


class Sharing:
    """Compares, batch by batch, a group's own weights of the re-ranker with those that all groups share.

    A group takes the shared ones while they have ranked better by more than half a standard error: where the sum over
    batches of what they gained exceeds half the root of the sum of its squares. A group with few examples thus ranks as
    all do until its own weights are good enough, and chance alone seldom moves one with many.

    Args:
        gains: (groups, 2) sum over the batches of the shared weights' gain, and the sum of its squares.
    """

    def __init__(self, gains: FloatArray) -> None:
        self.gains = gains

    @property
    def taken(self) -> npt.NDArray[np.bool_]:
        """(groups,) whether a group takes the shared weights."""
        better: npt.NDArray[np.bool_] = self.gains[:, 0] > _MARGIN * np.sqrt(self.gains[:, 1])
        return better

    def served(self, weights: FloatArray) -> FloatArray:
        """(groups, features) weights that each group is ranked by.

        Args:
            weights: (groups + 1, features), the shared ones last.
        """
        chosen: FloatArray = np.where(self.taken[:, None], weights[-1], weights[:-1])
        return chosen

    def update(
        self, group: int, examples: LabeledCandidates, own: FloatArray, shared: FloatArray, share: float
    ) -> None:
        """Compare weights (features,) on users of a group, who are a share of the batch's."""
        # Added up by numpy itself, in one order; products of matrices depend on the number of threads.
        scores = [np.einsum("cf,f->c", examples.features, weights) for weights in (own, shared)]
        ndcg = ndcg_of_rankings(
            np.stack(scores, axis=1), examples.offsets, examples.relevant, examples.best, examples.k
        ).mean(axis=0)
        gain = share * float(ndcg[1] - ndcg[0])
        self.gains[group] += gain, gain**2

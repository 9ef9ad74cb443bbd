"""Live learners, ranked by the code that ranks versions."""

from recsys.model.als.factors import take_rows
from recsys.model.als.incremental_als import IncrementalAls
from recsys.model.learner import Learner
from recsys.serving.arrays import Array
from recsys.serving.factors import AlsScorer
from recsys.serving.proposals import DenseMember
from recsys.serving.ranking import DenseScorer


def live_scorer(learner: Learner, items: int) -> DenseMember:
    """The scorer of a learner of so many items as it is now: one that has no other, on whatever device it lives."""
    return _LiveFactors(learner) if isinstance(learner, IncrementalAls) else _LiveScores(learner, items)


class _LiveFactors(AlsScorer):
    """Factors that stay on their device, but for those of the items and of the users that are asked for."""

    def __init__(self, learner: IncrementalAls) -> None:
        items: Array = learner.item_factors.cpu().numpy()
        super().__init__({"user_factors": items[:0], "item_factors": items})
        self._learner = learner

    def factors(self, rows: Array) -> Array:
        """See `AlsScorer`."""
        factors: Array = take_rows(self._learner.user_factors, rows).cpu().numpy()
        return factors


class _LiveScores(DenseScorer):
    """A live learner that scores all items, on its own device."""

    def __init__(self, learner: Learner, items: int) -> None:
        self._learner, self.items = learner, items

    def score(self, rows: Array) -> Array:
        """See `Scorer`."""
        scores: Array = self._learner.score(rows).cpu().numpy()
        return scores

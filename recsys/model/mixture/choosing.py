"""What is learned from ranked users: weights of features, of whole rankings, and what their values mean."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.config import Settings
from recsys.model.common.arrays import FloatArray, IntArray
from recsys.model.learner import State
from recsys.model.mixture.adahedge import AdaHedge, ndcg_of_rankings
from recsys.model.mixture.calibration import RankingCalibration
from recsys.model.mixture.reranker import LabeledCandidates, Reranker
from recsys.model.mixture.sharing import Sharing
from recsys.serving.scorers import GROUPS


class Choosing:
    """For each group of users a re-ranker, weights of the rankings that compete with it, and their calibration.

    Beside the re-rankers of several groups there is one of all users, whose weights a group takes where they have done
    better so far (see `Sharing`). Whichever a group takes, it is one ranking to those that choose among rankings.

    Args:
        settings: The section model.mixture is used.
        rankings: Names, the re-ranker first.
        start: (features,) initial weights of the re-ranker.
        groups: How many groups of users are told apart.
    """

    def __init__(self, settings: Settings, rankings: Sequence[str], start: FloatArray, groups: int) -> None:
        self.rankings, self._own, self._start = list(rankings), settings.model.mixture, start
        calibration = RankingCalibration.new(rankings, groups, self._own.forgetting)
        rerankers = groups + (groups > 1)
        self.restore(
            {
                "weights": np.tile(start, (rerankers, 1)),
                "curvature": np.zeros((rerankers, len(start), len(start))),
                "gains": np.zeros((groups, 2)),
                "losses": np.zeros((groups, len(rankings))),
                "gaps": np.zeros(groups),
                "calibration": calibration.lines,
                "calibration_curvature": calibration.curvature,
            }
        )

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what `state` returned."""
        held = {name: array.copy() for name, array in state.items()}
        forgetting, regularization = self._own.forgetting, self._own.regularization
        self._reranker = Reranker(held["weights"], held["curvature"], forgetting, regularization)
        self._sharing = Sharing(held["gains"])
        self.experts = [
            AdaHedge(losses, gap) for losses, gap in zip(held["losses"], held["gaps"].tolist(), strict=True)
        ]
        lines = held["calibration"], held["calibration_curvature"]
        self._calibration = RankingCalibration(self.rankings, forgetting, *lines)

    @property
    def taught(self) -> bool:
        """Whether anything has been learned."""
        return bool(self._reranker.curvature.any())

    @property
    def weights(self) -> FloatArray:
        """(groups, features) of the re-ranker that serves each group."""
        weights = self._reranker.weights
        return weights if len(self.experts) == 1 else self._sharing.served(weights)

    def follow(self, other: "Choosing") -> None:
        """Be drawn to another one's mean weights of the features that both have; begin with them."""
        weights = other._of_groups.mean(axis=0)
        self._start = np.concatenate([weights, self._start[len(weights) :]])
        if not self.taught:
            self._reranker.weights[:] = self._start

    def learn(self, groups: IntArray, examples: LabeledCandidates, scores: FloatArray) -> tuple[float, FloatArray]:
        """Learn from users who were ranked before what they did was known.

        Args:
            groups: (users,) the group of each.
            examples: Their candidates.
            scores: (candidates, rankings) what the rankings made of them.

        Returns:
            The expected NDCG@k of the ranking that serves a user, mean over the users, and that of each ranking.
        """
        ndcg = ndcg_of_rankings(scores, examples.offsets, examples.relevant, examples.best, examples.k)
        of_candidates = np.repeat(groups, np.diff(examples.offsets))
        for group in np.unique(groups).tolist():
            own = of_candidates == group
            self._calibration.learn(group, scores[own], examples.relevant[own] > 0)
        weights = self._reranker.weights
        prior = np.concatenate([self._of_groups, self._start[None]]).mean(axis=0)
        expected = 0.0
        for group, experts in enumerate(self.experts):
            users = np.flatnonzero(groups == group)
            if len(users):
                # Contributions to the mean over all users, so that those of all groups add up to it.
                shares = ndcg[users].sum(axis=0) / len(groups)
                expected += float(experts.weights @ shares)
                experts.update(1 - shares)
                of_group = examples.of(users)
                if len(self.experts) > 1:
                    self._sharing.update(group, of_group, weights[group], weights[-1], len(users) / len(groups))
                self._reranker.learn(group, of_group, prior)
        if len(self.experts) > 1:
            self._reranker.learn(len(self.experts), examples, self._start)
        return expected, ndcg.mean(axis=0)

    @property
    def _of_groups(self) -> FloatArray:
        """(groups, features) weights that each group has learned by itself."""
        return self._reranker.weights[: len(self.experts)]

    def state(self) -> State:
        """Arrays from which a new one continues."""
        return {
            "weights": self._reranker.weights,
            "curvature": self._reranker.curvature,
            "gains": self._sharing.gains,
            "losses": np.stack([experts.losses for experts in self.experts]),
            "gaps": np.array([experts.gap for experts in self.experts]),
            "calibration": self._calibration.lines,
            "calibration_curvature": self._calibration.curvature,
        }


def situations(plain: Choosing, running: Choosing) -> State:
    """What `MixtureScorer` takes of what was learned from users of each group, and of what from running sessions.

    The latter holds for users of every group; before there has been one, they are served as the others. It may have
    more features and rankings, at the end: for the others the features weigh nothing, and the rankings are never drawn.
    """
    both = [one.state() for one in (plain, running)]
    chances = [np.stack([experts.weights for experts in one.experts]) for one in (plain, running)]
    more = len(running.rankings) - len(plain.rankings)
    wider = [(0, 0), (0, running.weights.shape[1] - plain.weights.shape[1])]
    served = {
        "weights": (np.pad(plain.weights, wider), running.weights),
        "chances": (np.pad(chances[0], [(0, 0), (0, more)]), chances[1]),
        "calibration": (np.pad(both[0]["calibration"], [(0, 0), (0, more), (0, 0)]), both[1]["calibration"]),
    }
    return {
        name: np.concatenate([own, np.repeat(other, len(GROUPS), axis=0) if running.taught else own])
        for name, (own, other) in served.items()
    }

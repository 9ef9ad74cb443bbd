"""How a registered version scores and ranks.

This folder travels inside the artifact, so it imports numpy and itself only, by relative names. What is served is what
is measured: learners that are written in numpy score with these functions too. Each scorer is made from the arrays that
its learner's `served` returns, as the scorer describes them.
"""

from .ids import unpack_ids
from .ranker import Ranker, Rankings
from .served import Served
from .version import VersionScorer

__all__ = ["Ranker", "Rankings", "Served", "VersionScorer", "unpack_ids"]

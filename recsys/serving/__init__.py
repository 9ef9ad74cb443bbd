"""How a registered version scores and ranks.

This folder travels inside the artifact, so it imports numpy and itself only, by relative names. Learners that are
written in numpy score with these classes too, so what is served is what was evaluated. Each scorer is made from the
arrays that its learner's `served` returns, and declares their axes (see `axes`).
"""

from .ids import unpack_ids
from .ranker import Ranker, Rankings
from .served import Served
from .version import VersionScorer

__all__ = ["Ranker", "Rankings", "Served", "VersionScorer", "unpack_ids"]

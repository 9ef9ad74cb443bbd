"""How a registered version scores and ranks.

This folder travels inside the artifact, so it imports numpy, numba, pyarrow and itself only, by relative names. The
live model is ranked with these classes too, so what is served is what was evaluated. Each scorer is made from the
arrays that its learner's `served` returns, and declares their axes (see `axes`).
"""

from .answers import Answers
from .arrays import Lists
from .inputs import RefusedError
from .mapped import mapped
from .ranker import Ranker, Rankings, Wishes
from .ranking import Ranked
from .served import Served
from .stored import restored
from .version import FallbackScorer, VersionScorer

__all__ = [
    "Answers",
    "FallbackScorer",
    "Lists",
    "Ranked",
    "Ranker",
    "Rankings",
    "RefusedError",
    "Served",
    "VersionScorer",
    "Wishes",
    "mapped",
    "restored",
]

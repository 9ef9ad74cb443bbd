"""The one sample of users that a batch is measured on: its evaluation, the re-ranker's examples and the surprise."""

import numpy as np
import numpy.typing as npt

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.common.arrays import FloatArray, IntArray
from recsys.model.common.randomness import Purpose, generator


def of_sampled_users(users: IntArray, weights: FloatArray, settings: Settings, step: StepId) -> npt.NDArray[np.bool_]:
    """Which rows of a batch are those of its sampled users.

    It depends on the batch alone, so it is the same before the batch has entered the model and afterward.

    Args:
        users: (n,) any code of each row's user; codes only tell users apart.
        weights: (n,) users without a positive one are not sampled.
        settings: `evaluation.users_per_batch` and `seed` are used.
        step: Generation and number of the batch.

    Returns:
        (n,) mask of all rows of these users.
    """
    found, first = np.unique(users[weights > 0], return_index=True)
    candidates = found[np.argsort(first)]
    drawing = generator(settings.seed, step, Purpose.SAMPLED_USERS)
    count = min(settings.evaluation.users_per_batch, len(candidates))
    return np.isin(users, candidates[drawing.choice(len(candidates), count, replace=False)])

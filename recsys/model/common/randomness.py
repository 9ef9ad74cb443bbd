"""One way to random numbers: a generator for each step and purpose, so that a replayed batch draws the same."""

from enum import Enum

import numpy as np

from recsys.contracts import StepId

# Seeds must not be negative, and a rebuild without a checkpoint has batch id -1.
_FIRST_BATCH = 1


class Purpose(Enum):
    """What random numbers are drawn for; its numbers follow seed, generation and batch in the generator's seed.

    They never change and never repeat: what a model learned is a function of them.
    """

    ALS_NEW_USERS = (0, 0)
    ALS_NEW_ITEMS = (1, 0)
    ALS_REFIT_USERS = (0, 1)
    ALS_REFIT_ITEMS = (1, 1)
    ALS_LONG_USERS = (0, 2)
    ALS_LONG_ITEMS = (1, 2)
    ALS_STALENESS_OF_USERS = (0, 3)
    ALS_STALENESS_OF_ITEMS = (1, 3)
    SAMPLED_USERS = (2,)
    ORDERED_USERS = (3,)
    EVALUATED_GROUPS = (5,)
    SURPRISE = (9,)
    ADAPTER = (11,)
    RUNNING_SESSIONS = (12,)
    NCF_NEW_ROWS = (100,)
    NCF_UPDATE = (101,)
    NCF_REFIT = (102,)
    NCF_HELD_OUT = (103,)
    SEQUENCE_START = (110,)
    SEQUENCE_NEW_ITEMS = (111,)
    SEQUENCE_UPDATE = (112,)
    SEQUENCE_REFIT = (113,)


def generator(seed: int, step: StepId | None, purpose: Purpose, *place: int) -> np.random.Generator:
    """A generator of its own for what is drawn at one step for one purpose.

    Args:
        seed: The setting `seed`.
        step: The step; None before the first one.
        purpose: What is drawn.
        place: More numbers, where one step draws several times for the same purpose.
    """
    if step is None:
        return np.random.default_rng([seed, *purpose.value, *place])
    # Users are sampled of batches only, so they need no offset.
    offset = 0 if purpose is Purpose.SAMPLED_USERS else _FIRST_BATCH
    return np.random.default_rng([seed, step.generation, step.batch_id + offset, *purpose.value, *place])

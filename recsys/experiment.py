"""Who is in which arm of an experiment: a hash of experiment and user, the same in every job and on every machine."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from recsys.config.experiment import Experiment

# Of the SHA-256 of name and user: so many hexadecimal digits are exact in double precision.
DIGITS = 13


def ends(experiment: Experiment) -> list[float]:
    """(arms,) where the part of each arm ends between 0 and 1; the last one takes what rounding leaves."""
    found = np.cumsum([arm.share for arm in experiment.arms.values()]).tolist()
    last = max((place for place, arm in enumerate(experiment.arms.values()) if arm.share), default=0)
    return [*found[:last], *[1.0] * (len(found) - last)]


def arms_of(user_ids: Iterable[str], experiment: Experiment) -> npt.NDArray[np.int64]:
    """(n,) place of each user's arm among those of the experiment."""
    drawn = [_drawn(user, experiment.name) for user in user_ids]
    found: npt.NDArray[np.int64] = np.searchsorted(ends(experiment), drawn, side="right").astype(np.int64)
    return found


def _drawn(user_id: str, name: str) -> float:
    """A number from 0 to below 1."""
    digest = hashlib.sha256(f"{name}\n{user_id}".encode()).hexdigest()
    return int(digest[:DIGITS], 16) / 16.0**DIGITS

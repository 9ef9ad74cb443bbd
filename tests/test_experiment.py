"""Who is in which arm: by chance, as the shares say, and the same in every job."""

import numpy as np

from recsys.config.experiment import Experiment
from recsys.experiment import arms_of

USERS = [f"u{number}" for number in range(20_000)]
ARMS = {"control": {"share": 0.5}, "shadow": {"share": 0}, "new": {"share": 0.3}, "other": {"share": 0.2}}


def test_shares_are_kept_and_names_assign_anew() -> None:
    one, other = (Experiment.model_validate({"name": name, "arms": ARMS}) for name in ("one", "other"))
    arms = arms_of(USERS, one)
    counts = np.bincount(arms, minlength=4)
    assert counts[1] == 0, "nobody gets a shadow"
    np.testing.assert_allclose(counts / len(USERS), [0.5, 0, 0.3, 0.2], atol=0.012)
    again = arms_of(USERS, other)
    assert abs(float(np.mean(arms == again)) - (0.5**2 + 0.3**2 + 0.2**2)) < 0.015, "independent of one another"
    assert (arms_of(reversed(USERS), one)[::-1] == arms).all(), "a function of the user alone"


def test_everybody_is_in_an_arm_whatever_rounding_leaves() -> None:
    thirds = Experiment.model_validate({"arms": {name: {"share": 0.3333334} for name in "abc"} | {"d": {"share": 0}}})
    assert set(arms_of(USERS, thirds).tolist()) == {0, 1, 2}

"""The sample of a batch: the same by any code of its users, and never one who has done nothing."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.common.sampling import of_sampled_users


@given(
    rows=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40),
    count=st.integers(1, 6),
    codes=st.permutations(range(10)),
)
def test_codes_only_tell_users_apart(rows: list[tuple[int, bool]], count: int, codes: list[int]) -> None:
    users = np.array([user for user, _ in rows], dtype=np.int64)
    weights = np.array([float(liked) for _, liked in rows])
    settings = Settings.model_validate({"source": {"path": "x"}, "evaluation": {"users_per_batch": count}})
    mask = of_sampled_users(users, weights, settings, StepId(0, 3))
    renamed = of_sampled_users(np.array(codes, dtype=np.int64)[users], weights, settings, StepId(0, 3))
    assert (mask == renamed).all()
    sampled, candidates = set(users[mask].tolist()), set(users[weights > 0].tolist())
    assert len(sampled) == min(count, len(candidates))
    assert sampled <= candidates
    assert set(users[~mask].tolist()).isdisjoint(sampled), "all rows of a user, or none"


def test_every_step_has_its_own_sample() -> None:
    users, settings = np.arange(1_000), Settings.model_validate({"source": {"path": "x"}})
    masks = [of_sampled_users(users, np.ones(len(users)), settings, StepId(0, batch)) for batch in (0, 1, 0)]
    assert (masks[0] == masks[2]).all()
    assert (masks[0] != masks[1]).any()

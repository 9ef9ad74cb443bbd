"""What the prequential bench compares: what is frozen stays, and a peer knows only what was learned before."""

import numpy as np
import pytest
import torch

from bench.harness import prequential_methods as methods
from bench.harness import streams
from recsys.contracts import StepId
from recsys.model.evaluation.rivals import DenseRival
from recsys.model.frozen import FrozenModel
from recsys.serving import Lists
from tests.bench.helpers import batch_of, generated, small_settings
from tests.model.helpers import scores_of


class Constant(DenseRival):
    """Gives every item the number of the step at which it was made."""

    def __init__(self, step: StepId) -> None:
        self.number = step.batch_id

    def scores(self, user_ids: list[str], items: list[str]) -> torch.Tensor:
        return torch.full((len(user_ids), len(items)), float(self.number))


@pytest.mark.parametrize(
    ("every", "made"), [(None, [2, 2, 2, 2, 2, 2]), (1, [2, 3, 4, 5, 6, 7]), (3, [2, 2, 2, 5, 5, 5])]
)
def test_what_is_renewed_stays_as_it_is_in_between(every: int | None, made: list[int]) -> None:
    method = methods.Renewed(Constant, 2, every)
    done = [method.learn(batch_of(("u", "i", 1.0)), StepId(0, number)) for number in range(2)]
    assert done == [False, False]
    numbers = []
    for number in range(2, 8):
        assert method.learn(batch_of(("u", "i", 1.0)), StepId(0, number)) == (made[number - 2] == number)
        numbers.append(int(method.ranked(["u"], ["i"], 1, Lists.empty(1), Lists.empty(1)).scores[0, 0]))
    assert numbers == made


@pytest.mark.parametrize("kind", [methods.MIXTURE, "als"])
def test_a_frozen_model_does_not_learn(kind: str) -> None:
    live = methods.Live(small_settings(), kind)
    parts = list(streams.batches(generated(600), 100))
    for number, batch in enumerate(parts[:4]):
        live.learn(batch, StepId(0, number))
    frozen = FrozenModel(live.model.served())
    users = [f"u{number}" for number in range(1, 30)]
    codes = live.model.users.lookup(users)
    before, then = scores_of(frozen, users, live.model.items), live.model.score(codes).clone()
    assert (before.std(axis=1) > 0).all()
    known = before.shape[1]
    for number, batch in enumerate([*parts[4:], batch_of(("u1", "new", 1.0))], start=4):
        live.learn(batch, StepId(0, number))
    after = scores_of(frozen, users, live.model.items)
    np.testing.assert_array_equal(after[:, :known], before)
    assert np.isneginf(after[:, known:]).all()
    assert after.shape[1] == len(live.model.items) > known
    assert not torch.allclose(live.model.score(codes)[:, :known], then)


def test_implicit_learns_the_history_and_knows_nothing_later() -> None:
    pytest.importorskip("implicit")
    model = methods.Live(small_settings(model={"factors": 8}), "als").model
    had = [
        (f"u{user}", f"i{item}", 1.0)
        for user in range(40)
        for item in range(40)
        if user % 4 == item % 4 and item // 4 != user // 4
    ]
    disliked = [(f"u{user}", f"i{40 + user % 4}", -1.0 if user < 20 else 1.0) for user in range(40)]
    model.absorb(batch_of(*had, *disliked), StepId(0, 0))
    peer = methods.Implicit(model)
    model.absorb(batch_of(("later", "new", 1.0)), StepId(0, 1))
    users = [f"u{user}" for user in range(40)]
    scores = peer.scores([*users, "later", "unknown"], model.items)
    codes = model.items.lookup([f"i{item}" for item in range(44)])
    assert torch.isneginf(scores[:, model.items.lookup(["new"])]).all()
    # The popularity when it learned: nine users of each group of ten, and those who liked the last items.
    for row in scores[40:, codes]:
        assert row.tolist() == pytest.approx([9.0] * 40 + [5.0] * 4, rel=1e-4)
    for user, row in enumerate(scores[:40, codes]):
        own = row[:40].clone()
        own[[item for item in range(40) if user % 4 == item % 4 and item // 4 != user // 4]] = -torch.inf
        assert int(own.argmax()) == 4 * (user // 4) + user % 4
    fans, others = (scores[half, codes[[40 + user % 4 for user in half]]].mean() for half in (range(20, 40), range(20)))
    assert fans > others + 0.2

"""Training and the moving average against versions written pair by pair."""

from typing import Any

import numpy as np
import pytest
import torch

from recsys.config.model import NeuralSettings
from recsys.model.neural.network import TABLES, WarmStart
from recsys.model.neural.training import LabeledPairs, MovingAverage, Pace, Trainer
from tests.model.neural.test_network import dropping, generators, network_of, warm_of

CPU = torch.device("cpu")


def trainer_of(users: int = 6, items: int = 9, **neural: Any) -> Trainer:
    trainer = Trainer(NeuralSettings.model_validate({"dropout": 0.0, **neural}), 4, CPU, -1.0, np.random.default_rng(0))
    trainer.grow(users, items, generators())
    trainer.average.grow(trainer.live)
    return trainer


def examples_of(seed: int = 0, count: int = 8, users: int = 6, items: int = 9) -> LabeledPairs:
    generator = np.random.default_rng(seed)
    targets = (generator.random((count, 3)) < 0.4).astype(np.float32)
    return LabeledPairs(
        torch.from_numpy(generator.integers(users, size=count)),
        torch.from_numpy(generator.integers(items, size=(count, 3))),
        torch.from_numpy(targets),
        torch.from_numpy(generator.random((count, 3), dtype=np.float32)),
    )


def test_the_average_follows_touched_rows_and_forgets_its_start() -> None:
    live, decay = network_of(), 0.8
    average = MovingAverage(network_of(), decay)
    average.grow(live)
    slow = {name: live.table(name).detach().clone() for name in ("user_mlp", "item_gmf")}
    layer = average.network.output.bias.clone()
    touches = {"user_mlp": np.zeros(5), "item_gmf": np.zeros(7)}
    for step in range(30):
        generator = np.random.default_rng(step)
        users, items = generator.integers(4, size=3), generator.integers(7, size=(3, 2))
        for parameter in live.parameters():
            parameter.data += torch.from_numpy(generator.standard_normal(parameter.shape, dtype=np.float32))
        average.follow(live, torch.from_numpy(users), torch.from_numpy(items), layers=True)
        for name, rows in (("user_mlp", users), ("item_gmf", items)):
            for row in set(rows.ravel().tolist()):
                move = max(1 - decay, 9 / (10 + touches[name][row]))
                slow[name][row] += move * (live.table(name)[row].detach() - slow[name][row])
                touches[name][row] += 1
        layer += max(1 - decay, 9 / (10 + step)) * (live.output.bias.detach() - layer)
    for name, expected in slow.items():
        torch.testing.assert_close(average.network.table(name).data, expected)
    torch.testing.assert_close(average.network.output.bias.data, layer)
    # User 4 was never touched.
    assert average.touched_users().tolist() == [True] * 4 + [False]


def slow_gradients(trainer: Trainer, parts: list[LabeledPairs], warm: WarmStart | None) -> dict[str, torch.Tensor]:
    """Gradients of the loss, written out over all examples, by tables that are dense."""
    live = trainer.live
    parameters = {name: parameter.detach().clone().requires_grad_() for name, parameter in live.named_parameters()}
    total = torch.zeros(())
    for examples in parts:
        for row, user in enumerate(examples.users.tolist()):
            total = total + 0.1 * sum(parameters[name][user].square().sum() for name in ("user_gmf", "user_mlp"))
            for column, item in enumerate(examples.items[row].tolist()):
                start = (0, 0) if warm is None else (warm.user_factors[user], warm.item_factors[item])
                scale = 0 if warm is None else warm.scale**0.5
                product = (parameters["user_gmf"][user] + scale * start[0]) * (
                    parameters["item_gmf"][item] + scale * start[1]
                )
                outputs = torch.cat([parameters["user_mlp"][user], parameters["item_mlp"][item]])
                for layer in range(3):
                    weights, bias = parameters[f"hidden.{layer}.weight"], parameters[f"hidden.{layer}.bias"]
                    outputs = torch.relu(weights @ outputs + bias)
                logit = parameters["output.weight"][0] @ torch.cat([product, outputs]) + parameters["output.bias"][0]
                target, weight = examples.targets[row, column], examples.weights[row, column]
                chance = torch.sigmoid(logit)
                total = total - weight * (target * chance.log() + (1 - target) * (1 - chance).log())
                total = total + 0.1 * sum(parameters[name][item].square().sum() for name in ("item_gmf", "item_mlp"))
    gradients = torch.autograd.grad(total, list(parameters.values()))
    return dict(zip(parameters, gradients, strict=True))


@pytest.mark.parametrize("warm", [None, warm_of(6, 9)])
def test_a_step_follows_the_gradient_of_the_loss(monkeypatch: pytest.MonkeyPatch, warm: WarmStart | None) -> None:
    trainer = trainer_of(regularization=0.1, accumulate=2)
    parts = [examples_of(0, count=4), examples_of(1, count=5)]
    expected = slow_gradients(trainer, parts, warm)
    seen = {}

    def note(pending: list[LabeledPairs], pace: Pace) -> None:
        seen.update({name: parameter.grad.clone() for name, parameter in trainer.live.named_parameters()})

    monkeypatch.setattr(trainer, "_step", note)
    trainer.learn(parts, warm, Pace(), dropping())
    for name, gradient in seen.items():
        assert gradient.is_sparse == (name in TABLES)
        torch.testing.assert_close(gradient.to_dense() if name in TABLES else gradient, expected[name])


def weights_of(trainer: Trainer) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in trainer.live.arrays().items()}


def moved(trainer: Trainer, pace: Pace) -> set[str]:
    before = weights_of(trainer)
    trainer.learn([examples_of(seed) for seed in range(3)], None, pace, dropping())
    return {name.split(".")[0] for name, array in weights_of(trainer).items() if (array != before[name]).any()}


@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "ftrl"])
def test_what_is_frozen_and_what_is_not_due_stays(optimizer: str) -> None:
    trainer = trainer_of(optimizer=optimizer)
    assert moved(trainer, Pace()) == {*TABLES, "hidden", "output"}
    assert moved(trainer, Pace(layers=False)) == set(TABLES)
    assert moved(trainer, Pace(frozen=("gmf", "hidden"))) == {"user_mlp", "item_mlp", "output"}
    assert moved(trainer, Pace(frozen=("mlp", "output"))) == {"user_gmf", "item_gmf", "hidden"}


def test_a_higher_rate_takes_longer_steps_while_it_lasts() -> None:
    lengths = []
    for rate in (1.0, 3.0):
        trainer = trainer_of(optimizer="adam", warmup_steps=1)
        before = weights_of(trainer)
        trainer.learn([examples_of()], None, Pace(rate=rate), dropping())
        lengths.append(np.abs(weights_of(trainer)["user_gmf"] - before["user_gmf"]).max())
        assert trainer._moved["tables"][1].param_groups[0]["lr"] == pytest.approx(0.002, rel=1e-3)
    assert lengths[1] == pytest.approx(3 * lengths[0], rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "ftrl"])
def test_learning_lowers_the_loss_and_goes_on_after_a_load(optimizer: str) -> None:
    trainer = trainer_of(optimizer=optimizer, learning_rate=0.05, warmup_steps=1, regularization=0.0, accumulate=2)
    examples = [examples_of(seed) for seed in range(3)]
    losses = [trainer.learn(examples, None, Pace(), dropping(number)) for number in range(20)]
    assert losses[-1] < 0.9 * losses[0]
    again = trainer_of(optimizer=optimizer, learning_rate=0.05, warmup_steps=1, regularization=0.0, accumulate=2)
    again.load({name: array.copy() for name, array in trainer.state().items()})
    for one in (trainer, again):
        one.grow(20, 9, generators(5))
        one.average.grow(one.live)
        one.learn([examples_of(9, users=20)], None, Pace(), dropping())
    state = again.state()
    for name, array in trainer.state().items():
        assert array.tobytes() == state[name].tobytes(), name

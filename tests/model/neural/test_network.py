"""The network against a version written pair by pair."""

import numpy as np
import pytest
import torch

from recsys.model.neural.network import TABLES, NeuMf, WarmStart


def generators(seed: int = 0) -> dict[str, np.random.Generator]:
    return {name: np.random.default_rng([seed, place]) for place, name in enumerate(TABLES)}


def network_of(users: int = 5, items: int = 7, dropout: float = 0.0) -> NeuMf:
    network = NeuMf(factors=4, mlp_factors=3, layers=[6, 5], dropout=dropout)
    network.start(-1.5, np.random.default_rng(0))
    network.grow(users, items, generators())
    for name in TABLES:
        network.table(name).data.mul_(50)
    return network


def warm_of(users: int = 5, items: int = 7) -> WarmStart:
    generator = torch.Generator().manual_seed(3)
    return WarmStart(torch.rand(users, 4, generator=generator), torch.rand(items, 4, generator=generator), 2.5)


def dropping(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_logit(network: NeuMf, user: int, item: int, warm: WarmStart | None) -> float:
    """One pair, as the paper draws it."""
    weights = {name: parameter.detach().double().numpy() for name, parameter in network.named_parameters()}
    user_gmf, item_gmf = weights["user_gmf"][user], weights["item_gmf"][item]
    if warm is not None:
        user_gmf = user_gmf + 2.5**0.5 * warm.user_factors[user].numpy()
        item_gmf = item_gmf + 2.5**0.5 * warm.item_factors[item].numpy()
    outputs = np.concatenate([weights["user_mlp"][user], weights["item_mlp"][item]])
    for layer in range(2):
        outputs = np.maximum(weights[f"hidden.{layer}.weight"] @ outputs + weights[f"hidden.{layer}.bias"], 0)
    joined = np.concatenate([user_gmf * item_gmf, outputs])
    return float(weights["output.weight"][0] @ joined + weights["output.bias"][0])


@pytest.mark.parametrize("warm", [None, warm_of()])
def test_the_network_equals_its_definition(warm: WarmStart | None) -> None:
    network = network_of()
    users, items = torch.tensor([4, 0, 0]), torch.tensor([[6, 1], [0, 3], [2, 2]])
    logits, _ = network(users, items, warm)
    expected = [
        [slow_logit(network, user, item, warm) for item in row]
        for user, row in zip(users.tolist(), items.tolist(), strict=True)
    ]
    np.testing.assert_allclose(logits.detach().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_rows_that_are_added_leave_the_others_as_they_are() -> None:
    network = network_of()
    before = {name: array.copy() for name, array in network.arrays().items()}
    network.grow(12, 7, generators(1))
    after = network.arrays()
    assert (len(after["user_gmf"]), len(after["item_mlp"])) == (12, 7)
    for name, array in before.items():
        assert (after[name][: len(array)] == array).all()
    new = after["user_mlp"][5:]
    assert 0 < new.std() < 0.03
    assert len(np.unique(new)) == new.size


def test_dropped_outputs_are_made_up_for_by_the_others() -> None:
    network = network_of(dropout=0.4)
    outputs = torch.ones(200, 300)
    dropped = network._activated(outputs, dropping())
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert float(dropped.mean()) == pytest.approx(1, abs=0.01)
    assert torch.equal(dropped, network._activated(outputs, dropping()))
    assert torch.equal(network._activated(outputs, None), outputs)


def test_near_factors_are_exact_where_the_layers_see_all_users_alike() -> None:
    network = network_of()
    network.table("user_mlp").data[:3] = network.table("user_mlp").data[0].clone()
    users, items = network.near_factors(torch.tensor([True, True, True, False, False]))
    logits, _ = network(torch.arange(3), torch.arange(7).expand(3, -1))
    torch.testing.assert_close(users[:3] @ items.T + network.output.bias, logits)
    assert not users[3:].any()

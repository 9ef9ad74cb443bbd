"""Factor tables: growth, replacement and the Gram matrix that follows."""

import numpy as np
import pytest
import torch

from recsys.model.als.factors import FactorTable


def exact(table: FactorTable) -> np.ndarray:
    wide = table.values.double().cpu().numpy()
    return wide.T @ wide


def random_rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)


@pytest.mark.parametrize("changed", [3, 80])
def test_the_gram_matrix_follows_every_change(changed: int, torch_device: str) -> None:
    table = FactorTable(random_rows(100, 0), torch.device(torch_device))
    generator = np.random.default_rng(1)
    for step in range(120):
        rows = generator.choice(len(table), changed, replace=False)
        table.replace(rows, torch.from_numpy(random_rows(changed, step + 2)).to(torch_device))
        table.append(random_rows(step % 3, step + 500))
        np.testing.assert_allclose(table.gram.numpy(), exact(table), rtol=1e-9, atol=1e-9)
    assert table.corrections < 50


def test_appended_rows_keep_what_was_there(torch_device: str) -> None:
    table = FactorTable(random_rows(2, 0), torch.device(torch_device))
    for step in range(1, 20):
        table.append(random_rows(step, step))
    expected = np.concatenate([random_rows(2, 0), *(random_rows(step, step) for step in range(1, 20))])
    assert (table.values.cpu().numpy() == expected).all()


def test_a_table_from_its_state_keeps_the_gram_matrix_to_the_last_bit() -> None:
    table = FactorTable(random_rows(50, 0), torch.device("cpu"))
    table.replace(np.array([1, 2]), torch.from_numpy(random_rows(2, 1)))
    copy = FactorTable.from_state(table.values.numpy(), table.gram.numpy(), table.corrections, torch.device("cpu"))
    for each in (table, copy):
        each.replace(np.array([4]), torch.from_numpy(random_rows(1, 2)))
    assert copy.gram.numpy().tobytes() == table.gram.numpy().tobytes()
    assert copy.corrections == table.corrections == 2

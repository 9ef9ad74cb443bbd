"""Optimizers for the layers (dense gradients) and for tables that grow (sparse gradients of the touched rows)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recsys.config.model import NeuralSettings
from recsys.model.learner import State
from recsys.serving.arrays import part


class FtrlProximal(torch.optim.Optimizer):
    """FTRL-Proximal (follow the regularized leader) with a learning rate per coordinate.

    A coordinate w with past gradients g has the state n = sum of g^2 and z. Its learning rate is
    lr / (beta + sqrt(n)), and it is exactly 0 while |z| <= l1.

    The original algorithm starts at w = 0. To allow any start, and changes of w from outside, each step first computes
    the z that belongs to the current w; where w is 0, the stored z is used. With a constant rate and no other changes
    of w this is the original algorithm. With a varying rate it is the same algorithm with arbitrary rates per step.

    Args:
        params: The parameters. With sparse gradients only the touched rows are read and written.
        lr: Alpha in the paper.
        beta: Added to the square root of n; a larger one makes the first rates more equal.
        l1, l2: Penalties.

    Source: McMahan et al., "Ad click prediction: a view from the trenches" (KDD 2013), algorithm 1.
    """

    def __init__(
        self, params: Iterable[torch.Tensor], lr: float, beta: float = 1.0, l1: float = 0.0, l2: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "beta": beta, "l1": l1, "l2": l2})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            rates = (float(group["lr"]), group["beta"], group["l1"], group["l2"])
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["z"], state["n"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                if not parameter.grad.is_sparse:
                    moved = _ftrl(parameter, parameter.grad, state["z"], state["n"], *rates)
                    for tensor, values in zip((parameter, state["z"], state["n"]), moved, strict=True):
                        tensor.copy_(values)
                    continue
                gradient = parameter.grad.coalesce()
                rows = gradient.indices()[0]
                moved = _ftrl(parameter[rows], gradient.values(), state["z"][rows], state["n"][rows], *rates)
                for tensor, values in zip((parameter, state["z"], state["n"]), moved, strict=True):
                    tensor[rows] = values


def _ftrl(
    weights: torch.Tensor,
    gradient: torch.Tensor,
    z: torch.Tensor,
    n: torch.Tensor,
    rate: float,
    beta: float,
    l1: float,
    l2: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The next weights, z and n of any shape."""
    here = -weights * ((beta + n.sqrt()) / rate + l2) - weights.sign() * l1
    z = torch.where(weights != 0, here, z)
    sigma = ((n + gradient.square()).sqrt() - n.sqrt()) / rate
    z = z + gradient - sigma * weights
    n = n + gradient.square()
    moved = -(z - z.sign() * l1) / ((beta + n.sqrt()) / rate + l2)
    return torch.where(z.abs() > l1, moved, torch.zeros_like(moved)), z, n


def make_optimizer(
    parameters: Sequence[torch.nn.Parameter], settings: NeuralSettings, sparse: bool
) -> torch.optim.Optimizer:
    """The optimizer that the settings name.

    Args:
        parameters: The parameters to update.
        settings: `optimizer`, `learning_rate` and `l1` are used.
        sparse: Whether the gradients are sparse.
    """
    rate = settings.learning_rate
    if settings.optimizer == "ftrl":
        return FtrlProximal(parameters, rate, l1=settings.l1)
    if settings.optimizer == "adagrad":
        return torch.optim.Adagrad(parameters, rate)
    if sparse:
        return torch.optim.SparseAdam(list(parameters), rate)
    return torch.optim.Adam(parameters, rate)


def make_schedule(optimizer: torch.optim.Optimizer, settings: NeuralSettings) -> torch.optim.lr_scheduler.LambdaLR:
    """Warm-up and decay: step t, from 0, is made at min((t + 1) / warmup_steps, 1) / sqrt(1 + t / decay_steps)."""

    def share(step: int) -> float:
        risen = min((step + 1) / settings.warmup_steps, 1.0)
        return float(risen / (1 + step / settings.decay_steps) ** 0.5)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def grow_rows(
    parameter: torch.nn.Parameter, rows: int, optimizer: torch.optim.Optimizer | None = None, spare: bool = True
) -> None:
    """Give a table (rows, width) room for at least `rows` rows, in place; new rows and their optimizer state are 0.

    With spare room, the room at least doubles, so that n rows added one after the other cost O(n).
    """
    if rows <= len(parameter):
        return
    room = max(rows, 2 * len(parameter)) if spare else rows
    held = {} if optimizer is None else optimizer.state.get(parameter, {})
    for name, tensor in held.items():
        if isinstance(tensor, torch.Tensor) and tensor.shape == parameter.shape:
            held[name] = _padded(tensor, room)
    parameter.data = _padded(parameter.data, room)
    parameter.grad = None


def keep_rows(
    parameter: torch.nn.Parameter, rows: torch.Tensor, optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Have only rows (n,) of a table (rows, width), in place and without spare room; optimizer state follows."""
    held = {} if optimizer is None else optimizer.state.get(parameter, {})
    for name, tensor in held.items():
        if isinstance(tensor, torch.Tensor) and tensor.shape == parameter.shape:
            held[name] = tensor[rows]
    parameter.data = parameter.data[rows]
    parameter.grad = None


def _padded(table: torch.Tensor, rows: int) -> torch.Tensor:
    grown = table.new_zeros(rows, table.shape[1])
    grown[: len(table)] = table
    return grown


def optimizer_state(
    optimizer: torch.optim.Optimizer, named: Mapping[str, torch.nn.Parameter], rows: Callable[[str], int]
) -> State:
    """Arrays of an optimizer, by `PARAMETER.NAME`.

    Args:
        optimizer: The optimizer.
        named: Its parameters by name.
        rows: Number of rows of a parameter that are in use.
    """
    state: State = {}
    for name, parameter in named.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensor = torch.as_tensor(value).detach().cpu()
            state[f"{name}.{key}"] = (
                tensor[: rows(name)].numpy() if tensor.shape == parameter.shape else tensor.numpy().reshape(1)
            )
    return state


def restore_optimizer(
    optimizer: torch.optim.Optimizer, named: Mapping[str, torch.nn.Parameter], state: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Undo `optimizer_state`, for parameters that have no more rows than were in use."""
    for name, parameter in named.items():
        for key, value in part(state, name).items():
            held = torch.from_numpy(np.array(value))
            if key == "step":
                # SparseAdam counts its steps in an int, the others in a tensor on the CPU.
                counts = isinstance(optimizer, torch.optim.SparseAdam)
                optimizer.state[parameter][key] = int(held) if counts else held.reshape(())
            else:
                optimizer.state[parameter][key] = held.to(parameter.device)


def resume_schedule(schedule: torch.optim.lr_scheduler.LambdaLR, steps: int) -> None:
    """Continue a schedule after a number of steps."""
    schedule.load_state_dict({**schedule.state_dict(), "last_epoch": steps})
    for group, base, share in zip(schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = base * share(steps)

"""Where the model's arrays live."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from recsys.errors import ConfigError


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread on the CPU; also a decorator.

    With more, the order in which it adds depends on their number, and so do the last bits of a sum. The long work is in
    compiled loops of our own, which use all threads and add in one order.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def resolve_device(name: str) -> torch.device:
    """Turn the `device` setting into a device.

    Args:
        name: `cpu`, `cuda`, or `auto` for CUDA when there is one.

    Raises:
        ConfigError: CUDA is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("setting 'device' is 'cuda', but torch finds no CUDA device: use 'auto' or 'cpu'")
    return torch.device(name)

"""Where the model's arrays live."""

import torch

from recsys.errors import ConfigError


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

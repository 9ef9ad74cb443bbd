"""The model's state on disk."""

import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.errors import InputError
from recsys.model.recommender import OnlineModel

FORMAT = "4"
_SUFFIX = ".safetensors"


def path_for(folder: Path, step: StepId) -> Path:
    """Where the snapshot of a step lies."""
    return folder / f"generation-{step.generation}" / f"batch-{step.batch_id}{_SUFFIX}"


def latest(folder: Path, not_after: StepId) -> Path | None:
    """The newest snapshot of the generation of `not_after` that is not newer than that step; None if there is none."""
    steps = [batch_id for batch_id in _batches(folder, not_after.generation) if batch_id <= not_after.batch_id]
    return path_for(folder, StepId(not_after.generation, max(steps))) if steps else None


def prune(folder: Path, generation: int, keep: int) -> None:
    """Remove all snapshots of a generation but the newest `keep`."""
    for batch_id in sorted(_batches(folder, generation), reverse=True)[keep:]:
        path_for(folder, StepId(generation, batch_id)).unlink(missing_ok=True)


def save(path: Path, model: OnlineModel) -> None:
    """Write the whole state. At any instant there is either the old file, the new one, or none.

    Raises:
        ValueError: the model has learned nothing yet.
        OSError: the file cannot be written.
    """
    if model.step is None:
        raise ValueError("a model without a step has no state to save")
    metadata = {
        "format": FORMAT,
        "generation": str(model.step.generation),
        "batch_id": str(model.step.batch_id),
        "fingerprint": model.settings.fingerprint(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file({name: np.ascontiguousarray(array) for name, array in model.state().items()}, temporary, metadata)
        _sync(temporary)
        os.replace(temporary, path)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def load(path: Path, settings: Settings) -> OnlineModel:
    """Read a snapshot back.

    Raises:
        InputError: the file is missing, damaged, of another format, or was made with settings under which the same
            events would have given another model.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the snapshot {path}: {error}") from error
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{path} is a snapshot of format {metadata.get('format')}, and this release reads format {FORMAT} only: "
            "delete it, and the model is learned again from its events"
        )
    if metadata["fingerprint"] != settings.fingerprint():
        raise InputError(
            f"{path} was made with other settings (weights, decay, model, concept_drift or seed; for a mixture also "
            "recommend.k, recommend.exclude_seen or evaluation.users_per_batch): restore them, or run the rebuild job"
        )
    return OnlineModel.from_state(settings, state, StepId(int(metadata["generation"]), int(metadata["batch_id"])))


def _batches(folder: Path, generation: int) -> list[int]:
    names = [path.name for path in (folder / f"generation-{generation}").glob(f"batch-*{_SUFFIX}")]
    numbers = [name.removeprefix("batch-").removesuffix(_SUFFIX) for name in names]
    return [int(number) for number in numbers if number.removeprefix("-").isdigit()]


def _sync(path: Path) -> None:
    """Have the operating system write a file or folder out."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The model's state on disk, and what of it is served."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.errors import InputError
from recsys.model.als import IncrementalAls
from recsys.model.arrays import offsets_of
from recsys.model.vocab import pack_ids

FORMAT = "2"
_SUFFIX = ".safetensors"


def path_for(folder: Path, step: StepId) -> Path:
    """Where the snapshot of a step lies."""
    return folder / f"epoch-{step.epoch}" / f"batch-{step.batch_id}{_SUFFIX}"


def latest(folder: Path, not_after: StepId) -> Path | None:
    """The newest snapshot of the epoch of `not_after` that is not newer than that step; None if there is none."""
    steps = [batch_id for batch_id in _batches(folder, not_after.epoch) if batch_id <= not_after.batch_id]
    return path_for(folder, StepId(not_after.epoch, max(steps))) if steps else None


def prune(folder: Path, epoch: int, keep: int) -> None:
    """Remove all snapshots of an epoch but the newest `keep`."""
    for batch_id in sorted(_batches(folder, epoch), reverse=True)[keep:]:
        path_for(folder, StepId(epoch, batch_id)).unlink(missing_ok=True)


def save(path: Path, model: IncrementalAls) -> None:
    """Write the whole state. At any instant there is either the old file, the new one, or none.

    Raises:
        ValueError: the model has learnt nothing yet.
    """
    if model.step is None:
        raise ValueError("a model without a step has no state to save")
    metadata = {
        "format": FORMAT,
        "epoch": str(model.step.epoch),
        "batch_id": str(model.step.batch_id),
        "fingerprint": model.settings.fingerprint(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file({name: np.ascontiguousarray(array) for name, array in model.state().items()}, temporary, metadata)
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def load(path: Path, settings: Settings) -> IncrementalAls:
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
        raise InputError(f"{path} is no snapshot of this version (format {metadata.get('format')}, not {FORMAT})")
    if metadata["fingerprint"] != settings.fingerprint():
        raise InputError(
            f"{path} was made with other settings (weights, decay, model or seed): restore them, or run the rebuild job"
        )
    return IncrementalAls.from_state(settings, state, StepId(int(metadata["epoch"]), int(metadata["batch_id"])))


def served_arrays(model: IncrementalAls) -> dict[str, npt.NDArray[Any]]:
    """What a registered version carries.

    Returns:
        `user_factors` (users, factors) float32, solved exactly against the items, zero for users without factors;
        `item_factors` (items, factors) float32; `user_ids_bytes`, `user_ids_offsets`, `item_ids_bytes`,
        `item_ids_offsets` as `pack_ids` makes them; `item_popularity` (items,) float32; `seen_offsets` (users + 1,)
        int64 and `seen_items` int32: the items each user had, ascending.
    """
    user_bytes, user_offsets = pack_ids(model.users.ids)
    item_bytes, item_offsets = pack_ids(model.items.ids)
    seen = model.history.user_rows(np.arange(len(model.users)))
    order = np.lexsort((seen.others, np.repeat(np.arange(len(model.users)), seen.lengths)))
    return {
        "user_factors": model.folded_in_users().cpu().numpy(),
        "item_factors": model.item_factors.cpu().numpy().copy(),
        "user_ids_bytes": user_bytes,
        "user_ids_offsets": user_offsets,
        "item_ids_bytes": item_bytes,
        "item_ids_offsets": item_offsets,
        "item_popularity": model.popularity.scores().astype(np.float32),
        "seen_offsets": offsets_of(seen.lengths),
        "seen_items": seen.others[order].astype(np.int32),
    }


def _batches(folder: Path, epoch: int) -> list[int]:
    names = [path.name for path in (folder / f"epoch-{epoch}").glob(f"batch-*{_SUFFIX}")]
    numbers = [name.removeprefix("batch-").removesuffix(_SUFFIX) for name in names]
    return [int(number) for number in numbers if number.removeprefix("-").isdigit()]


def _sync(path: Path) -> None:
    """Have the operating system write a file or folder out."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The model's state in a file."""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.errors import InputError
from recsys.model.common.device import resolve_device
from recsys.model.learner import State
from recsys.model.recommender import OnlineModel
from recsys.serving.stored import QUICK, restored, stored
from recsys.storage import Place, at_hand, earlier_generations, remove, written

FORMAT = "11"
_SUFFIX = ".safetensors"
_GENERATION = "generation-"


class UnusableSnapshotError(InputError):
    """A snapshot is damaged or of another format; the log can replace it."""


def path_for(folder: Place, step: StepId) -> Place:
    """Where the snapshot of a step lies."""
    return _generation_folder(folder, step.generation) / f"batch-{step.batch_id}{_SUFFIX}"


def factors_path_for(folder: Place, step: StepId) -> Place:
    """Where the factors lie with which a step begins a generation, if executors have solved them."""
    return _generation_folder(folder, step.generation) / f"factors{_SUFFIX}"


def steps(folder: Place, not_after: StepId) -> list[StepId]:
    """Steps of the snapshots of the generation of `not_after` that are not newer than that step, newest first."""
    batches = sorted(_batches(folder, not_after.generation), reverse=True)
    return [StepId(not_after.generation, batch_id) for batch_id in batches if batch_id <= not_after.batch_id]


def unneeded(folder: Place, generation: int, keep: int) -> list[Place]:
    """What a stream in this generation needs no more: files and folders that may be removed beside a live stream.

    These are all of its snapshots but the newest `keep`, and the folders of earlier generations.
    """
    old = sorted(_batches(folder, generation), reverse=True)[keep:]
    return [
        *(path_for(folder, StepId(generation, batch_id)) for batch_id in old),
        *earlier_generations(folder, _GENERATION, generation),
    ]


def prune(folder: Place, generation: int, keep: int) -> None:
    """Remove what a stream in this generation needs no more, and files that a crash left half written."""
    for path in unneeded(folder, generation, keep):
        remove(path)
    for orphan in _generation_folder(folder, generation).glob(".*.tmp"):
        remove(orphan)


@dataclass(frozen=True)
class Snapshot:
    """The whole state of a model after a step.

    Attributes:
        step: the step.
        state: arrays by name, those of the model itself.
        settings: with which it was learned.
    """

    step: StepId
    state: State
    settings: Settings

    @classmethod
    def of(cls, model: OnlineModel) -> "Snapshot":
        """The state of a model, which must not learn until it is saved.

        Raises:
            ValueError: the model has learned nothing yet.
        """
        if model.step is None:
            raise ValueError("a model without a step has no state to save")
        return cls(model.step, model.state(), model.settings)

    def copied(self) -> "Snapshot":
        """The same for a model that learns on meanwhile."""
        return replace(self, state={name: array.copy() for name, array in self.state.items()})

    def save_in(self, folder: Place) -> Place:
        """Save it under the name of its step, and return the file; see `save`."""
        path = path_for(folder, self.step)
        self.save(path)
        return path

    def save(self, path: Place) -> None:
        """Write it to a file. At any instant there is either the old file, the new one, or none.

        Raises:
            OSError: the file cannot be written.
            InputError, OutsideDownError: the store of objects refuses it, or does not answer.
        """
        state = stored({name: np.ascontiguousarray(array) for name, array in self.state.items()}, {}, QUICK)
        metadata = {
            "format": FORMAT,
            "checksum": _checksum(state),
            "generation": str(self.step.generation),
            "batch_id": str(self.step.batch_id),
            "fingerprint": self.settings.fingerprint(),
            "made_with": json.dumps(_made_with(self.settings)),
        }
        with written(path) as file:
            try:
                save_file(state, file, metadata)
            except SafetensorError as error:
                raise OSError(str(error)) from error


def load(path: Place, settings: Settings) -> OnlineModel:
    """A model from its snapshot; errors as of `read`."""
    found = read(path, settings)
    return OnlineModel.from_state(settings, found.state, found.step)


def read(path: Place, settings: Settings) -> Snapshot:
    """Read a snapshot back.

    Raises:
        UnusableSnapshotError: the file is missing, damaged or of another format.
        InputError: it was made with settings under which the same events would have given another model.
        OutsideDownError: the store of objects does not answer.
    """
    try:
        with at_hand(path) as near, safe_open(near, framework="numpy") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise UnusableSnapshotError(f"cannot read the snapshot {path}: {error}") from error
    if metadata.get("format") != FORMAT:
        raise UnusableSnapshotError(
            f"{path} is a snapshot of format {metadata.get('format')}, and this release reads format {FORMAT} only"
        )
    if metadata.get("checksum") != _checksum(state):
        raise UnusableSnapshotError(f"{path} is damaged: its content does not have its checksum")
    if metadata["fingerprint"] != settings.fingerprint():
        raise InputError(
            f"{path} was made with other settings (weights, decay, model, concept_drift or seed; for a mixture also "
            "recommend.k, recommend.exclude_seen or evaluation.users_per_batch): restore them, or run the rebuild job"
        )
    return Snapshot(StepId(int(metadata["generation"]), int(metadata["batch_id"])), restored(state), settings)


def _made_with(settings: Settings) -> dict[str, str]:
    """What the last bits of the arrays may depend on, besides events and settings."""
    return {
        "device": str(resolve_device(settings.device)),
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        **{library.__name__: str(library.__version__) for library in (np, torch, numba)},
    }


def _checksum(state: Mapping[str, npt.NDArray[Any]]) -> str:
    """A digest of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, array in sorted(state.items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _generation_folder(folder: Place, generation: int) -> Place:
    return folder / f"{_GENERATION}{generation}"


def _batches(folder: Place, generation: int) -> list[int]:
    names = [path.name for path in _generation_folder(folder, generation).glob(f"batch-*{_SUFFIX}")]
    numbers = [name.removeprefix("batch-").removesuffix(_SUFFIX) for name in names]
    return [int(number) for number in numbers if number.removeprefix("-").isdigit()]

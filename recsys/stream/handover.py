"""What a backfill leaves to the stream: whose the checkpoint is, and how its batches are numbered.

The history is Spark's batch 0 of the checkpoint, and batches 0, ..., n-1 of the ledger. A stream that can go on with
that checkpoint does: its batch 1 is batch n of the ledger, and files that the backfill has read are not read again. Any
other stream gets a checkpoint of its own, whose batch 0 is batch n.

One file in the checkpoint folder says so. It is replaced as a whole, so that a kill leaves the old one or the new one.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from recsys.config import Settings
from recsys.errors import InputError
from recsys.storage import checkpoint_folder

_FILE = "backfill.json"


@dataclass(frozen=True)
class Handover:
    """How far a backfill has come, and what became of its checkpoint.

    Attributes:
        kind: what was read; Spark keeps one record of the files read, whatever their format and folder.
        path: where it was read from, absolute where it is local.
        has_ids: whether duplicates were told by an event id; Spark cannot begin or end that in a checkpoint.
        batches: batches of the ledger that the history makes; None until the log holds them.
        finished: whether everything of the history is learned and published.
        checkpoint: `history`: the backfill's own; `emptied`: it has to be emptied for another source; `fresh`: it was.
    """

    kind: Literal["files", "delta"]
    path: str
    has_ids: bool
    batches: int | None = None
    finished: bool = False
    checkpoint: Literal["history", "emptied", "fresh"] = "history"

    @property
    def first_batch(self) -> int:
        """The ledger's number of the checkpoint's batch 0; of its last piece, where batch 0 is the history."""
        return (self.batches or 0) - (self.checkpoint == "history")


def described(settings: Settings, has_ids: bool) -> Handover:
    """The handover of a backfill that has not begun."""
    kind: Literal["files", "delta"] = "delta" if settings.source.format == "delta" else "files"
    return Handover(kind, source_path(settings), has_ids)


def source_path(settings: Settings) -> str:
    """The path of the source: absolute where it is local."""
    path = settings.source.path
    return path if ":/" in path else str(Path(path).absolute())


def load(root: str) -> Handover | None:
    """Read what a backfill left under a storage root; None if there was none, or its checkpoint is gone."""
    try:
        return Handover(**json.loads((checkpoint_folder(root) / _FILE).read_text("utf-8")))
    except FileNotFoundError:
        return None


def save(root: str, handover: Handover) -> Handover:
    """Write it in place of what was there, and return it."""
    folder = checkpoint_folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    hidden = folder / f".{_FILE}.tmp"
    with hidden.open("w", encoding="utf-8") as file:
        json.dump(asdict(handover), file)
        file.flush()
        os.fsync(file.fileno())
    hidden.replace(folder / _FILE)
    return handover


def empty_checkpoint(root: str) -> None:
    """Remove what Spark keeps in the checkpoint folder, where there is one."""
    folder = checkpoint_folder(root)
    for entry in folder.iterdir() if folder.exists() else ():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != _FILE:
            entry.unlink()


def refuse_unfinished(root: str) -> Handover | None:
    """What a backfill left, for a job that goes on from there.

    Raises:
        InputError: the backfill was stopped before its end.
    """
    held = load(root)
    if held is not None and not held.finished:
        raise InputError(
            f"the backfill of {held.path} into {root} is not finished: run jobs/backfill.py again with the same "
            f"settings, which goes on where it stopped"
        )
    return held


def first_batch(settings: Settings, has_ids: bool) -> int:
    """Let a stream take over, and return the ledger's number of its checkpoint's batch 0: 0 without a backfill.

    Args:
        settings: all settings.
        has_ids: whether the stream tells duplicates by an event id.

    Raises:
        InputError: a backfill is unfinished, or has read files of this stream, but otherwise.
    """
    root = settings.storage.root
    held = refuse_unfinished(root)
    if held is None:
        return 0
    wanted = described(settings, has_ids)
    if held.checkpoint == "history" and not _has_streamed(root) and not _continues(wanted, held):
        if _overlap(wanted, held):
            raise InputError(
                f"{held.path} was backfilled {'with' if held.has_ids else 'without'} event ids, and the stream would "
                "read its files once more: set source.columns.event_id as it was then, or source.path to another folder"
            )
        held = save(root, replace(held, checkpoint="emptied"))
    if held.checkpoint == "emptied":
        empty_checkpoint(root)
        held = save(root, replace(held, checkpoint="fresh"))
    return held.first_batch


def _has_streamed(root: str) -> bool:
    """Whether Spark has planned a batch after the history."""
    return (checkpoint_folder(root) / "offsets" / "1").exists()


def _continues(stream: Handover, history: Handover) -> bool:
    """Whether a stream can go on with the checkpoint of a history."""
    same_kind = (stream.kind, stream.has_ids) == (history.kind, history.has_ids)
    return same_kind and (stream.kind == "files" or stream.path == history.path)


def _overlap(stream: Handover, history: Handover) -> bool:
    """Whether one of two paths of the same kind lies within the other."""
    one, other = (f"{held.path.rstrip('/')}/" for held in (stream, history))
    return stream.kind == history.kind and (one.startswith(other) or other.startswith(one))

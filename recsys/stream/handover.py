"""The handover from a backfill to the stream: who owns the checkpoint, and how its batches are numbered.

The history is Spark's batch 0 of the checkpoint, and batches 0, ..., n-1 of the ledger. A stream that can continue with
that checkpoint does: its batch 1 is batch n of the ledger, and files that the backfill has read are not read again. Any
other stream gets a new checkpoint, whose batch 0 is batch n.

A file in the checkpoint folder records this. It is replaced atomically, so a kill leaves the old or the new one.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from recsys.config import Settings
from recsys.config.sections import Source
from recsys.errors import InputError
from recsys.storage import checkpoint_folder, remove, written

_FILE = "backfill.json"
_NAMED = "table:"


@dataclass(frozen=True)
class Handover:
    """Progress of a backfill, and the state of its checkpoint.

    Attributes:
        kind: what was read; Spark keeps one list of files read, whatever their format and folder, Auto Loader another.
        path: path of the source, absolute if it is local; `table:` and the name, for a table of the catalog.
        has_ids: whether there was de-duplication by event id, which Spark cannot change in a checkpoint.
        batches: number of batches of the history in the ledger; None until they are in the log.
        finished: whether the whole history is learned and published.
        checkpoint: `history`: that of the backfill; `emptied`: to be emptied for another source; `fresh`: emptied.
    """

    kind: Literal["files", "delta", "kafka", "cloudFiles"]
    path: str
    has_ids: bool
    batches: int | None = None
    finished: bool = False
    checkpoint: Literal["history", "emptied", "fresh"] = "history"

    @property
    def first_batch(self) -> int:
        """Batch id in the ledger of the checkpoint's batch 0, or of its last part if batch 0 is the history."""
        return (self.batches or 0) - (self.checkpoint == "history")


def described(settings: Settings, has_ids: bool) -> Handover:
    """The handover of a backfill that has not begun."""
    read = settings.source.format
    return Handover(read if read in ("delta", "kafka", "cloudFiles") else "files", source_path(settings), has_ids)


def source_path(settings: Settings) -> str:
    """The paths of the sources, absolute if they are local; a table or topics by name."""
    return " + ".join(_path(one.source) for one in settings.each_source)


def _path(source: Source) -> str:
    if source.format == "kafka":
        return ",".join(source.topics)
    if source.table is not None:
        return f"{_NAMED}{source.table}"
    path = source.path
    return path if ":/" in path else str(Path(path).absolute())


def load(root: str) -> Handover | None:
    """Read the handover under a storage root; None without a backfill, or if its checkpoint is gone."""
    try:
        return Handover(**json.loads((checkpoint_folder(root) / _FILE).read_text("utf-8")))
    except FileNotFoundError:
        return None


def save(root: str, handover: Handover) -> Handover:
    """Replace the stored handover, and return the new one."""
    with written(checkpoint_folder(root) / _FILE) as file:
        file.write_text(json.dumps(asdict(handover)), "utf-8")
    return handover


def empty_checkpoint(root: str) -> None:
    """Delete Spark's files in the checkpoint folder, if there is one."""
    folder = checkpoint_folder(root)
    for entry in folder.iterdir() if folder.exists() else ():
        if entry.name != _FILE:
            remove(entry)


def refuse_unfinished(root: str) -> Handover | None:
    """The handover of a finished backfill, or None without a backfill.

    Raises:
        InputError: the backfill was stopped before its end.
    """
    held = load(root)
    if held is not None and not held.finished:
        raise InputError(
            f"the backfill of {held.path} into {root} is not finished: run jobs/backfill.py again with the same "
            f"settings, and it continues where it stopped"
        )
    return held


def first_batch(settings: Settings, has_ids: bool) -> int:
    """Let a stream take over; return the batch id in the ledger of its checkpoint's batch 0 (0 without a backfill).

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
        if wanted.kind == "cloudFiles" and _overlap(replace(wanted, kind="files"), held):
            raise InputError(
                f"{held.path} was backfilled, and Auto Loader would read its files again: set source.path to another "
                "folder, or source.format to json"
            )
        if _overlap(wanted, held):
            raise InputError(
                f"{held.path} was backfilled {'with' if held.has_ids else 'without'} event ids, and the stream would "
                "read its files again: set source.columns.event_id as it was then, or source.path to another folder"
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
    """Whether a stream can continue with the checkpoint of a history."""
    same_kind = (stream.kind, stream.has_ids) == (history.kind, history.has_ids)
    several = any(" + " in held.path for held in (stream, history))
    return same_kind and ((stream.kind == "files" and not several) or stream.path == history.path)


def _overlap(stream: Handover, history: Handover) -> bool:
    """Whether two sources of a kind may have the same records: one is inside the other, or only one has a name."""
    if stream.kind == history.kind and stream.path.startswith(_NAMED) != history.path.startswith(_NAMED):
        return True
    one, other = (f"{held.path.rstrip('/')}/" for held in (stream, history))
    return stream.kind == history.kind and (one.startswith(other) or other.startswith(one))

"""Reads Spark's streaming checkpoint: whose it is, how far it is, and what each batch was planned to read."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class Plan:
    """What Spark planned for a micro-batch before it began; the same when the batch comes again.

    Attributes:
        input: fingerprint of what the batch reads: the positions in the source, and the files between them.
        planned_at: when (UTC).
    """

    input: str
    planned_at: datetime


def query_id(folder: Path) -> str | None:
    """Id of the streaming query that a checkpoint belongs to, or None without a checkpoint. It survives restarts."""
    try:
        return str(json.loads((folder / "metadata").read_text("utf-8"))["id"])
    except FileNotFoundError:
        return None


def last_planned(folder: Path) -> int:
    """Number of the last batch that was planned; -1 if there is none."""
    return _last(folder / "offsets")


def last_finished(folder: Path) -> int:
    """Number of the last batch that Spark has marked as done; -1 if there is none."""
    return _last(folder / "commits")


def plan(folder: Path, batch_id: int) -> Plan | None:
    """The plan of a batch; None if Spark has none, or keeps it no longer.

    Args:
        folder: folder of the checkpoint.
        batch_id: Spark's number of the batch.
    """
    lines = _lines(folder / "offsets" / str(batch_id))
    if lines is None:
        return None
    metadata, *ends = lines
    before = _lines(folder / "offsets" / str(batch_id - 1))
    begins = before[1:] if before else [None] * len(ends)
    parts = [ends, begins]
    for source, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        parts.append(sorted(_files(folder / "sources" / str(source), begin, end)))
    fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    planned_at = datetime.fromtimestamp(json.loads(metadata)["batchTimestampMs"] / 1000, UTC)
    return Plan(fingerprint, planned_at)


def _files(log: Path, begin: str | None, end: str) -> Iterator[str]:
    """Files that a source of files reads between two positions, one text each; nothing for other kinds of sources."""
    position = json.loads(end)
    if not isinstance(position, dict) or position.keys() != {"logOffset"}:
        return
    first = 0 if begin is None else json.loads(begin)["logOffset"] + 1
    for number in range(first, position["logOffset"] + 1):
        for line in _lines(log / str(number)) or _lines(log / f"{number}.compact") or []:
            # A compacted file has the entries of all numbers before; they are not parsed.
            if f'"batchId":{number}' in line and (entry := json.loads(line))["batchId"] == number:
                yield f"{entry['path']} {entry['timestamp']}"


def _lines(file: Path) -> list[str] | None:
    """Lines of a file of Spark's metadata logs, without the first, which is the version of the format."""
    try:
        return file.read_text("utf-8").splitlines()[1:]
    except FileNotFoundError:
        return None


def _last(folder: Path) -> int:
    numbers = [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()] if folder.exists() else []
    return max(numbers, default=-1)

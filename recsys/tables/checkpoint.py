"""Reads Spark's streaming checkpoint: whose it is, how far it is, and what each batch was planned to read."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from recsys.storage import Place


@dataclass(frozen=True)
class Plan:
    """What Spark planned for a micro-batch before it began; the same when the batch comes again.

    Attributes:
        input: fingerprint of what the batch reads: the positions in the source, and the files between them.
        planned_at: when (UTC).
    """

    input: str
    planned_at: datetime


def query_id(folder: Place) -> str | None:
    """Id of the streaming query that a checkpoint belongs to, or None without a checkpoint. It survives restarts."""
    try:
        return str(json.loads((folder / "metadata").read_text("utf-8"))["id"])
    except FileNotFoundError:
        return None


def last_planned(folder: Place) -> int:
    """Number of the last batch that was planned; -1 if there is none."""
    return _last(folder / "offsets")


def last_position(folder: Place, number: int = 0) -> str | None:
    """Position of a source after the last batch that was planned, as JSON; None if there is none.

    Args:
        folder: folder of the checkpoint.
        number: of the source, from 0.
    """
    lines = _lines(folder / "offsets" / str(last_planned(folder)))
    return lines[1 + number] if lines and len(lines) > 1 + number else None


def last_finished(folder: Place) -> int:
    """Number of the last batch that Spark has marked as done; -1 if there is none."""
    return _last(folder / "commits")


def plan(folder: Place, batch_id: int) -> Plan | None:
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
    sources = [folder / "sources" / str(number) for number in range(len(ends))]
    begins = before[1:] if before else [_begin(source, end) for source, end in zip(sources, ends, strict=True)]
    parts: list[Sequence[str | None]] = [ends, begins]
    for source, begin, end in zip(sources, begins, ends, strict=True):
        parts.append(sorted(_files(source, begin, end)))
    fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    planned_at = datetime.fromtimestamp(json.loads(metadata)["batchTimestampMs"] / 1000, UTC)
    return Plan(fingerprint, planned_at)


def _files(log: Place, begin: str | None, end: str) -> Iterator[str]:
    """Files that a source of files reads between two positions, one text each; nothing for other kinds of sources."""
    last = _last_listed(end)
    if last is None:
        return
    first = 0 if begin is None else json.loads(begin)["logOffset"] + 1
    for number in range(first, last + 1):
        for line in _lines(log / str(number)) or _lines(log / f"{number}.compact") or []:
            # A compacted file has the entries of all numbers before; they are not parsed.
            if f'"batchId":{number}' in line and (entry := json.loads(line))["batchId"] == number:
                yield f"{entry['path']} {entry['timestamp']}"


def _begin(source: Place, end: str) -> str | None:
    """Position before the first batch, where the source writes one, as Kafka's does; None for the start of the source.

    Args:
        source: the folder of the source.
        end: its position after the batch.
    """
    # A source of files has its list of files in that place.
    lines = _lines(source / "0") if _last_listed(end) is None else None
    return lines[0] if lines else None


def _last_listed(end: str) -> int | None:
    """Number of the last list of files up to a position, for a source of files; None for other kinds."""
    position = json.loads(end)
    listed = position.get("logOffset") if isinstance(position, dict) and len(position) == 1 else None
    return listed if isinstance(listed, int) else None


def _lines(file: Place) -> list[str] | None:
    """Lines of a file of Spark's metadata logs, without the first, which is the version of the format."""
    try:
        return file.read_text("utf-8").splitlines()[1:]
    except FileNotFoundError:
        return None


def _last(folder: Place) -> int:
    numbers = [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()] if folder.exists() else []
    return max(numbers, default=-1)

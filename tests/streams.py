"""Small streams for tests of the whole path."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

START = 1_700_000_000


def records(files: int, per_file: int = 120, seed: int = 7) -> Iterator[list[dict[str, Any]]]:
    """Events of consecutive files: a few users with preferences, and items that keep appearing."""
    draw = random.Random(seed)
    for number in range(files):
        batch = []
        for event in range(per_file):
            user = draw.randrange(30)
            item = draw.randrange(4 + number) * 3 + user % 3 if draw.random() < 0.8 else draw.randrange(30)
            batch.append(
                {
                    "user_id": f"u{user}",
                    "item_id": f"i{item}",
                    "event_type": draw.choice(["view", "view", "purchase"]),
                    "event_time": START + 3_600 * number + event,
                    "event_id": f"{number}-{event}",
                }
            )
        yield batch


def write_lines(folder: Path, number: int, lines: list[str]) -> None:
    """Write one file of the stream; Spark takes files in the order of their modification times."""
    folder.mkdir(exist_ok=True)
    hidden, file = folder / f".{number:03d}", folder / f"{number:03d}.json"
    hidden.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    os.utime(hidden, (START + number, START + number))
    hidden.rename(file)


def write_stream(folder: Path, files: int, first: int = 0) -> None:
    """Write the files `first`, ..., `files - 1` of the generated stream."""
    for number, batch in enumerate(records(files)):
        if number >= first:
            write_lines(folder, number, [json.dumps(record) for record in batch])

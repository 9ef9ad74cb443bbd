"""What a backfill leaves to the stream, without Spark: whose checkpoint it is, and how its batches are numbered."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.config import Settings
from recsys.errors import InputError
from recsys.storage import checkpoint_folder
from recsys.stream import handover
from recsys.stream.handover import Handover

Factory = Callable[..., Settings]


WITH_IDS, WITHOUT_IDS = True, False


@pytest.fixture
def finished(settings: Factory, tmp_path: Path) -> tuple[Settings, Handover]:
    """A storage whose backfill of 5 batches is finished, and what it left."""
    made = settings(tmp_path)
    root = made.storage.root
    for folder in ("offsets", "state"):
        (checkpoint_folder(root) / folder).mkdir(parents=True)
        (checkpoint_folder(root) / folder / "0").touch()
    (checkpoint_folder(root) / "metadata").touch()
    held = handover.described(made, WITHOUT_IDS)
    return made, handover.save(root, replace(held, batches=5, finished=True))


def held_by_spark(settings: Settings) -> set[str]:
    return {entry.name for entry in checkpoint_folder(settings.storage.root).iterdir()} - {"backfill.json"}


def test_a_stream_without_a_backfill_begins_at_0(settings: Factory, tmp_path: Path) -> None:
    assert handover.first_batch(settings(tmp_path), WITH_IDS) == 0
    assert handover.refuse_unfinished(str(tmp_path / "recsys")) is None


def test_what_is_saved_is_loaded(finished: tuple[Settings, Handover]) -> None:
    assert handover.load(finished[0].storage.root) == finished[1]


def test_an_unfinished_backfill_is_refused(finished: tuple[Settings, Handover]) -> None:
    made, held = finished
    handover.save(made.storage.root, replace(held, finished=False))
    with pytest.raises(InputError, match=r"backfill of .*/events .*is not finished: run jobs/backfill\.py again"):
        handover.first_batch(made, WITHOUT_IDS)


@pytest.mark.parametrize("source", [{}, {"path": "elsewhere", "format": "csv"}], ids=["the same folder", "other files"])
def test_a_stream_of_files_goes_on_with_the_checkpoint(
    finished: tuple[Settings, Handover], settings: Factory, tmp_path: Path, source: dict[str, str]
) -> None:
    """Spark knows the files that it has read by their own paths."""
    assert handover.first_batch(settings(tmp_path, source=source), WITHOUT_IDS) == 4
    assert held_by_spark(finished[0]) == {"offsets", "state", "metadata"}


def test_a_stream_of_another_kind_begins_a_checkpoint_of_its_own(
    finished: tuple[Settings, Handover], settings: Factory, tmp_path: Path
) -> None:
    other = settings(tmp_path, source={"path": str(tmp_path / "live")})
    for _ in range(2):
        assert handover.first_batch(other, WITH_IDS) == 5
        assert held_by_spark(other) == set()
    held = handover.load(other.storage.root)
    assert held is not None
    assert held.checkpoint == "fresh"
    (checkpoint_folder(other.storage.root) / "metadata").touch()
    assert handover.first_batch(other, WITH_IDS) == 5
    assert held_by_spark(other) == {"metadata"}, "a checkpoint in use is left alone"


def test_a_kill_while_the_checkpoint_is_emptied_is_made_good(
    finished: tuple[Settings, Handover], settings: Factory, tmp_path: Path
) -> None:
    made, held = finished
    handover.save(made.storage.root, replace(held, checkpoint="emptied"))
    assert handover.first_batch(settings(tmp_path, source={"path": str(tmp_path / "live")}), WITH_IDS) == 5
    assert held_by_spark(made) == set()


@pytest.mark.parametrize("path", ["events", "events/2024", "."])
def test_files_are_not_read_twice_because_of_ids(
    finished: tuple[Settings, Handover], settings: Factory, tmp_path: Path, path: str
) -> None:
    with pytest.raises(InputError, match=r"was backfilled without event ids.*set source\.columns\.event_id"):
        handover.first_batch(settings(tmp_path, source={"path": str(tmp_path / path)}), WITH_IDS)
    assert held_by_spark(finished[0]) == {"offsets", "state", "metadata"}


@pytest.mark.parametrize("path", ["events", "events/2024"])
def test_auto_loader_does_not_read_again_what_was_backfilled(
    finished: tuple[Settings, Handover], settings: Factory, tmp_path: Path, path: str
) -> None:
    files = settings(tmp_path, source={"format": "cloudFiles", "path": str(tmp_path / path)})
    with pytest.raises(InputError, match="Auto Loader would read its files again"):
        handover.first_batch(files, WITHOUT_IDS)
    assert held_by_spark(finished[0]) == {"offsets", "state", "metadata"}
    live = settings(tmp_path, source={"format": "cloudFiles", "path": str(tmp_path / "live")})
    assert handover.first_batch(live, WITHOUT_IDS) == 5


def test_a_checkpoint_with_a_batch_of_the_stream_is_not_given_up(
    finished: tuple[Settings, Handover], settings: Factory, tmp_path: Path
) -> None:
    made, _ = finished
    (checkpoint_folder(made.storage.root) / "offsets" / "1").touch()
    table = settings(tmp_path, source={"format": "delta", "path": str(tmp_path / "table")})
    assert handover.first_batch(table, WITH_IDS) == 4
    assert held_by_spark(made) == {"offsets", "state", "metadata"}

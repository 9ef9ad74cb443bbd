"""What is read of Spark's checkpoint, for a source whose positions are offsets by topic and partition."""

import json
from pathlib import Path

import pytest

from recsys.tables import checkpoint, kafka


def write(folder: Path, begin: dict[str, int], *ends: dict[str, int]) -> Path:
    """A checkpoint of a topic `t`, as Spark leaves it."""
    (folder / "offsets").mkdir(parents=True)
    (folder / "sources" / "0").mkdir(parents=True)
    (folder / "sources" / "0" / "0").write_text(f"\0v1\n{json.dumps({'t': begin})}")
    for number, end in enumerate(ends):
        lines = ["v1", json.dumps({"batchTimestampMs": 1}), json.dumps({"t": end})]
        (folder / "offsets" / str(number)).write_text("\n".join(lines))
    return folder


def fingerprint(folder: Path, batch_id: int) -> str:
    plan = checkpoint.plan(folder, batch_id)
    assert plan is not None
    return plan.input


def test_the_fingerprint_has_both_ends_of_all_partitions(tmp_path: Path) -> None:
    made = write(tmp_path / "made", {"0": 0}, {"0": 5}, {"0": 5, "1": 3})
    again = write(tmp_path / "again", {"0": 0}, {"0": 5}, {"0": 5, "1": 3})
    assert [fingerprint(made, number) for number in (0, 1)] == [fingerprint(again, number) for number in (0, 1)]
    others = {
        "began later": (write(tmp_path / "later", {"0": 2}, {"0": 5}), 0),
        "ended later": (write(tmp_path / "longer", {"0": 0}, {"0": 6}), 0),
        "no new partition": (write(tmp_path / "one", {"0": 0}, {"0": 5}, {"0": 5}), 1),
        "more of it": (write(tmp_path / "more", {"0": 0}, {"0": 5}, {"0": 5, "1": 4}), 1),
    }
    for other, number in others.values():
        assert fingerprint(other, number) != fingerprint(made, number)


@pytest.mark.parametrize("offset", [None, "null", "3", '{"logOffset": 3}', '{"reservoirId": "x", "index": 1}'])
def test_positions_of_other_sources_have_no_topics(offset: str | None) -> None:
    assert kafka.positions(offset) == {}


def test_the_last_position_is_that_of_the_last_planned_batch(tmp_path: Path) -> None:
    assert checkpoint.last_position(tmp_path / "none") is None
    made = write(tmp_path / "made", {"0": 0}, {"0": 5}, {"0": 7})
    assert kafka.positions(checkpoint.last_position(made)) == {"t": {"0": 7}}

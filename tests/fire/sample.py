"""A sample of what `make fire` does; a file for each kind, so that two shards share them."""

from pathlib import Path

from tests.fire.__main__ import JOBS, QUICK_SHARE, scenario
from tests.fire.compare import Difference


def assert_nothing_is_lost_doubled_or_different(kind: str, folder: Path, share: float = QUICK_SHARE) -> None:
    """Jobs that die at durable effects, a share of them, leave what undisturbed ones leave."""
    tally = scenario(folder, kind, 0, share)
    assert len(tally.points) >= 150
    assert tally.kills >= 130 * share
    assert {job for job, _ in tally.killed} == set(JOBS)
    assert tally.difference == Difference()

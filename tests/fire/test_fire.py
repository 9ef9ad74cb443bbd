"""A sample of what `make fire` does: jobs that die at durable effects leave what undisturbed ones leave."""

from pathlib import Path

import pytest

from tests.fire.__main__ import JOBS, QUICK_SHARE, scenario
from tests.fire.compare import Difference

pytestmark = [pytest.mark.process, pytest.mark.heavy]


@pytest.mark.parametrize("kind", ["mixture", "ncf"])
def test_nothing_is_lost_doubled_or_different(kind: str, tmp_path: Path) -> None:
    tally = scenario(tmp_path, kind, 0, QUICK_SHARE)
    assert len(tally.points) >= 150
    assert tally.kills >= 7
    assert {job for job, _ in tally.killed} == set(JOBS)
    assert tally.difference == Difference()

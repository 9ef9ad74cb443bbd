"""A sample of what `make fire` does, over fewer batches."""

from pathlib import Path

import pytest

from tests.fire.__main__ import JOBS, QUICK_SHARE, scenario
from tests.fire.compare import Difference

FILES = 12
SHARE = QUICK_SHARE / 2

pytestmark = [pytest.mark.process, pytest.mark.heavy]


def test_nothing_is_lost_doubled_or_different(tmp_path: Path) -> None:
    """Jobs that die at durable effects, a share of them, leave what undisturbed ones leave."""
    tally = scenario(tmp_path, "mixture", seed=0, share=SHARE, files=FILES)
    assert len(tally.points) >= 150
    assert tally.kills >= 130 * SHARE
    assert {job for job, _ in tally.killed} == set(JOBS)
    assert tally.difference == Difference()

from pathlib import Path

import pytest

from tests.fire.__main__ import QUICK_SHARE
from tests.fire.sample import assert_nothing_is_lost_doubled_or_different

pytestmark = [pytest.mark.process, pytest.mark.heavy]


def test_nothing_is_lost_doubled_or_different(tmp_path: Path) -> None:
    # Half of the sample of the mixture, which passes the same doors.
    assert_nothing_is_lost_doubled_or_different("ncf", tmp_path, QUICK_SHARE / 2)

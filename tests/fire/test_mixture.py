from pathlib import Path

import pytest

from tests.fire.sample import assert_nothing_is_lost_doubled_or_different

pytestmark = [pytest.mark.process, pytest.mark.heavy]


def test_nothing_is_lost_doubled_or_different(tmp_path: Path) -> None:
    assert_nothing_is_lost_doubled_or_different("mixture", tmp_path)

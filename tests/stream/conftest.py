"""Settings for tests of the whole stream."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys.config import Settings
from tests.stream.checks import MakeSettings


@pytest.fixture
def ready(
    settings: MakeSettings,
    empty_tables: Callable[[str], None],
    empty_registry: Callable[[str], None],
) -> MakeSettings:
    """The factory of all tests, for storage whose empty tables and MLflow database are made already."""

    def make(folder: Path, **overrides: Any) -> Settings:
        made = settings(folder, **overrides)
        empty_tables(made.storage.root)
        empty_registry(made.storage.root)
        return made

    return make


@pytest.fixture
def stream(tmp_path: Path, ready: MakeSettings) -> Settings:
    """Settings of a stream of one file a batch; its events are still to be written."""
    return ready(
        tmp_path,
        source={"options": {"maxFilesPerTrigger": "1"}, "columns": {"event_id": None}},
        weights={"view": 1, "purchase": 3},
        storage={"snapshot_every_batches": 3, "refresh_totals_every_batches": 4},
        register={"every_batches": 3},
        recommend={"k": 5, "exclude_seen": False},
        staleness={"shadow_every_batches": 2},
        evaluation={"first_every_batches": 2},
    )

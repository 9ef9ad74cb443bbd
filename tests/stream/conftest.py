"""Streams that begin where a first start has made the empty tables and the MLflow database."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys.config import Settings


@pytest.fixture
def settings(
    settings: Callable[..., Settings],
    spark_settings: dict[str, str],
    empty_tables: Callable[[str], None],
    empty_registry: Callable[[str], None],
) -> Callable[..., Settings]:
    """The factory of all tests, whose storage root is ready to be used."""

    def make(folder: Path, **overrides: Any) -> Settings:
        made = settings(folder, **{"spark": spark_settings, **overrides})
        empty_tables(made.storage.root)
        empty_registry(made.storage.root)
        return made

    return make

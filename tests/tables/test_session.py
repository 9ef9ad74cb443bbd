import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.tables.jars import delta_package
from recsys.tables.java import why_not_started
from recsys.tables.session import build_session

START = """
import sys
from recsys.config import Settings
from recsys.errors import InputError
from recsys.tables.session import build_session
try:
    session = build_session(Settings(spark={"spark.master": "local[1]"}))
except InputError as error:
    sys.exit(str(error))
print(session.range(3).count(), session.conf.get("spark.sql.session.timeZone"), session.sparkContext.master)
"""


def start(**environment: str) -> subprocess.CompletedProcess[str]:
    """Start a session in a process of its own."""
    command = [sys.executable, "-c", START]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.process
@pytest.mark.heavy
def test_a_session_starts_without_a_word_on_the_error_stream(spark: SparkSession) -> None:
    done = start()
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["3", "UTC", "local[1]"], "")


@pytest.mark.process
def test_without_java_one_line_says_what_to_install(tmp_path: Path) -> None:
    for tool in ("bash", "dirname", "env", "ps", "cat", "uname", "rm", "mkdir"):
        found = shutil.which(tool)
        if found:
            (tmp_path / tool).symlink_to(found)
    done = start(PATH=str(tmp_path), JAVA_HOME="")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "Spark needs Java and found none: install Java 17 (for example openjdk-17-jre-headless)"
    )


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        ("a\n:::: ERRORS\nunresolved dependency: io.delta#delta-spark;9: not found\n", [delta_package(), "Maven"]),
        ("java.lang.UnsupportedClassVersionError: org/apache/spark/launcher/Main\n", ["Java 17"]),
        ("noise\nException in thread main: no space left\nmore\n", ["no space left"]),
        ("", ["nothing"]),
    ],
)
def test_what_java_printed_becomes_one_line(printed: str, words: list[str]) -> None:
    line = why_not_started(printed)
    assert "\n" not in line
    assert all(word in line for word in words)


def test_the_session_of_this_package_is_used_again(spark: SparkSession) -> None:
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    taken = build_session(Settings(spark={"spark.master": "local[7]", "recsys.mark": "seen"}))
    assert taken is spark
    assert taken.conf.get("spark.sql.session.timeZone") == "UTC"
    assert taken.conf.get("recsys.mark", "not set") == ("seen" if spark.conf.isModifiable("recsys.mark") else "not set")


def test_a_session_of_a_caller_stays_as_it_is(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    caller = spark.newSession()
    monkeypatch.setattr(SparkSession, "_activeSession", caller)
    caller.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    caller.conf.set("spark.sql.shuffle.partitions", "3")
    before = dict(caller.conf.getAll)
    made = build_session(Settings(spark={"spark.sql.ansi.enabled": "false"}))
    assert made is not caller
    assert caller.conf.getAll == before
    names = ("session.timeZone", "shuffle.partitions", "ansi.enabled")
    found = [made.conf.get(f"spark.sql.{name}") for name in names]
    assert found == ["UTC", "3", "false"], "the caller's settings, but for those that the jobs need"
    assert made.sql("SELECT timestamp '1970-01-01' AS t").selectExpr("CAST(t AS BIGINT)").first()[0] == 0

"""Starts Spark's Java process: quietly, and with the classes that an earlier one has left ready to be used.

Java spends half of its start on reading, checking and linking some 20,000 classes. It can keep them in an archive
(dynamic application class data sharing, JEP 350), which one process writes when it ends and later ones map.
"""

import hashlib
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from py4j.java_gateway import JavaGateway
from pyspark import SparkConf
from pyspark.errors import PySparkRuntimeError
from pyspark.find_spark_home import _find_spark_home
from pyspark.java_gateway import launch_gateway

from recsys.errors import InputError
from recsys.tables.jars import cache_folder, delta_package, kafka_package

logger = logging.getLogger(__name__)

OPTIONS = "spark.driver.extraJavaOptions"
# Spark puts it at the end of the class path: of a class that Spark has, too, its own is loaded.
_CLASS_PATH, _FIRST_ON_CLASS_PATH = "SPARK_DIST_CLASSPATH", "spark.driver.extraClassPath"
_UNUSED_SECONDS = 30 * 86_400


def start_java(conf: SparkConf, jars: Sequence[str]) -> JavaGateway:
    """Start Spark's Java process and buffer its output until it is up.

    Resolving the Delta jar prints about a hundred lines that are of no use when it works. When it fails, the relevant
    line becomes the error message. Once the process is up, its output is passed on.

    Args:
        conf: the configuration of the session.
        jars: paths of the jars that its class path has beside Spark's own; empty if they are still to be resolved.

    Raises:
        InputError: it does not start.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    read_end, write_end = os.pipe()
    held: list[bytes] = []
    started = threading.Event()

    def pass_on() -> None:
        with os.fdopen(read_end, "rb") as lines:
            for line in lines:
                if started.is_set():
                    # Not sys.stderr, whose lock may be gone while the interpreter shuts down.
                    os.write(2, line)
                else:
                    held.append(line)

    reader = threading.Thread(target=pass_on, name="spark-stderr", daemon=True)
    reader.start()
    if jars:
        first = conf.get(_FIRST_ON_CLASS_PATH, "") or ""
        conf.set(OPTIONS, " ".join([*archive_options(jars, first), conf.get(OPTIONS, "") or ""]).strip())
    try:
        with _on_class_path(jars):
            # A job's own output is Python's. Whoever waits for its end shall not wait for Java's.
            streams = {"stdout": write_end, "stderr": write_end}
            gateway = launch_gateway(conf, popen_kwargs=streams)  # type: ignore[no-untyped-call]
    except PySparkRuntimeError as error:
        os.close(write_end)
        reader.join()
        raise InputError(why_not_started(b"".join(held).decode(errors="replace"))) from error
    os.close(write_end)
    started.set()
    return gateway


def why_not_started(printed: str) -> str:
    """Find the cause in the output of a Java process that ended before Spark was up."""
    lowered = printed.lower()
    if "unresolved dependency" in lowered or "download failed" in lowered:
        missing = (
            kafka_package()
            if re.search(r"(unresolved dependency|download failed)[^\n]*kafka", lowered)
            else delta_package()
        )
        return (
            f"Spark could not download {missing} from Maven: check the network or proxy, "
            "or name a mirror with spark.spark.jars.repositories"
        )
    if "java_home is not set" in lowered or "java: not found" in lowered or "java: command not found" in lowered:
        return "Spark needs Java and found none: install Java 17 (for example openjdk-17-jre-headless)"
    if "unsupportedclassversionerror" in lowered or "unrecognized option" in lowered:
        return "Spark needs Java 17 or later: install it and point JAVA_HOME at it"
    lines = [line for line in printed.splitlines() if "exception" in line.lower() or "error" in line.lower()]
    return f"Spark did not start: {(lines or printed.splitlines() or ['it printed nothing'])[-1].strip()}"


def archive_options(jars: Sequence[str], first: str = "") -> list[str]:
    """Java's options to map the archive of classes that fits, or to write it at the end of the process.

    Java itself checks that an archive is whole and fits, and goes on without it if not.

    Args:
        jars: paths of the jars that the class path has after Spark's own.
        first: what it has before them.

    Returns:
        No options where no archive can be kept.
    """
    archives = cache_folder() / "java-classes"
    try:
        folder = archives / _digest(jars, first)
        whole = [file for file in sorted(folder.glob("*.jsa")) if _is_whole(file)]
        if whole:
            # Processes that began together have each written one. Who has mapped a file keeps it.
            for spare in whole[1:]:
                spare.unlink(missing_ok=True)
            os.utime(folder)
            return [f'"-XX:SharedArchiveFile={whole[0]}"']
        folder.mkdir(parents=True, exist_ok=True)
        for other in archives.iterdir():
            if time.time() - other.stat().st_mtime > _UNUSED_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
    except OSError as error:
        logger.info("Java keeps no archive of classes: %s", error)
        return []
    if not os.access(folder, os.W_OK):
        return []
    # What cannot be archived is of no interest to anybody. Other makes of Java do not know these options.
    quiet = ["-XX:+IgnoreUnrecognizedVMOptions", "-Xlog:cds*=error"]
    return [*quiet, f'"-XX:ArchiveClassesAtExit={folder}/{os.getpid()}.jsa"']


def _digest(jars: Sequence[str], first: str) -> str:
    """Of what an archive depends on: Java, Spark, and the rest of the class path.

    Raises:
        OSError: one of them is not there.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=os.path.join(home, "bin")) if home else shutil.which("java")
    if java is None:
        raise FileNotFoundError("there is no java")
    spark = Path(_find_spark_home(), "jars")
    files = [Path(java).resolve(), spark, *map(Path, jars)]
    parts = [first, os.environ.get(_CLASS_PATH, "")]
    parts += [f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _is_whole(archive: Path) -> bool:
    """Whether Java has written an archive to its end: the head comes last."""
    with archive.open("rb") as file:
        return any(file.read(4))


@contextmanager
def _on_class_path(jars: Sequence[str]) -> Iterator[None]:
    given = os.environ.get(_CLASS_PATH)
    if jars:
        os.environ[_CLASS_PATH] = os.pathsep.join([*filter(None, [given]), *jars])
    try:
        yield
    finally:
        if given is None:
            os.environ.pop(_CLASS_PATH, None)
        else:
            os.environ[_CLASS_PATH] = given

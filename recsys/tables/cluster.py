"""What a session is asked before a job works with it, and how Spark's log is kept from drowning the job's.

The driver's process holds the model; executors read, clean, aggregate and score. So the two have to see one storage.
"""

import os
import re
import socket
from collections.abc import Mapping
from importlib import resources
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession, is_remote

from recsys.errors import ConfigError, InputError, OutsideDownError
from recsys.remote import is_uri
from recsys.storage import note_to_executors
from recsys.tables.failures import explain_failure, first_line
from recsys.tables.jars import delta_package
from recsys.version import DELTA_TESTED, SPARK_TESTED

LOCAL = re.compile(r"local(\[[^\]]*\])?")
_LINES_OF_NOTE = 1_000
_MASTER_SECONDS = 10
_UNSEEN = re.compile(
    r"does not exist|No such file|FileNotFound|PATH_NOT_FOUND|Permission denied|denied for user|AccessControlException"
)


def is_submitted() -> bool:
    """Whether `spark-submit` has started Java before this process."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def on_databricks() -> bool:
    """Whether this is a cluster of Databricks."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ


def refuse_connect(given: Mapping[str, str]) -> None:
    """Refuse Spark Connect.

    Args:
        given: settings of Spark.

    Raises:
        ConfigError: it is asked for.
    """
    asked = {
        "SPARK_REMOTE": "SPARK_REMOTE" in os.environ,
        "spark.remote": "spark.remote" in given,
        "spark.api.mode": given.get("spark.api.mode", os.environ.get("SPARK_API_MODE", "")).lower() == "connect",
        "SPARK_CONNECT_MODE_ENABLED": is_remote(),
    }
    name = next((name for name, found in asked.items() if found), None)
    if name is not None:
        raise ConfigError(
            f"the jobs do not run on Spark Connect ({name}), because the model lives in the driver's process: unset "
            "it, and start with spark-submit, or set spark.spark.master; on Databricks, take classic compute"
        )


def quiet_java(java: Any) -> None:
    """Give Java's log the settings of this package, unless the user has brought other ones than Spark's.

    Args:
        java: the view of the Java process that `spark-submit` has started.
    """
    # Later, Spark would still put its own in their place.
    java.org.apache.spark.SparkConf().initializeLogIfNecessary(False)
    context = java.org.apache.logging.log4j.LogManager.getContext(False)
    location = context.getConfiguration().getConfigurationSource().getLocation() or ""
    if not location.endswith("org/apache/spark/log4j2-defaults.properties"):
        return
    # In a zip file the settings have no path of their own, and Java reads them at once.
    with resources.as_file(resources.files("recsys") / "conf" / "log4j2.properties") as settings:
        context.setConfigLocation(java.java.io.File(str(settings)).toURI())


def refuse_silent_master(master: str) -> None:
    """Refuse a master of a standalone cluster to which no connection can be made: Spark itself would try for minutes.

    Args:
        master: `spark.master`; other kinds than `spark://HOST:PORT,HOST:PORT` pass.

    Raises:
        ConfigError: it names no port.
        OutsideDownError: none of its hosts takes the connection.
    """
    if not master.startswith("spark://"):
        return
    why = ""
    for place in master.removeprefix("spark://").split(","):
        host, _, port = place.rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(f"spark.spark.master {master}: a master is spark://HOST:PORT")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _MASTER_SECONDS).close()
            return
        except OSError as error:
            why = f"{place}: {error.strerror or error}"
    raise OutsideDownError(
        f"no Spark master answers at {master} ({why}): start again once it does, or correct spark.spark.master"
    )


def refuse_unsuitable(session: SparkSession, root: str) -> None:
    """Refuse a session that was started for a job and cannot do its work.

    Args:
        session: on a cluster or not.
        root: `storage.root`.

    Raises:
        InputError: Spark or Delta are older or newer than those of the tests, Delta is missing, or executors do not
            see the storage root.
        OutsideDownError: its file system does not answer, or is full.
    """
    # The Spark and Delta of Databricks are versions of its own, and its volumes are the same everywhere.
    if not on_databricks():
        _refuse_untested(session)
        _refuse_unshared(session, root)


def refuse_unreachable(session: SparkSession, root: str) -> None:
    """Ask Spark for a storage root in a store of objects.

    Args:
        session: the session.
        root: `storage.root`.

    Raises:
        InputError: Spark has no client of such a store, or the store refuses it.
        OutsideDownError: the store does not answer.
    """
    if not is_uri(root):
        return
    try:
        path = session._jvm.org.apache.hadoop.fs.Path(root)  # type: ignore[union-attr]
        path.getFileSystem(session._jsc.hadoopConfiguration()).exists(path)
    except Py4JJavaError as error:
        explained = explain_failure(error)
        if explained is not None:
            raise type(explained)(f"storage.root {root}: {explained}") from error
        raise InputError(
            f"Spark cannot use storage.root {root} ({first_line(error):.200}): add the package of Hadoop's client for "
            f"it to spark.spark.jars.packages, and its settings to spark (spark.hadoop.fs...)"
        ) from error


def _refuse_untested(session: SparkSession) -> None:
    refuse_line("Spark", session.version, SPARK_TESTED)
    try:
        delta = str(getattr(session._jvm.io.delta, "package").VERSION())  # type: ignore[union-attr]  # noqa: B009
    except TypeError as error:  # py4j: a missing class is a "JavaPackage", which is not callable
        raise InputError(
            f"Delta is not on Spark's class path: run spark-submit --packages {delta_package()} ..., "
            "or start the job with python"
        ) from error
    refuse_line("Delta", delta, DELTA_TESTED)


def refuse_line(name: str, found: str, tested: tuple[str, str]) -> None:
    """Refuse a version whose line, as 4.2, is not among those of the tests.

    Args:
        name: of what it is a version.
        found: the version.
        tested: the oldest and the newest.

    Raises:
        InputError: it is older or newer.
    """
    oldest, newest = (_line(version) for version in tested)
    if not oldest <= _line(found) <= newest:
        shown = " to ".join(".".join(map(str, line)) for line in (oldest, newest))
        raise InputError(
            f"this is {name} {found}, and this release is tested with {name} {shown}: run it there, or install a "
            f"release of recsys-stream for {name} {'.'.join(map(str, _line(found)))}"
        )


def _line(version: str) -> tuple[int, ...]:
    """(4, 2) of 4.2.1-SNAPSHOT."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _refuse_unshared(session: SparkSession, root: str) -> None:
    """Have the executors read what the driver writes under the storage root, unless they are threads of the driver."""
    context = session.sparkContext
    if LOCAL.fullmatch(str(context.master)) or is_uri(root):
        return
    with note_to_executors(root, "\n" * _LINES_OF_NOTE) as note:
        try:
            # By Java, as they read tables: executors may have no Python. Tasks go to all that are there in turn.
            context._jsc.textFile(str(note), max(16, 2 * context.defaultParallelism)).count()
        except Py4JJavaError as error:
            text = str(error)
            if not _UNSEEN.search(text):
                raise (explain_failure(error) or error) from error
            raise InputError(
                f"storage.root {root} is not one folder for all machines, because executors do not see what the driver "
                f"writes there ({first_line(error):.200}): set it to a folder that all have under the same path, such "
                "as a network file system"
            ) from error

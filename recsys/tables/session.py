"""Builds the Spark session: with Delta, in UTC, quiet, and sized for one machine unless a cluster sets its size."""

import os
import re
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import resources

from delta import DeltaTable
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.errors import InputError
from recsys.tables import jars
from recsys.tables.jars import delta_package, kafka_package
from recsys.tables.java import OPTIONS, start_java

# Required in every session, including one that was created elsewhere.
ALWAYS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # A batch without data would only expire old state, which the next batch with data does anyway.
    "spark.sql.streaming.noDataMicroBatches.enabled": "false",
    # Names of options that Spark shows in no plan, and so in no log: by default only addresses and passwords.
    "spark.sql.redaction.options.regex": "(?i)url|sasl|ssl|jaas|password|secret|token",
}
PACKAGES, JARS = "spark.jars.packages", "spark.jars"
# A session that `begin_session` is starting.
_beginning: "list[Future[SparkSession]]" = []


def begin_session(settings: Settings) -> None:
    """Start Spark in the background, where it is not running yet; `build_session` waits for it.

    Java takes as long to start as torch and MLflow take to be imported.
    """
    if SparkContext._active_spark_context is None and not _beginning:
        starter = ThreadPoolExecutor(1, thread_name_prefix="spark-start")
        _beginning.append(starter.submit(_build, settings))
        starter.shutdown(wait=False)


def build_session(settings: Settings) -> SparkSession:
    """Get the active session (Databricks, notebooks, tests) or start one.

    `settings.spark` overrides every default. In a session that is already active, only settings that can still change
    are applied.

    Raises:
        InputError: Java is missing or too old, or the Delta jar cannot be found.
    """
    while _beginning:
        _beginning.pop().result()
    return _build(settings)


def separate_session(settings: Settings) -> SparkSession:
    """A session beside that of the caller, who has settings of its own; without one, Spark is started.

    It shares Spark with the caller's and begins with the caller's settings, but what is set in it stays in it.

    Raises:
        InputError: see `build_session`.
    """
    if SparkContext._active_spark_context is None:
        return build_session(settings)
    caller = SparkSession.builder.getOrCreate()  # Without options it changes none.
    session = caller.newSession()
    for key, value in {**caller.conf.getAll, **ALWAYS, **settings.spark}.items():
        if session.conf.isModifiable(key):
            session.conf.set(key, value)
    return session


def _build(settings: Settings) -> SparkSession:
    active = SparkSession.getActiveSession()
    if active is not None:
        for key, value in {**ALWAYS, **settings.spark}.items():
            if active.conf.isModifiable(key):
                active.conf.set(key, value)
        return active
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    values = _session_settings(settings.spark, local=not submitted, kafka=settings.source.format == "kafka")
    if not submitted and SparkContext._gateway is None:
        _start_spark(values)
    session = SparkSession.builder.config(conf=_conf(values)).getOrCreate()
    _check_delta(session)
    return session


def _session_settings(given: dict[str, str], local: bool, kafka: bool) -> dict[str, str]:
    values = {
        **ALWAYS,
        "spark.app.name": "recsys",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.streaming.stateStore.providerClass": (
            "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
        ),
        "spark.ui.showConsoleProgress": "false",
        # A stream runs thousands of small queries. By default the driver would keep the plans of the last thousand.
        "spark.sql.ui.retainedExecutions": "10",
        "spark.ui.retainedJobs": "50",
        "spark.ui.retainedStages": "50",
    }
    if local:
        values |= _local_settings()
    values |= given
    if local:
        log_settings = resources.files("recsys") / "conf" / "log4j2.properties"
        brought = ",".join(given.get(key, "") for key in (JARS, "spark.driver.extraClassPath"))
        wanted = [] if "delta-spark" in brought else [delta_package()]
        if kafka and "spark-sql-kafka" not in brought:
            wanted.append(kafka_package())
        values[PACKAGES] = ",".join(filter(None, [*wanted, given.get(PACKAGES)]))
        values[OPTIONS] = f"-Dlog4j2.configurationFile={log_settings} {given.get(OPTIONS, '')}".strip()
    return values


def _local_settings() -> dict[str, str]:
    cores = os.cpu_count() or 1
    # In local mode executors are threads of the driver, and all training data passes through it to the model.
    gigabytes = max(1, min(8, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**32))
    return {
        "spark.master": "local[*]",
        "spark.ui.enabled": "false",
        "spark.driver.memory": f"{gigabytes}g",
        "spark.driver.maxResultSize": "0",
        "spark.sql.shuffle.partitions": str(min(cores, 8)),
        # Adaptive execution plans a query again between its stages, which costs more than it saves on small batches.
        "spark.sql.adaptive.enabled": "false",
        # The default of 50 tasks for a Delta log of a few files costs seconds per table on a small machine.
        "spark.databricks.delta.snapshotPartitions": "2",
        # By default VACUUM lists the files of a table with 10,000 tasks, which takes minutes.
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": str(2 * cores),
    }


def _start_spark(values: dict[str, str]) -> None:
    """Start Java and the Spark context; jars that an earlier start has resolved take the place of their packages."""
    packages, given = values[PACKAGES], values.get(JARS, "")
    # Executors that are processes of their own are sent the jars; for threads they are on the class path.
    threads = re.fullmatch(r"local(\[[^\]]*\])?", values["spark.master"]) is not None
    key = " without ".join(filter(None, [packages, values.get("spark.jars.excludes")]))
    with jars.lookup(key) as found:
        if found:
            sent = [] if threads else found
            values |= {PACKAGES: "", JARS: ",".join(filter(None, [given, *sent]))}
        conf = _conf(values)
        context = SparkContext(conf=conf, gateway=start_java(conf, found if threads else []))
        if packages and not found:
            # Spark adds what it has resolved to the jars that were given.
            before, after = (_paths(listed) for listed in (given, context.getConf().get(JARS, "")))
            jars.remember(key, [jar for jar in after if jar not in before])


def _conf(values: dict[str, str]) -> SparkConf:
    conf = SparkConf()
    for key, value in values.items():
        conf.set(key, value)
    return conf


def _paths(listed: str) -> list[str]:
    return [jar.removeprefix("file://") for jar in listed.split(",") if jar]


def _check_delta(session: SparkSession) -> None:
    try:
        DeltaTable.isDeltaTable(session, "/")
    except TypeError as error:  # py4j: a missing class is a "JavaPackage", which is not callable
        raise InputError(
            f"Delta is not on Spark's class path: run spark-submit --packages {delta_package()} ..., "
            "or start the job with python"
        ) from error

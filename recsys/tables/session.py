"""Builds the Spark session: with Delta, in UTC, quiet, and sized for one machine unless a cluster sets its size."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import resources

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.tables import jars
from recsys.tables.cluster import (
    LOCAL,
    is_submitted,
    quiet_java,
    refuse_connect,
    refuse_silent_master,
    refuse_unreachable,
    refuse_unsuitable,
)
from recsys.tables.jars import S3_BUNDLE, delta_package, kafka_package, s3_packages
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
DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}
MASTER, MEMORY, PACKAGES, JARS = "spark.master", "spark.driver.memory", "spark.jars.packages", "spark.jars"
EXCLUDES = "spark.jars.excludes"
SHUFFLE, LISTING = "spark.sql.shuffle.partitions", "spark.sql.sources.parallelPartitionDiscovery.parallelism"
ON_A_CLUSTER = {
    # A micro-batch is small, and each partition of it is a task, a file of the shuffle and a state store of seen ids:
    # Spark's default of 200 is for queries of another size.
    SHUFFLE: "16",
    LISTING: "64",
}
_COMPILER = " ".join(
    [
        # The rules for an event become one method of more than 8,000 bytes, which Java would only interpret (ADR 29).
        "-XX:-DontCompileHugeMethods",
        # Ten times the defaults. The optimizing compiler would take more processor time than all else at the start, for
        # what Spark calls some thousand times as it plans; what runs for every record passes these, too (ADR 37).
        "-XX:Tier4InvocationThreshold=50000",
        "-XX:Tier4MinInvocationThreshold=6000",
        "-XX:Tier4CompileThreshold=150000",
        "-XX:Tier4BackEdgeThreshold=400000",
    ]
)
# Set in sessions of this package, and in no session that a caller has made.
_OURS = "spark.recsys.session"
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
    """Get the session of this package, or start one.

    Where Spark runs already (Databricks, a notebook), it is a session beside that of the caller, whose settings stay as
    they are. `settings.spark` overrides every default; while Spark runs, only settings that can still change are
    applied.

    Raises:
        ConfigError: Spark Connect is asked for.
        InputError: Java is missing or too old, the Delta jar cannot be found, Spark or Delta are not those that were
            tested, Spark does not know the scheme of the storage root, or executors do not see it.
        OutsideDownError: the storage does not answer.
    """
    while _beginning:
        _beginning.pop().result()
    return _build(settings)


def separate_session(settings: Settings) -> SparkSession:
    """A new session beside the current one; without one, Spark is started.

    It shares Spark with the other and begins with its settings, but what is set in it stays in it. Temporary views, and
    the schema that `USE` has chosen, are not shared: to ask for that schema would already change the other's settings.

    Raises:
        InputError: see `build_session`.
    """
    if SparkContext._active_spark_context is None:
        return build_session(settings)
    refuse_connect(settings.spark)
    return _set(session_beside(_current()), settings)


def session_beside(caller: SparkSession) -> SparkSession:
    """A new session with the settings of another, for another thread: Delta notes the last commit in the session."""
    session = caller.newSession()
    for key, value in caller.conf.getAll.items():
        if session.conf.isModifiable(key):
            session.conf.set(key, value)
    session.conf.set(_OURS, "true")
    return session


def _build(settings: Settings) -> SparkSession:
    refuse_connect(settings.spark)
    if SparkContext._active_spark_context is not None:
        current = _current()
        session = _set(current if current.conf.get(_OURS, None) else session_beside(current), settings)
        refuse_unreachable(session, settings.storage.root)
        return session
    values = {**_defaults(settings.spark), **ALWAYS, **DELTA, **settings.spark}
    refuse_silent_master(values.get(MASTER) or SparkConf().get(MASTER, ""))
    if not is_submitted():
        sources = [one.source for one in settings.each_source]
        kafka = any(source.format == "kafka" for source in sources)
        s3 = any(path.startswith("s3a://") for path in (settings.storage.root, *(source.path for source in sources)))
        values |= _start_settings(settings.spark, kafka, s3)
        if SparkContext._gateway is None:
            _start_spark(values)
    session = SparkSession.builder.config(conf=_conf(values)).getOrCreate()
    session.conf.set(_OURS, "true")
    refuse_unsuitable(session, settings.storage.root)
    refuse_unreachable(session, settings.storage.root)
    return session


def _current() -> SparkSession:
    return SparkSession.getActiveSession() or SparkSession.builder.getOrCreate()  # Without options it changes none.


def _set(session: SparkSession, settings: Settings) -> SparkSession:
    for key, value in {**ALWAYS, **settings.spark}.items():
        if session.conf.isModifiable(key):
            session.conf.set(key, value)
    return session


def _defaults(given: dict[str, str]) -> dict[str, str]:
    """What suits the jobs; of a session that was submitted, only what `spark-submit` was not told itself."""
    submitted = {}
    if is_submitted():
        SparkContext._ensure_initialized()
        quiet_java(SparkContext._jvm)
        submitted = dict(SparkConf().getAll())
    values = {
        "spark.app.name": "recsys",
        "spark.sql.streaming.stateStore.providerClass": (
            "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
        ),
        "spark.ui.showConsoleProgress": "false",
        # A stream runs thousands of small queries. By default the driver would keep the plans of the last thousand.
        "spark.sql.ui.retainedExecutions": "10",
        "spark.ui.retainedJobs": "50",
        "spark.ui.retainedStages": "50",
        # All training data passes through the driver to the model.
        "spark.driver.maxResultSize": "0",
        # The default of 50 tasks for a Delta log of a few files costs seconds per table on a small machine.
        "spark.databricks.delta.snapshotPartitions": "2",
    }
    master = given.get(MASTER, submitted.get(MASTER, "local[*]"))
    values |= _one_machine() if LOCAL.fullmatch(master) else ON_A_CLUSTER
    return {key: value for key, value in values.items() if key not in submitted}


def _start_settings(given: dict[str, str], kafka: bool, s3: bool) -> dict[str, str]:
    """What can only be set before Java starts."""
    # In local mode executors are threads of the driver.
    gigabytes = max(1, min(8, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**32))
    log_settings = resources.files("recsys") / "conf" / "log4j2.properties"
    brought = ",".join(given.get(key, "") for key in (JARS, "spark.driver.extraClassPath"))
    wanted = [] if "delta-spark" in brought else [delta_package()]
    if kafka and "spark-sql-kafka" not in brought:
        wanted.append(kafka_package())
    without = [given.get(EXCLUDES, "")]
    if s3 and "hadoop-aws" not in brought:
        wanted += s3_packages()
        without.append(S3_BUNDLE)
    return {
        MASTER: "local[*]",
        MEMORY: f"{gigabytes}g",
        **{key: given[key] for key in (MASTER, MEMORY) if key in given},
        PACKAGES: ",".join(filter(None, [*wanted, given.get(PACKAGES)])),
        **({EXCLUDES: ",".join(filter(None, without))} if any(without) else {}),
        OPTIONS: f"{_COMPILER} -Dlog4j2.configurationFile={log_settings} {given.get(OPTIONS, '')}".strip(),
    }


def _one_machine() -> dict[str, str]:
    cores = os.cpu_count() or 1
    return {
        "spark.ui.enabled": "false",
        SHUFFLE: str(min(cores, 8)),
        # Adaptive execution plans a query again between its stages, which costs more than it saves on small batches.
        "spark.sql.adaptive.enabled": "false",
        # By default VACUUM lists the files of a table with 10,000 tasks, which takes minutes.
        LISTING: str(2 * cores),
    }


def _start_spark(values: dict[str, str]) -> None:
    """Start Java and the Spark context; jars that an earlier start has resolved take the place of their packages."""
    packages, given = values[PACKAGES], values.get(JARS, "")
    # Executors that are processes of their own are sent the jars; for threads they are on the class path.
    threads = LOCAL.fullmatch(values[MASTER]) is not None
    key = " without ".join(filter(None, [packages, values.get(EXCLUDES)]))
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

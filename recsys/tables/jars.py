"""Where the jars of Maven packages lie on this disk: they are resolved once, which takes seconds at every start."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import metadata
from pathlib import Path

import pyspark
from filelock import FileLock
from pyspark.find_spark_home import _find_spark_home

from recsys.version import DELTA_TESTED

logger = logging.getLogger(__name__)

_KEPT = "resolved-jars.json"
S3_BUNDLE = "software.amazon.awssdk:bundle"
# The version that hadoop-aws 3.5.0, of Spark 4.2, asks for.
_AWS_SDK = "2.35.4"


def delta_package() -> str:
    """Maven coordinate of the Delta build that matches the installed Spark and delta-spark."""
    try:
        delta = metadata.version("delta-spark")
    except metadata.PackageNotFoundError:  # A cluster may bring Delta without Python's description of it.
        delta = DELTA_TESTED[1]
    spark_line = ".".join(pyspark.__version__.split(".")[:2])
    return f"io.delta:delta-spark_{spark_line}_2.13:{delta}"


def kafka_package() -> str:
    """Maven coordinate of the Kafka connector of the installed Spark."""
    return f"org.apache.spark:spark-sql-kafka-0-10_2.13:{pyspark.__version__}"


def s3_packages() -> list[str]:
    """Maven coordinates of Hadoop's client of S3, for the Hadoop of the installed Spark, and of what it needs.

    By itself it would ask for `S3_BUNDLE`, which has the clients of all of Amazon's services, in 690 MB.
    """
    hadoop = next(Path(_find_spark_home(), "jars").glob("hadoop-client-api-*.jar")).stem.rpartition("-")[2]
    parts = [f"software.amazon.awssdk:{part}:{_AWS_SDK}" for part in ("s3", "s3-transfer-manager", "sts")]
    return [f"org.apache.hadoop:hadoop-aws:{hadoop}", *parts]


def cache_folder() -> Path:
    """The folder of the user for what can be made again (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recsys-stream"


@contextmanager
def lookup(packages: str) -> Iterator[list[str]]:
    """The jars of packages; an empty list where they must be resolved.

    In that case other processes wait until the context ends, so that two do not download the same file.

    Args:
        packages: Maven coordinates, joined by commas.
    """
    found = _read(packages)
    if found or not packages:
        yield found
        return
    with _locked():
        yield _read(packages)


def remember(packages: str, jars: Sequence[str]) -> None:
    """Note where the jars of packages are, if that can be noted; call it within the context of `lookup`."""
    kept = cache_folder() / _KEPT
    hidden = kept.with_suffix(f".{os.getpid()}.tmp")
    try:
        hidden.write_text(json.dumps({**_all(kept), packages: list(jars)}, indent=1), encoding="utf-8")
        hidden.replace(kept)
    except OSError as error:
        logger.info("every start resolves %s: %s", packages, error)


def _locked() -> AbstractContextManager[object]:
    """The lock of the folder; none where there can be no such folder."""
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
    except OSError:
        return nullcontext()
    return FileLock(cache_folder() / "lock") if os.access(cache_folder(), os.W_OK) else nullcontext()


def _read(packages: str) -> list[str]:
    """The jars of packages if all are still there, else an empty list."""
    jars = _all(cache_folder() / _KEPT).get(packages, [])
    return jars if all(Path(jar).is_file() for jar in jars) else []


def _all(kept: Path) -> dict[str, list[str]]:
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

"""Batch scoring: the champion recommends items to every user it knows, one row each, written in one commit."""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import mlflow
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark import SparkFiles
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys.config import Settings
from recsys.contracts import ITEM, USER
from recsys.registry import artifacts, versions
from recsys.registry.versions import CHAMPION, Version
from recsys.tables import recommendations
from recsys.tables.delta import Tables

if TYPE_CHECKING:
    from recsys.serving import Ranker, Rankings

# Users per task: enough to amortize loading the model, few enough to be repeated after a failure.
USERS_PER_TASK = 50_000
LISTS = f"{USER} STRING, items ARRAY<STRUCT<{ITEM}: STRING, score: DOUBLE>>"


@dataclass(frozen=True)
class Scored:
    """Result of batch scoring.

    Attributes:
        version: the version that made the recommendations.
        users: number of users that have a row now; changed: of those, how many have another list than before.
        seconds: wall time from the download of the model to the commit of the table.
    """

    version: Version
    users: int
    changed: int
    seconds: float


def chosen_version(settings: Settings) -> Version:
    """The version that `recommend.model` names, or the champion.

    An alias is resolved here, once, so that every row names the version that made it.

    Raises:
        RegistryError: there is no such version, or MLflow failed.
        ConfigError: `recommend.model` is not a model's URI.
    """
    uri = settings.recommend.model or f"models:/{settings.mlflow.model_name}@{CHAMPION}"
    return versions.chosen(settings, uri)


def score(tables: Tables, version: Version, settings: Settings) -> Scored:
    """Make the table `recommendations` hold the lists of one version; rows of lists that are the same stay.

    Args:
        tables: where `recommendations` is written; the executors of their session do the work.
        version: from `chosen_version`.
        settings: `recommend.*`.

    Raises:
        RegistryError: MLflow failed.
    """
    start = time.perf_counter()
    archive = _send_to_executors(tables.spark, version)
    users = artifacts.outline(Path(SparkFiles.get(archive))).users
    lists = recommend(tables.spark, archive, users, settings)
    synced = recommendations.sync(tables, _signed(lists, version))
    return Scored(version, users, synced.written, time.perf_counter() - start)


def recommend(spark: SparkSession, archive: str, users: int, settings: Settings) -> DataFrame:
    """Rank items for all users of an artifact, on the executors.

    Args:
        spark: session that has the archive.
        archive: name of the artifact's archive in the session.
        users: number of users of the artifact.
        settings: `recommend.k` and `recommend.exclude_seen`.

    Returns:
        One row per user: `user_id`, `items` best first.
    """
    tasks = max(spark.sparkContext.defaultParallelism, -(-users // USERS_PER_TASK))
    rows = spark.range(0, users, 1, tasks)
    return rows.mapInArrow(_ranking(archive, settings.recommend.k, settings.recommend.exclude_seen), LISTS)


def _send_to_executors(spark: SparkSession, version: Version) -> str:
    """Add a version's artifact to the session, once; return the name under which `SparkFiles` finds its folder.

    It is an archive, because Spark takes folders in local mode only. It is stored with the session's files: executors
    that start later fetch it, too, and it is deleted with the session.
    """
    name = f"model-{hashlib.sha256(f'{version.uri} {version.run_id}'.encode()).hexdigest()[:16]}.zip"
    context = spark.sparkContext
    if not any(archive.endswith(name) for archive in context.listArchives):
        kept = Path(SparkFiles.getRootDirectory(), "models", name)
        kept.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as folder, ZipFile(kept, "w") as archive:  # factors do not compress
            artifact = artifacts.download(version.uri, version.digest, Path(folder))
            for file in artifact.rglob("*"):
                archive.write(file, file.relative_to(artifact))
        context.addArchive(str(kept))
    return name


def _signed(lists: DataFrame, version: Version) -> DataFrame:
    return lists.select(
        USER,
        "items",
        F.lit(version.name).alias("model_name"),
        F.lit(version.version).alias("model_version"),
        F.lit(datetime.now(UTC)).alias("scored_at"),
    )


def _ranking(
    archive: str, k: int, exclude_seen: bool
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def rank(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
        # The artifact's own code ranks, so a version of another kind or an older release scores as it did originally.
        model: Any = mlflow.pyfunc.load_model(SparkFiles.get(archive)).unwrap_python_model()
        ranker: Ranker = model.ranker
        user_ids = _strings(ranker.arrays["user_ids_bytes"], ranker.arrays["user_ids_offsets"])
        item_ids = _strings(ranker.arrays["item_ids_bytes"], ranker.arrays["item_ids_offsets"])
        for batch in batches:
            rows = batch.column(0).to_numpy()
            ranked = ranker.rank(rows, np.full(len(rows), k), np.full(len(rows), exclude_seen))
            yield pa.RecordBatch.from_arrays(
                [user_ids.take(batch.column(0)).cast(pa.string()), _lists(ranked, item_ids)], [USER, "items"]
            )

    return rank


def _strings(text: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> pa.Array:
    """Packed ids as an Arrow array, without a copy and without a Python object per id."""
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(text))


def _lists(ranked: "Rankings", item_ids: pa.Array) -> pa.Array:
    """Rankings as an Arrow array of type list<struct<item_id, score>>."""
    pairs = pa.StructArray.from_arrays(
        [item_ids.take(pa.array(ranked.items)).cast(pa.string()), pa.array(ranked.scores, pa.float64())],
        [ITEM, "score"],
    )
    return pa.ListArray.from_arrays(np.concatenate([[0], np.cumsum(ranked.lengths)]).astype(np.int32), pairs)

"""Batch scoring: a version recommends items to every user it knows, or to given ones, in one commit."""

import hashlib
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from pyspark import SparkFiles
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys.config import Settings
from recsys.contracts import (
    ITEM,
    ITEM_VECTORS,
    LIST_ID,
    PROPENSITY,
    RANKING,
    RECOMMENDATIONS,
    USER,
    USER_VECTORS,
    VECTOR_SCHEMAS,
)
from recsys.errors import ConfigError
from recsys.registry import artifacts, versions
from recsys.registry.artifacts import Outline
from recsys.registry.versions import CHAMPION, Version
from recsys.scoring import workers
from recsys.scoring.figures import ListFigures, coverage, gini
from recsys.scoring.inputs import Inputs
from recsys.scoring.similarity import compares, factors_of
from recsys.scoring.workers import Request
from recsys.tables import recommendations, scoring_runs, vectors
from recsys.tables.delta import Tables
from recsys.tables.scoring_runs import ScoringRun

# Users per task: enough to amortize a start, few enough to be repeated after a failure.
USERS_PER_TASK = 50_000


@dataclass(frozen=True)
class Scored:
    """Result of batch scoring.

    Attributes:
        version: the version that made the recommendations.
        run: what was done, and figures about the lists; a row of `scoring_runs`.
        vectors: vectors that were written, by table.
    """

    version: Version
    run: ScoringRun
    vectors: dict[str, int]


def chosen_version(settings: Settings) -> Version:
    """The version that `recommend.model` names, or the champion.

    An alias is resolved here, once, so that every row names the version that made it.

    Raises:
        RegistryError: there is no such version, or MLflow failed.
        ConfigError: `recommend.model` is not a model's URI.
    """
    uri = settings.recommend.model or f"models:/{settings.mlflow.model_name}@{CHAMPION}"
    return versions.chosen(settings, uri)


def score(tables: Tables, version: Version, settings: Settings, inputs: Inputs | None = None) -> Scored:
    """Make the table `recommendations` hold the lists of one version; rows of lists that are the same stay.

    A row about the run is added to `scoring_runs`.

    Args:
        tables: where the lists are written; the executors of their session do the work.
        version: from `chosen_version`.
        settings: `recommend.*` and `batch_score.*`.
        inputs: frames that take the place of tables that the settings name. If there are `users`, the lists of all
            other users stay as they are.

    Raises:
        RegistryError: MLflow failed.
        InputError: a table that a setting names is not there, or cannot be used. Nothing was written.
        ConfigError: settings contradict one another, or ask for what the version does not have. Nothing was written.
    """
    start = time.perf_counter()
    inputs = (inputs or Inputs()).completed(tables.spark, settings.batch_score)
    archive = _send_to_executors(tables.spark, version)
    outline = artifacts.outline(Path(SparkFiles.get(archive)))
    _refuse_unable(outline, version, settings)
    audience = _audience(tables.spark, archive, outline, inputs)
    request = _request(tables.spark, inputs, settings)
    lists = audience.frame.mapInArrow(workers.ranking(archive, request), workers.LISTS)
    scored_at = datetime.now(UTC)
    synced = recommendations.sync(tables, _signed(lists, version, scored_at), others_stay=inputs.users is not None)
    seconds = time.perf_counter() - start
    totals, figures = _measured(tables, archive, outline, audience, settings.recommend.k)
    run = ScoringRun(
        scored_at,
        version.name,
        version.version,
        users=totals["lists"],
        unknown_users=totals["unknown"],
        users_without_id=audience.without_id,
        changed=synced.written,
        removed=synced.removed,
        short_lists=totals["short"],
        seconds=seconds,
        **asdict(figures),
    )
    scoring_runs.append(tables, run)
    return Scored(version, run, _vectors(tables, archive, outline, version) if settings.batch_score.vectors else {})


@dataclass(frozen=True)
class _Audience:
    """Whom a run scores.

    Attributes:
        frame: what `workers.ranking` takes.
        users: `user_id` of all of them; None where they are all that the version knows.
        without_id: rows that name nobody.
    """

    frame: DataFrame
    users: DataFrame | None
    without_id: int


def _audience(spark: SparkSession, archive: str, outline: Outline, inputs: Inputs) -> _Audience:
    excluded, without_id, users, count = inputs.excluded_lists(), 0, None, outline.users
    if inputs.users is not None:
        rows, count = inputs.users.agg(F.count("*"), F.count(USER)).collect()[0]
        users, without_id = inputs.users.dropna().distinct(), rows - count
    tasks = max(spark.sparkContext.defaultParallelism, -(-count // USERS_PER_TASK))
    frame = spark.range(0, count, 1, tasks) if users is None else users
    if excluded is not None:
        named = frame.mapInArrow(workers.naming(archive), f"{USER} STRING") if users is None else users
        frame = named.join(excluded, USER, "left")
    by_id = users is not None or excluded is not None
    return _Audience(frame.repartition(tasks, USER) if by_id else frame, users, without_id)


def _request(spark: SparkSession, inputs: Inputs, settings: Settings) -> Request:
    allowed, categories = inputs.allowed_ids(), inputs.category_numbers()
    send = spark.sparkContext.broadcast
    return Request(
        settings.recommend.k,
        settings.recommend.exclude_seen,
        None if allowed is None else send(allowed),
        None if categories is None else send(categories),
        settings.batch_score.category_cap,
        settings.batch_score.diversity,
    )


def _refuse_unable(outline: Outline, version: Version, settings: Settings) -> None:
    """Refuse what a version of this kind cannot do."""
    named = f"version {version.version} of {version.name}"
    if settings.batch_score.diversity and not compares(outline.arrays):
        raise ConfigError(
            f"setting 'batch_score.diversity': {named} compares no items; set it to 0, or model.kind to mixture, als, "
            "ncf or cooccurrence"
        )
    if settings.batch_score.vectors and factors_of(outline.arrays) is None:
        raise ConfigError(
            f"setting 'batch_score.vectors': {named} has no factors; set it to false, or model.kind to mixture, als or "
            "ncf"
        )


def _measured(
    tables: Tables, archive: str, outline: Outline, audience: _Audience, k: int
) -> tuple[dict[str, int], ListFigures]:
    """Numbers of lists, and figures about them, from the table that holds them now."""
    lists = tables.read(RECOMMENDATIONS).select(USER, F.col(f"items.{ITEM}").alias("items"))
    if audience.users is not None:
        lists = lists.join(audience.users, USER, "left_semi")
    measured = lists.mapInArrow(workers.measuring(archive, k, audience.users is None), workers.MEASURES)
    sums = measured.groupBy("item").agg(*(F.sum(name).alias(name) for name in ("times", *workers.MEASURED)))
    found = {int(row["item"]): row for row in sums.collect()}
    total = found.pop(workers.ALL, None)
    counts = np.zeros(outline.items, dtype=np.int64)
    counts[list(found)] = [row["times"] for row in found.values()]
    if total is None:
        return dict.fromkeys(("lists", "short", "unknown"), 0), ListFigures(coverage(counts), gini(counts), None, None)
    figures = ListFigures(
        coverage(counts),
        gini(counts),
        total["popularity"] / total["times"] if total["times"] else None,
        total["dissimilarity"] / total["compared"] if total["compared"] else None,
    )
    return {name: int(total[name]) for name in ("lists", "short", "unknown")}, figures


def _vectors(tables: Tables, archive: str, outline: Outline, version: Version) -> dict[str, int]:
    """Write the vectors of a version; returns how many have changed, by table."""
    tables.create_missing(VECTOR_SCHEMAS)
    written = {}
    for name, key, count in ((ITEM_VECTORS, ITEM, outline.items), (USER_VECTORS, USER, outline.users)):
        rows = tables.spark.range(count).mapInArrow(
            workers.reading_vectors(archive, key), f"{key} STRING, vector ARRAY<FLOAT>"
        )
        written[name] = vectors.sync(tables, name, _stamped(rows, version)).written
    return written


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


def _signed(lists: DataFrame, version: Version, scored_at: datetime) -> DataFrame:
    stamped = _stamped(lists, version).withColumn("scored_at", F.lit(scored_at))
    parts = [F.lit(f"{version.name}/{version.version}"), F.col(RANKING), F.format_string("%.6e", PROPENSITY)]
    made = F.sha2(F.concat_ws("\n", USER, "model_name", "model_version", F.lit(scored_at.isoformat())), 256)
    # What `exposure.Origin` reads; no id for a version of an older release, which does not say how it ranked.
    return stamped.withColumn(
        LIST_ID,
        F.concat(parts[0], *(piece for part in [*parts[1:], F.substring(made, 1, 16)] for piece in (F.lit(":"), part))),
    )


def _stamped(rows: DataFrame, version: Version) -> DataFrame:
    return rows.select("*", F.lit(version.name).alias("model_name"), F.lit(version.version).alias("model_version"))

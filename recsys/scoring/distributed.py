"""A version on the executors: it ranks for an audience, and its lists are measured."""

import hashlib
import tempfile
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from pyspark import SparkFiles
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys.config import Settings
from recsys.contracts import (
    EXPLORED_CHANCE,
    EXPLORED_PLACE,
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
from recsys.registry import artifacts
from recsys.registry.artifacts import Outline
from recsys.registry.versions import Version
from recsys.scoring import workers
from recsys.scoring.exploration import EXPLORED_PART, Exploration, Posterior
from recsys.scoring.figures import ListFigures, coverage, gini
from recsys.scoring.inputs import Inputs
from recsys.scoring.similarity import compares, factors_of
from recsys.scoring.workers import Request
from recsys.tables import exposures, log, vectors
from recsys.tables.delta import Tables
from recsys.tables.scoring_runs import ScoringRun

# Users per task: enough to amortize a start, few enough to be repeated after a failure.
USERS_PER_TASK = 50_000
# What was explored before is not counted: preferences change.
_EXPLORED_WITHIN = timedelta(days=28)


@dataclass(frozen=True)
class Audience:
    """Whom a run scores.

    Attributes:
        frame: what `workers.ranking` takes.
        users: `user_id` of all of them; None where they are all that the version knows.
        without_id: rows that name nobody.
    """

    frame: DataFrame
    users: DataFrame | None
    without_id: int


@dataclass(frozen=True)
class DistributedVersion:
    """A version that the executors have.

    Attributes:
        tables: where the lists are.
        version: the version.
        archive: name under which the session has it.
        outline: what it holds.
        k: length of the lists.
        seen: `user_id`, `item_id` of what users have interacted with and lists shall not hold, where the version does
            not carry it.
    """

    tables: Tables
    version: Version
    archive: str
    outline: Outline
    k: int
    seen: DataFrame | None

    @classmethod
    def of(cls, tables: Tables, version: Version, settings: Settings) -> "DistributedVersion":
        """Send a version to the executors, and refuse what it cannot do."""
        archive = send_to_executors(tables.spark, version)
        outline = artifacts.outline(Path(SparkFiles.get(archive)))
        _refuse_unable(outline, version, settings)
        needed = settings.recommend.exclude_seen and not outline.pairs
        seen = log.interacted(tables) if needed else None
        return cls(tables, version, archive, outline, settings.recommend.k, seen)

    def users(self) -> DataFrame:
        """`user_id` of all that it knows."""
        return self._rows(self.outline.users).mapInArrow(workers.naming(self.archive), f"{USER} STRING")

    def audience(self, inputs: Inputs) -> Audience:
        """Whom it scores."""
        if self.seen is not None:
            inputs = inputs.without(self.seen)
        excluded, without_id, users, count = inputs.excluded_lists(), 0, None, self.outline.users
        if inputs.users is not None:
            rows, count = inputs.users.agg(F.count("*"), F.count(USER)).collect()[0]
            users, without_id = inputs.users.dropna().distinct(), rows - count
        frame = self._rows(count) if users is None else users
        if excluded is not None:
            frame = (self.users() if users is None else users).join(excluded, USER, "left")
        by_id = users is not None or excluded is not None
        return Audience(frame.repartition(self._tasks(count), USER) if by_id else frame, users, without_id)

    def lists(self, audience: Audience, request: Request, scored_at: datetime) -> DataFrame:
        """Rows of `recommendations`."""
        request = replace(request, uri=self.version.uri)
        ranked = audience.frame.mapInArrow(workers.ranking(self.archive, request), workers.LISTS)
        chance = 0.0 if request.exploration is None else request.exploration.value.share
        return _signed(ranked, self.version, scored_at, chance)

    def run(self, audience: Audience, scored_at: datetime, seconds: float) -> ScoringRun:
        """The row about a run whose lists have been written; what has changed is left at 0."""
        totals, figures = self._measured(audience)
        return ScoringRun(
            scored_at,
            self.version.name,
            self.version.version,
            users=totals["lists"],
            unknown_users=totals["unknown"],
            users_without_id=audience.without_id,
            changed=0,
            removed=0,
            short_lists=totals["short"],
            seconds=seconds,
            **asdict(figures),
        )

    def vectors(self) -> dict[str, int]:
        """Write its vectors; returns how many have changed, by table."""
        self.tables.create_missing(VECTOR_SCHEMAS)
        written = {}
        for name, key, count in (
            (ITEM_VECTORS, ITEM, self.outline.items),
            (USER_VECTORS, USER, self.outline.users),
        ):
            rows = self.tables.spark.range(count).mapInArrow(
                workers.reading_vectors(self.archive, key), f"{key} STRING, vector ARRAY<FLOAT>"
            )
            written[name] = vectors.sync(self.tables, name, _stamped(rows, self.version)).written
        return written

    def _rows(self, count: int) -> DataFrame:
        return self.tables.spark.range(0, count, 1, self._tasks(count))

    def _tasks(self, count: int) -> int:
        return max(self.tables.spark.sparkContext.defaultParallelism, -(-count // USERS_PER_TASK))

    def _measured(self, audience: Audience) -> tuple[dict[str, int], ListFigures]:
        """Numbers of lists, and figures about them, from the table that holds them now."""
        lists = self.tables.read(RECOMMENDATIONS).select(USER, F.col(f"items.{ITEM}").alias("items"))
        if audience.users is not None:
            lists = lists.join(audience.users, USER, "left_semi")
        measured = lists.mapInArrow(workers.measuring(self.archive, self.k, audience.users is None), workers.MEASURES)
        sums = measured.groupBy("item").agg(*(F.sum(name).alias(name) for name in ("times", *workers.MEASURED)))
        found = {int(row["item"]): row for row in sums.collect()}
        total = found.pop(workers.ALL, None)
        counts = np.zeros(self.outline.items, dtype=np.int64)
        counts[list(found)] = [row["times"] for row in found.values()]
        if total is None:
            return dict.fromkeys(("lists", "short", "unknown"), 0), ListFigures(
                coverage(counts), gini(counts), None, None
            )
        figures = ListFigures(
            coverage(counts),
            gini(counts),
            total["popularity"] / total["times"] if total["times"] else None,
            total["dissimilarity"] / total["compared"] if total["compared"] else None,
        )
        return {name: int(total[name]) for name in ("lists", "short", "unknown")}, figures


def request_of(tables: Tables, inputs: Inputs, settings: Settings, scored_at: datetime) -> Request:
    """What is asked of a version for all users, with what the inputs name on the executors."""
    allowed, categories = inputs.allowed_ids(), inputs.category_numbers()
    send, exploration = tables.spark.sparkContext.broadcast, None
    if settings.batch_score.exploration:
        ids, shown = inputs.explored_ids(), exposures.explored(tables, scored_at - _EXPLORED_WITHIN)
        counts = np.array([shown.items.get(item, (0, 0)) for item in ids], dtype=np.float64).reshape(-1, 2)
        posterior = Posterior.of(ids, counts[:, 0], counts[:, 1], shown.control)
        share, place = settings.batch_score.exploration, (settings.recommend.k - 1) // EXPLORED_PART
        exploration = send(Exploration(share, place, str(settings.seed), posterior))
    return Request(
        settings.recommend.k,
        settings.recommend.exclude_seen,
        None if allowed is None else send(allowed),
        None if categories is None else send(categories),
        settings.batch_score.category_cap,
        settings.batch_score.diversity,
        exploration,
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


def send_to_executors(spark: SparkSession, version: Version) -> str:
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


def _signed(lists: DataFrame, version: Version, scored_at: datetime, exploration: float) -> DataFrame:
    stamped = _stamped(lists, version).withColumn("scored_at", F.lit(scored_at))
    parts = [F.lit(f"{version.name}/{version.version}"), F.col(RANKING), F.format_string("%.6e", PROPENSITY)]
    made = F.sha2(F.concat_ws("\n", USER, "model_name", "model_version", F.lit(scored_at.isoformat())), 256)
    # What `exposure.Origin` reads; no id for a version of an older release, which does not say how it ranked.
    pieces = [piece for part in [*parts[1:], F.substring(made, 1, 16)] for piece in (F.lit(":"), part)]
    chance = F.when(F.isnotnull(EXPLORED_PLACE), F.lit(exploration))
    return stamped.withColumns({LIST_ID: F.concat(parts[0], *pieces, workers.MARK), EXPLORED_CHANCE: chance})


def _stamped(rows: DataFrame, version: Version) -> DataFrame:
    return rows.select("*", F.lit(version.name).alias("model_name"), F.lit(version.version).alias("model_version"))

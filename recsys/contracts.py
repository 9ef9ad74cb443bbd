"""What the packages share: column names, table schemas, step ids and the batch that Spark hands to the model.

Nothing here imports Spark, torch or MLflow, so every package can import it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt

# --- columns -----------------------------------------------------------------------------------------------------

USER = "user_id"
ITEM = "item_id"
EVENT_TYPE = "event_type"
VALUE = "value"
EVENT_TIME = "event_time"
EVENT_ID = "event_id"
LIST_ID = "list_id"
# Number of the source of an event: 0 is `source`, 1 the first of `sources`; only where there are several.
SOURCE = "source"
# What the weights of an event are multiplied by; only where a source has a weight of its own.
SOURCE_WEIGHT = "source_weight"
EVENT_COLUMNS = (USER, ITEM, EVENT_TYPE, VALUE, EVENT_TIME, EVENT_ID, LIST_ID)
# Weights of events are whole multiples of 1 / this. Sums of them below 2^33 are exact, whatever their order.
WEIGHT_PARTS = 2.0**20
# A row of the log holds the events of one hour of event time: old events of a batch decay from their own time,
# under any half-life.
TIME_SLOT_SECONDS = 3600
# Epoch times from here on are milliseconds: as seconds they would lie beyond the year 5138.
MILLISECONDS_FROM = 1e11
# An id of a user or an item has at most so many bytes of UTF-8. It stays in memory, in every snapshot and in every
# version for as long as the model lives, so a few records with a longer text in its place could exhaust the memory.
MAX_ID_BYTES = 1_024
# What readers put in the place of bytes that are no text: with it, different ids would become the same one.
LOST_BYTES = "\ufffd"

GENERATION = "generation"
BATCH = "batch_id"
WEIGHT = "weight"
EVENTS = "events"
IMPRESSIONS = "impressions"
CLICKS = "clicks"
RANKING = "ranking"
PROPENSITY = "propensity"
# The place of a list in which unseen items are explored.
EXPLORED_PLACE = "explored_place"
EXPLORED_CHANCE = "explored_chance"
EXPLORED_ITEM = "explored_item"
EXPLORED_IMPRESSIONS = "explored_impressions"
EXPLORED_CLICKS = "explored_clicks"
CONTROL_IMPRESSIONS = "control_impressions"
CONTROL_CLICKS = "control_clicks"
FIRST_TIME = "first_event_time"
LAST_TIME = "last_event_time"
RAW = "raw"
REASONS = "reasons"
INGESTED_AT = "ingested_at"
DECISIONS = "decisions"
INPUT = "input"
SETTINGS = "settings"
ARTIFACTS = "artifacts"
RECORD = "record"
CONTENT_SPACE = "space"
CONTENT_VECTOR = "vector"
AGAINST = "against"

# --- tables ------------------------------------------------------------------------------------------------------

INTERACTION_LOG = "interaction_log"
INTERACTIONS = "interactions"
QUARANTINE = "quarantine"
MODEL_UPDATES = "model_updates"
RECOMMENDATIONS = "recommendations"
WRITERS = "writers"
UPKEEP = "upkeep"
REQUEUED = "requeued"
ALERTS = "alerts"
TRIALS = "trials"
EXPOSURES = "exposures"
ITEM_CONTENTS = "item_contents"
SCORING_RUNS = "scoring_runs"
ITEM_VECTORS = "item_vectors"
USER_VECTORS = "user_vectors"

_TOTALS = f"""
    {USER} STRING NOT NULL, {ITEM} STRING NOT NULL, {WEIGHT} DOUBLE NOT NULL, {EVENTS} BIGINT NOT NULL,
    {FIRST_TIME} TIMESTAMP NOT NULL, {LAST_TIME} TIMESTAMP NOT NULL, {IMPRESSIONS} BIGINT"""

# Column definitions in Spark SQL. BIGINT and DOUBLE from the start, because widening later breaks change feeds. Columns
# added later come last and are nullable: a table that lacks them gets them when it is opened.
TABLE_SCHEMAS = {
    INTERACTION_LOG: f"{GENERATION} BIGINT NOT NULL, {BATCH} BIGINT NOT NULL, {_TOTALS}",
    INTERACTIONS: _TOTALS,
    QUARANTINE: f"""
        {GENERATION} BIGINT NOT NULL, {BATCH} BIGINT NOT NULL, {RAW} STRING,
        {REASONS} ARRAY<STRING> NOT NULL, {INGESTED_AT} TIMESTAMP NOT NULL, {SOURCE} BIGINT""",
    MODEL_UPDATES: f"""
        {GENERATION} BIGINT NOT NULL, {BATCH} BIGINT NOT NULL, log_version BIGINT NOT NULL, {EVENTS} BIGINT NOT NULL,
        users BIGINT NOT NULL, items BIGINT NOT NULL, duration_ms BIGINT NOT NULL,
        metrics MAP<STRING, DOUBLE> NOT NULL, model_version STRING, state_uri STRING,
        {INGESTED_AT} TIMESTAMP NOT NULL, {DECISIONS} ARRAY<STRING>, {INPUT} STRING,
        {SETTINGS} MAP<STRING, STRING>, {ARTIFACTS} MAP<STRING, STRING>""",
    RECOMMENDATIONS: f"""
        {USER} STRING NOT NULL, items ARRAY<STRUCT<{ITEM}: STRING, score: DOUBLE>> NOT NULL,
        model_name STRING NOT NULL, model_version STRING NOT NULL, scored_at TIMESTAMP NOT NULL,
        {LIST_ID} STRING, {RANKING} STRING, {PROPENSITY} DOUBLE, {EXPLORED_PLACE} BIGINT,
        {EXPLORED_CHANCE} DOUBLE""",
    WRITERS: """
        token BIGINT NOT NULL, revision BIGINT NOT NULL, job STRING NOT NULL, host STRING NOT NULL,
        process BIGINT NOT NULL, since TIMESTAMP NOT NULL, renewed_at TIMESTAMP NOT NULL,
        lease_seconds BIGINT NOT NULL, released BOOLEAN NOT NULL""",
    ALERTS: f"""
        {GENERATION} BIGINT NOT NULL, {BATCH} BIGINT NOT NULL, kind STRING NOT NULL, message STRING NOT NULL,
        value DOUBLE NOT NULL, limit DOUBLE NOT NULL, at TIMESTAMP NOT NULL""",
    TRIALS: f"""
        {GENERATION} BIGINT NOT NULL, {BATCH} BIGINT NOT NULL, {USER} STRING NOT NULL,
        model_name STRING NOT NULL, model_version STRING NOT NULL, {AGAINST} STRING, ndcg DOUBLE NOT NULL,
        ndcg_against DOUBLE, ndcg_popularity DOUBLE NOT NULL, known BOOLEAN NOT NULL,
        {INGESTED_AT} TIMESTAMP NOT NULL""",
    EXPOSURES: f"""
        {GENERATION} BIGINT NOT NULL, {BATCH} BIGINT NOT NULL, {USER} STRING NOT NULL, {LIST_ID} STRING NOT NULL,
        model_name STRING, model_version STRING, {RANKING} STRING, {PROPENSITY} DOUBLE,
        {IMPRESSIONS} BIGINT NOT NULL, {CLICKS} BIGINT NOT NULL, {INGESTED_AT} TIMESTAMP NOT NULL,
        {EXPLORED_ITEM} STRING, {EXPLORED_IMPRESSIONS} BIGINT, {EXPLORED_CLICKS} BIGINT,
        {CONTROL_IMPRESSIONS} BIGINT, {CONTROL_CLICKS} BIGINT""",
    ITEM_CONTENTS: f"""
        {GENERATION} BIGINT NOT NULL, {BATCH} BIGINT NOT NULL, {ITEM} STRING NOT NULL,
        {CONTENT_SPACE} STRING NOT NULL, {CONTENT_VECTOR} BINARY NOT NULL""",
    SCORING_RUNS: """
        scored_at TIMESTAMP NOT NULL, model_name STRING NOT NULL, model_version STRING NOT NULL,
        users BIGINT NOT NULL, unknown_users BIGINT NOT NULL, users_without_id BIGINT NOT NULL,
        changed BIGINT NOT NULL, removed BIGINT NOT NULL, short_lists BIGINT NOT NULL, seconds DOUBLE NOT NULL,
        coverage DOUBLE, gini DOUBLE, popularity_bias DOUBLE, diversity DOUBLE, arm STRING""",
}

# Made by the first run of `batch_score` with `batch_score.vectors`.
VECTOR_SCHEMAS = {
    name: f"""
        {key} STRING NOT NULL, vector ARRAY<FLOAT> NOT NULL, model_name STRING NOT NULL,
        model_version STRING NOT NULL"""
    for name, key in ((ITEM_VECTORS, ITEM), (USER_VECTORS, USER))
}

# Made by the first run of `requeue`: which records of the quarantine have come back, in which file. `record` is the
# SHA-256 of `raw`, and `records` how many rows of a batch have it.
REQUEUED_SCHEMA = f"""
    {GENERATION} BIGINT NOT NULL, {BATCH} BIGINT NOT NULL, {RECORD} STRING NOT NULL, records BIGINT NOT NULL,
    file STRING NOT NULL, requeued_at TIMESTAMP NOT NULL"""

# Made by the first `maintain` or `requeue` under a root in a store of objects: who does the upkeep, as in `writers`.
UPKEEP_SCHEMA = TABLE_SCHEMAS[WRITERS]

# --- values passed between the packages -----------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class StepId:
    """Position of a model in time: its generation, which begins with a rebuild, and the batch id of the checkpoint."""

    generation: int
    batch_id: int

    def __str__(self) -> str:
        return f"{self.generation}-{self.batch_id}"


@dataclass(frozen=True)
class Left:
    """Items that users were shown in a batch, and left: n distinct pairs.

    Attributes:
        user_ids: n ids.
        item_ids: n ids.
        impressions: number of all impressions of the batch, those of items that were not left included.
    """

    user_ids: Sequence[str] = ()
    item_ids: Sequence[str] = ()
    impressions: int = 0


@dataclass(frozen=True)
class Contents:
    """Vectors of items, as a batch brings them: n distinct items.

    Attributes:
        item_ids: n ids.
        vectors: (n, d) int8, see `recsys.serving.content.coded`.
    """

    item_ids: Sequence[str] = ()
    vectors: npt.NDArray[np.int8] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int8))


@dataclass(frozen=True)
class InteractionBatch:
    """One micro-batch, aggregated: one row per (user, item) and hour, sorted by user id, item id and time.

    The sort makes every result independent of the order in which Spark delivered the rows.

    Attributes:
        user_ids: n ids.
        item_ids: n ids.
        weights: (n,) float64, summed event weights; may be negative.
        events: (n,) int64, number of aggregated events.
        times: (n,) float64, time of the last event, seconds since 1970 UTC.
        left: what was shown besides, and had no interaction in the batch.
        contents: vectors of items that had none before it, or another one.
    """

    user_ids: Sequence[str]
    item_ids: Sequence[str]
    weights: npt.NDArray[np.float64]
    events: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64]
    left: Left = Left()
    contents: Contents = Contents()

    def __len__(self) -> int:
        return len(self.user_ids)

    def subset(self, rows: npt.NDArray[np.int64]) -> "InteractionBatch":
        """Some of its rows (n,), ascending."""
        return InteractionBatch(
            [self.user_ids[row] for row in rows.tolist()],
            [self.item_ids[row] for row in rows.tolist()],
            self.weights[rows],
            self.events[rows],
            self.times[rows],
            self.left,
            self.contents,
        )

    @property
    def records(self) -> int:
        """Number of all its events, impressions included."""
        return int(self.events.sum()) + self.left.impressions


@dataclass(frozen=True)
class LedgerRow:
    """One row of the ledger `model_updates`: what one micro-batch did to the model.

    Attributes:
        step: generation and batch id.
        log_version: Delta version of `interaction_log` that holds the batch.
        events: number of events learned; users, items: number of distinct ids among them.
        duration_ms: wall time of the batch up to this row.
        metrics: metrics by name, as they are sent to MLflow (`model/ndcg_at_20`, `spark_seconds`, ...).
        model_version: registered version that was champion when the batch was evaluated.
        state_uri: snapshot of the model saved with this batch, if one was due.
        ingested_at: when Spark planned the batch (UTC); the same when the batch is replayed.
        decisions: how learning was adapted to concept drift, one line per decision with its reason.
        input: fingerprint of what the batch read from the source, see `tables.checkpoint.Plan`.
        settings: `Settings.shaping` of the batch.
        artifacts: SHA-256 of the registered versions that the batch was to measure, by the name of the ranker
            (`champion`, `challenger`, ...).
    """

    step: StepId
    log_version: int
    events: int
    users: int
    items: int
    duration_ms: int
    ingested_at: datetime
    metrics: dict[str, float] = field(default_factory=dict)
    model_version: str | None = None
    state_uri: str | None = None
    decisions: tuple[str, ...] = ()
    input: str | None = None
    settings: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialKey:
    """A trial: which challenger is measured, against which champion.

    Attributes:
        model_name: the registered model.
        version: number of the challenger.
        against: number of the champion; None where there is none.
    """

    model_name: str
    version: str
    against: str | None


@dataclass(frozen=True)
class TrialBatch:
    """What one batch adds to a trial: n evaluated users.

    Attributes:
        key: the trial.
        step: the batch.
        user_ids: n ids.
        ndcg: (n,) float64 of the challenger.
        against: (n,) float64 of the champion; None without one.
        popularity: (n,) float64 of the most popular items.
        known: (n,) bool, whether the champion knew the user; without one, the challenger.
        at: when Spark planned the batch (UTC).
    """

    key: TrialKey
    step: StepId
    user_ids: Sequence[str]
    ndcg: npt.NDArray[np.float64]
    against: npt.NDArray[np.float64] | None
    popularity: npt.NDArray[np.float64]
    known: npt.NDArray[np.bool_]
    at: datetime


@dataclass(frozen=True)
class Alert:
    """The feed of a stream is broken.

    Attributes:
        step: the batch that shows it; of a silence, the last batch before it.
        kind: `quarantine`, `unknown_types`, `duplicates` or `silence`.
        message: what is wrong, and what to do.
        value: what was measured; limit: the setting that it exceeds.
        at: when (UTC): the time of the batch, so that it is the same in a replay.
    """

    step: StepId
    kind: str
    message: str
    value: float
    limit: float
    at: datetime

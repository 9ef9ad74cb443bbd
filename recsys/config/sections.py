"""The sections of the settings about data, storage, the registry and serving; those about learning are in `model`.

`settings` combines, reads and validates them.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from recsys.config.section import Section, TextByKey


class Columns(Section):
    """Names of the columns of the source. `null`: the source has no such column."""

    user_id: str = Field("user_id", description="Column with the user id.")
    item_id: str = Field("item_id", description="Column with the item id.")
    event_type: str | None = Field("event_type", description="Column with the event type, a key of `weights`.")
    value: str | None = Field(
        "value", description="Column with a number, such as a rating, a quantity or a watch time."
    )
    event_time: str = Field(
        "event_time", description="Column with the time: ISO 8601, or epoch seconds or milliseconds."
    )
    event_id: str | None = Field(
        "event_id", description="Column with a unique id, for de-duplication. `null`: no de-duplication."
    )
    list_id: str | None = Field(
        "list_id", description="Column with the `list_id` of the recommendations that an event answers, where it does."
    )


class Source(Section):
    """Where events are read from."""

    format: Literal["json", "csv", "parquet", "delta", "kafka", "cloudFiles"] = Field(
        "json",
        description="Format of the event files, `delta` for a table, or `kafka` for topics. `cloudFiles`: JSON lines "
        "by Auto Loader, on Databricks.",
    )
    path: str = Field(
        "var/events",
        description="Folder of the event files, or a single file; for `delta`, path of the table. Not used by `kafka`.",
    )
    table: str | None = Field(
        None, description="For `delta`: name of the table in the catalog, in place of a path (`catalog.schema.table`)."
    )
    topics: list[str] = Field(
        default_factory=list, description="For `kafka`: the topics; each value is an event as a JSON object."
    )
    options: TextByKey = Field(
        default_factory=dict,
        description="Options passed unchanged to Spark's reader, such as `sep` for CSV or `kafka.bootstrap.servers`. "
        "They are never logged.",
    )
    columns: Columns = Field(default_factory=Columns, description="Names of the columns of your data.")
    max_records_per_batch: PositiveInt | None = Field(
        200_000,
        description="Records per micro-batch, at most and approximately: whole files, estimated from the first one; "
        "exactly for `kafka`. Lower it to update more often; `null`: no limit.",
    )
    default_event_type: str | None = Field(
        None, description="Event type of records without one. Set it where the source has a single type."
    )
    watermark: str = Field(
        "1 hour",
        description="How long an `event_id` is remembered after its first arrival, as a Spark interval. Raise it where "
        "duplicates come late, at a cost in state.",
    )
    earliest_time: datetime = Field(
        datetime(1990, 1, 1, tzinfo=UTC), description="Events before this time are quarantined as implausible."
    )

    @property
    def place(self) -> str:
        """The setting that says where events are, with its value; for people."""
        if self.format == "kafka":
            return f"source.topics {', '.join(self.topics)}"
        return f"source.path {self.path}" if self.table is None else f"source.table {self.table}"

    @model_validator(mode="after")
    def _table_of_delta(self) -> "Source":
        if self.table is not None and self.format != "delta":
            raise ValueError("table is set, and format is not delta")
        return self


class FurtherSource(Source):
    """A further source that feeds the same log, with columns, options and a weight of its own."""

    weight: PositiveFloat = Field(
        1.0,
        description="What the weights of its events are multiplied by. Below 1 where its events say less than those of "
        "`source`.",
    )

    @model_validator(mode="after")
    def _one_watermark(self) -> "FurtherSource":
        if "watermark" in self.model_fields_set:
            raise ValueError("source.watermark holds for all sources: leave it out here")
        return self


class Trigger(Section):
    """When micro-batches run."""

    mode: Literal["available_now", "processing_time"] = Field(
        "available_now",
        description="`available_now`: process what is there, then end. `processing_time`: keep running.",
    )
    interval: str = Field(
        "10 seconds", description="Time between two micro-batches with `processing_time`, as a Spark interval."
    )


class Storage(Section):
    """Where tables, checkpoints, snapshots and the default MLflow database live."""

    root: str = Field(
        "var/recsys",
        description="Folder for everything that the jobs store, or a URI such as `s3a://BUCKET/FOLDER`, "
        "which needs `mlflow.tracking_uri`. One stream per folder.",
    )
    catalog: str | None = Field(
        None, description="`catalog.schema` for the tables; `null`: paths under `storage.root`."
    )
    snapshot_every_batches: PositiveInt = Field(
        20, description="Batches between two snapshots of the model. Lower: faster recovery, more writing."
    )
    refresh_totals_every_batches: PositiveInt = Field(
        50, description="Batches between two refreshes of the totals in `interactions`. Lower: fresher, at more cost."
    )
    lease_seconds: int = Field(
        300,
        ge=10,
        description="Seconds after which another host may take over the tables of a writer that gives no sign of life. "
        "Lower: sooner, with more commits (one in a third of this time).",
    )


class EventWeight(Section):
    """How much one event of a type counts. A bare number sets `weight`."""

    weight: float = Field(description="Weight of one event. Negative for a return or a dislike.")
    value: Literal["ignore", "multiply", "log"] = Field(
        "ignore",
        description="What the value does to the weight. `multiply`: times value. `log`: times log2(1 + value).",
    )
    min_value: float = Field(-1e6, description="Events with a smaller value are quarantined.")
    max_value: float = Field(1e6, description="Events with a larger value are quarantined.")
    impression: bool = Field(
        False,
        description="Whether an event of the type only says that the item was shown. Its weight is 0: it is counted, "
        "and what was shown and left is learned as such.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, given: Any) -> Any:
        if isinstance(given, EventWeight):
            return given
        if not isinstance(given, Mapping):
            return {"weight": given}
        # A negative value has no place under the logarithm: unless told otherwise, the range refuses it.
        return {"min_value": 0.0, **given} if given.get("value") == "log" else given

    @model_validator(mode="after")
    def _range_is_usable(self) -> "EventWeight":
        if self.min_value > self.max_value:
            raise ValueError("min_value is above max_value")
        if self.value == "log" and self.min_value < 0:
            raise ValueError("min_value is below 0, where `value: log` has no weight")
        if self.impression and self.weight:
            raise ValueError("weight is not 0, and impression is true")
        return self


class MLflow(Section):
    """Where runs and model versions are stored."""

    tracking_uri: str | None = Field(
        None, description="URI of the tracking server; `null`: SQLite under `storage.root`."
    )
    experiment: str = Field("recsys", description="Experiment that holds the runs.")
    model_name: str = Field(
        "recsys",
        pattern="^[^'\"]+$",
        description="Name of the registered model (`catalog.schema.model` in Unity Catalog).",
    )
    all_metrics_every_batches: PositiveInt = Field(
        20,
        description="Of a long run, MLflow gets all metrics of one batch in so many, and of the others the ones to "
        "watch; the first batches, ten times so many, have all. The ledger always has all. 1: MLflow, too.",
    )


class Register(Section):
    """When model versions are registered."""

    every_batches: PositiveInt = Field(
        20, description="Batches between two registered versions. Lower: fresher recommendations, more versions."
    )


class Gate(Section):
    """When a challenger becomes champion: it is measured beside it on the batches after its registration."""

    approval: Literal["automatic", "manual"] = Field(
        "automatic",
        description="Who promotes. `automatic`: the stream, by the verdict. `manual`: a person, with `registry "
        "promote`; the verdict is recorded all the same.",
    )
    tolerance: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Relative loss of NDCG@k against the champion that still passes; 0.05 is 5 percent. Lower: more "
        "users have to be measured, so that more versions expire.",
    )
    confidence: float = Field(
        0.95, ge=0.5, lt=1, description="Confidence of a verdict, over all looks at a version together."
    )
    max_batches: PositiveInt = Field(
        20,
        description="Batches on which a version may be measured; then it expires. No other one is registered in the "
        "meantime.",
    )
    min_users: PositiveInt = Field(
        100, description="Users whom the champion knows, that have to be measured. Lower it where there are only few."
    )
    min_coverage: NonNegativeFloat = Field(
        0.5, description="Share of the champion's coverage of the catalog that a version has to have."
    )
    max_user_seconds: PositiveFloat = Field(
        0.1, description="Seconds to rank the items for one user, in bulk, at most, in the fastest batch."
    )
    watch_batches: NonNegativeInt = Field(
        20,
        description="Batches after a promotion by the stream on which the version before is measured beside the new "
        "champion; where that is shown to be worse, the stream goes back. 0: never. With `approval: manual` or on hold "
        "the stream only warns.",
    )


class Evaluation(Section):
    """Prequential (test-then-train) evaluation: each batch is evaluated before it is learned."""

    users_per_batch: PositiveInt = Field(
        500, description="Users evaluated per batch, at most; a seeded sample. Lower: faster batches, more noise."
    )
    first_every_batches: PositiveInt = Field(
        5,
        description="The first version of the stream, which shows what learning is worth, is evaluated on every n-th "
        "batch. A challenger is evaluated on every batch of its trial, the champion and popularity on all.",
    )
    popularity_half_life_days: PositiveFloat = Field(
        7.0,
        description="Half-life, in days, of the popularity that is the baseline and the fallback for unknown users.",
    )


class Recommend(Section):
    """What recommendation lists contain."""

    k: int = Field(
        20, ge=1, le=10_000, description="Items per recommendation list, and the cutoff of the metrics (NDCG@k)."
    )
    exclude_seen: bool = Field(
        True,
        description="Leave out items that the user has interacted with. `false` where users come back to the same "
        "items, as with groceries.",
    )
    model: str | None = Field(
        None,
        description="Version for `batch_score`: `models:/NAME@ALIAS` or `models:/NAME/VERSION`; `null`: the champion.",
    )


class Replay(Section):
    """How `replay_events` turns a data set into a stream of event files."""

    dataset: str = Field("completejourney", description="`completejourney`, or the path of a Parquet or CSV file.")
    until: datetime | None = Field(None, description="Replay only events before this time; `null`: all.")
    events_per_file: PositiveInt = Field(
        12_000, description="Events per file. With `maxFilesPerTrigger: 1`, a file is a micro-batch."
    )
    pause_seconds: NonNegativeFloat = Field(
        0.0, description="Seconds between two files. Above 0, it imitates a live stream."
    )


class ItemColumns(Section):
    """Names of the columns of the catalog. `null`: it has no such column."""

    item_id: str = Field("item_id", description="Column with the item id.")
    title: str | None = Field("title", description="Column with the title.")
    text: str | None = Field("text", description="Column with the description, or more text about the item.")

    attributes: list[str] = Field(
        default_factory=list,
        description="Further columns that say something about an item, such as its category, brand or price; they "
        "become part of its text.",
    )
    vector: str | None = Field(
        None,
        description="Column with a list of numbers for each item, of the same length for all: an embedding of your "
        "own, such as of an image or a sound, which is used in the place of one of the text.",
    )

    @model_validator(mode="after")
    def _some_text(self) -> "ItemColumns":
        if self.title is None and self.text is None and not self.attributes and self.vector is None:
            raise ValueError("title, text and vector are null, and there are no attributes: name at least one column")
        return self


class Adapter(Section):
    """A LoRA adapter of the text encoder, trained by the rebuild job."""

    enabled: bool = Field(
        False, description="Fine-tune the encoder on your interactions in each rebuild. Measure the gain first."
    )
    epochs: PositiveInt = Field(1, description="Epochs over the texts.")
    items: PositiveInt = Field(2_000, description="Training items, at most: those with the most users.")
    rank: PositiveInt = Field(8, description="Rank of the adapter.")
    learning_rate: PositiveFloat = Field(5e-4, description="Learning rate of AdamW.")


class Items(Section):
    """Catalog of items with texts or vectors: cold items get factors from them, and `content` compares items by them.

    Texts need the extra `text`.
    """

    path: str | None = Field(
        None,
        description="Catalog: a Delta table, or a file of Parquet, CSV or JSON lines, one row per item. It is read "
        "again when it changes. `null`: there is none.",
    )
    columns: ItemColumns = Field(default_factory=ItemColumns, description="Names of the columns of the catalog.")
    encoder: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2",
        description="Sentence encoder with safetensors weights: a folder, or a model name of the Hugging Face Hub.",
    )
    min_events: PositiveInt = Field(
        3, description="Users that an item needs before the map from texts to factors is trained on it."
    )
    newest: int = Field(
        500, ge=1, le=4096, description="Items that the map from texts to factors is trained on: the newest ones."
    )
    regularization: PositiveFloat = Field(
        2.0, description="L2 penalty of the map from texts to factors. Raise it where texts say little."
    )
    adapter: Adapter = Field(default_factory=Adapter)

    @property
    def space(self) -> str:
        """Sixteen hex digits that change with what vectors are made of: vectors of two spaces cannot be compared."""
        made_of = [self.encoder, None] if self.columns.vector is None else [None, self.columns.vector]
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]

    @model_validator(mode="after")
    def _no_adapter_of_vectors(self) -> "Items":
        if self.adapter.enabled and self.columns.vector is not None:
            raise ValueError("adapter.enabled adapts the encoder of texts, and columns.vector leaves it out: set one")
        return self

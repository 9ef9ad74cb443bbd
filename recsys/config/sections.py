"""The sections of the settings about data, storage, the registry and recommending; those about learning are in `model`.

`settings` puts them together, reads them, and checks them.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from recsys.config.section import Section


class Columns(Section):
    """How the columns of the source are called. `null` says that the source has no such column."""

    user_id: str = Field("user_id", description="Column with the user's id.")
    item_id: str = Field("item_id", description="Column with the item's id.")
    event_type: str | None = Field("event_type", description="Column with the event type, a key of `weights`.")
    value: str | None = Field("value", description="Column with a number: rating, quantity, watch time.")
    event_time: str = Field("event_time", description="Column with the time: ISO 8601 or epoch seconds/milliseconds.")
    event_id: str | None = Field("event_id", description="Column with a unique id, for de-duplication.")


class Source(Section):
    """Where events come from."""

    format: Literal["json", "csv", "parquet", "delta"] = Field("json", description="Format of the files or table.")
    path: str = Field("var/events", description="Folder of event files, or path of a Delta table.")
    options: dict[str, str] = Field(default_factory=dict, description="Options passed to Spark's reader as they are.")
    columns: Columns = Field(default_factory=Columns, description="Column names of your data.")
    max_records_per_batch: PositiveInt | None = Field(
        200_000,
        description="About how many records a micro-batch takes at most (whole files; measured on a first file).",
    )
    default_event_type: str | None = Field(None, description="Event type of records that carry none.")
    watermark: str = Field(
        "1 hour", description="How long after its first arrival the same `event_id` is still seen as a duplicate."
    )
    earliest_time: datetime = Field(
        datetime(1990, 1, 1, tzinfo=UTC), description="Events before this time are quarantined as absurd."
    )

    @field_validator("options", mode="before")
    @classmethod
    def _options_are_text(cls, options: Any) -> Any:
        """YAML reads `header: true` as a boolean; Spark's options are text."""
        if not isinstance(options, Mapping):
            return options
        return {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in options.items()}


class Trigger(Section):
    """When micro-batches start."""

    mode: Literal["available_now", "processing_time"] = Field(
        "available_now", description="Work off what is there and end, or keep running."
    )
    interval: str = Field("10 seconds", description="Pause between starts, for `processing_time`.")


class Storage(Section):
    """Where tables, checkpoints, snapshots and the default MLflow database live."""

    root: str = Field("var/recsys", description="Folder of everything the jobs keep.")
    catalog: str | None = Field(None, description="`catalog.schema` for the tables, in place of paths under the root.")
    snapshot_every_batches: PositiveInt = Field(20, description="Batches between two snapshots of the model's state.")
    refresh_totals_every_batches: PositiveInt = Field(
        50, description="Batches between two folds of the log into the totals."
    )


class EventWeight(Section):
    """What one event of a type says about the user's interest. A bare number sets `weight`."""

    weight: float = Field(description="Weight of one event; negative for a return or a dislike.")
    value: Literal["ignore", "multiply", "log"] = Field(
        "ignore", description="`multiply`: times the value; `log`: times log2(1 + value); else the value is ignored."
    )
    min_value: float = Field(-1e6, description="A smaller value is quarantined.")
    max_value: float = Field(1e6, description="A larger value is quarantined.")

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
        return self


class MLflow(Section):
    """Where runs and versions are kept."""

    tracking_uri: str | None = Field(None, description="Tracking server; `null`: SQLite under `storage.root`.")
    experiment: str = Field("recsys", description="Experiment of the runs.")
    model_name: str = Field("recsys", description="Registered model (`catalog.schema.model` in Unity Catalog).")


class Register(Section):
    """When versions are made."""

    every_batches: PositiveInt = Field(20, description="Batches between two registered versions.")


class Gate(Section):
    """When a version becomes champion."""

    batches: PositiveInt = Field(10, description="Last batches over which version and champion are compared.")
    tolerance: NonNegativeFloat = Field(
        0.0, description="Relative loss of NDCG@k against the champion that still passes; 0.01 is one percent."
    )


class Evaluation(Section):
    """The score-then-learn figures."""

    users_per_batch: PositiveInt = Field(500, description="Users of a batch that are scored, drawn with the seed.")
    popularity_half_life_days: PositiveFloat = Field(
        7.0, description="Half-life of the popularity that is the baseline, and the answer to unknown users."
    )


class Recommend(Section):
    """What is recommended."""

    k: PositiveInt = Field(20, description="Length of a recommendation list, and of the lists that are measured.")
    exclude_seen: bool = Field(True, description="Leave out what the user already had.")
    model: str | None = Field(
        None, description="Model to score with, as `models:/NAME@ALIAS` or `models:/NAME/VERSION`; `null`: champion."
    )


class Replay(Section):
    """How `replay_events` turns a data set into a stream of event files."""

    dataset: str = Field("completejourney", description="`completejourney`, or the path of a Parquet or CSV file.")
    until: datetime | None = Field(None, description="Only events before this time.")
    events_per_file: PositiveInt = Field(12_000, description="Events in one file; one file is one micro-batch.")
    pause_seconds: NonNegativeFloat = Field(0.0, description="Pause between files, to watch a live stream.")


class ItemColumns(Section):
    """How the columns of the catalogue are called. `null` says that it has no such column."""

    item_id: str = Field("item_id", description="Column with the item's id.")
    title: str | None = Field("title", description="Column with the item's name.")
    text: str | None = Field("text", description="Column with more about the item.")

    @model_validator(mode="after")
    def _some_text(self) -> "ItemColumns":
        if self.title is None and self.text is None:
            raise ValueError("title and text are both null: the catalogue says nothing about its items")
        return self


class Adapter(Section):
    """A LoRA adapter of the text encoder, which the rebuild job trains."""

    enabled: bool = Field(False, description="Let the rebuild job fit the encoder to what users took to.")
    epochs: PositiveInt = Field(1, description="Times that every text is learned from.")
    items: PositiveInt = Field(2_000, description="Items that are learned from, at most: those most users had.")
    rank: PositiveInt = Field(8, description="Rank of what is added to a weight matrix.")
    learning_rate: PositiveFloat = Field(5e-4, description="Step of AdamW.")


class Items(Section):
    """What items say of themselves, so that one that nobody had yet can be recommended (needs the extra `text`)."""

    path: str | None = Field(
        None, description="Catalogue in Parquet, CSV or JSON lines, one row per item; `null`: none."
    )
    columns: ItemColumns = Field(default_factory=ItemColumns, description="Column names of the catalogue.")
    encoder: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2",
        description="Sentence encoder with weights in safetensors: a folder, or the name of a model of the hub.",
    )
    min_events: PositiveInt = Field(3, description="Users that an item must have had for its factors to teach others.")
    newest: int = Field(
        500, ge=1, le=4096, description="Items that teach what new ones will be like: those that appeared last."
    )
    regularization: PositiveFloat = Field(2.0, description="L2 penalty on the map from texts to factors.")
    adapter: Adapter = Field(default_factory=Adapter)

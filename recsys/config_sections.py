"""The sections of the settings: each key with its type, its default and what it means.

`config` puts them together, reads them, and checks them.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)


class Section(BaseModel):
    """Frozen, and strict: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
    fold_every_batches: PositiveInt = Field(50, description="Batches between two folds of the log into the totals.")


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


class Decay(Section):
    """How interest ages."""

    half_life_days: PositiveFloat | None = Field(
        None, description="Days after which an event counts half; `null` keeps all of history alike."
    )


class Neural(Section):
    """Neural collaborative filtering, `model.kind: ncf`; its products have the length `model.factors`."""

    mlp_factors: PositiveInt = Field(32, description="Length of the embeddings that go through the layers.")
    layers: list[PositiveInt] = Field([64, 32, 16], description="Widths of the hidden layers.", min_length=1)
    dropout: float = Field(0.1, ge=0, lt=1, description="Chance that an output of a hidden layer is dropped.")
    regularization: NonNegativeFloat = Field(0.1, description="L2 penalty on what a pair reads from the tables.")
    optimizer: Literal["adam", "adagrad", "ftrl"] = Field("adam", description="How gradients move weights.")
    learning_rate: PositiveFloat = Field(0.002, description="Step of the optimiser, after the warm-up.")
    warmup_steps: PositiveInt = Field(100, description="Steps over which the learning rate rises from 0.")
    decay_steps: PositiveInt = Field(10_000, description="The learning rate falls with 1 / sqrt(1 + steps / this).")
    l1: NonNegativeFloat = Field(0.0, description="L1 penalty, with `optimizer: ftrl`.")
    batch_size: PositiveInt = Field(512, description="Pairs in one gradient, each with its negatives.")
    accumulate: PositiveInt = Field(1, description="Gradients added up for one step.")
    mixed_precision: bool = Field(True, description="Layers in bfloat16, on CUDA.")
    negatives: PositiveInt = Field(4, description="Items drawn, for each pair, from those the user never had.")
    negatives_exponent: NonNegativeFloat = Field(
        0.5, description="Exponent of an item's users in the chance that it is drawn; 0: all items alike."
    )
    replay: NonNegativeFloat = Field(1.0, description="Older pairs that are learnt again for each pair of a batch.")
    replay_recent: PositiveInt = Field(20_000, description="Newest pairs kept for that.")
    replay_reservoir: PositiveInt = Field(100_000, description="Size of the even sample of all pairs kept for that.")
    held_out: float = Field(
        0.02, ge=0, lt=1, description="Share of the pairs never learnt: when to stop is read there."
    )
    passes: PositiveInt = Field(1, description="Times that a batch and its replay are learnt, at most.")
    towers_every_batches: PositiveInt = Field(
        5, description="Batches between two that move the layers; embeddings are moved by every batch."
    )
    frozen: list[Literal["gmf", "mlp", "hidden", "output"]] = Field(
        default_factory=list,
        description="What batches leave as a rebuild made it: embeddings that are multiplied, of the layers, layers.",
    )
    average: float = Field(0.99, ge=0, lt=1, description="What the weights that score keep of themselves at a step.")
    rebuild_epochs: PositiveInt = Field(10, description="Times that a rebuild learns all pairs, at most.")
    rebuild_pairs: PositiveInt = Field(2_000_000, description="Pairs of one such time, at most: a seeded sample.")
    patience: PositiveInt = Field(3, description="Times without progress on what is held out that end a rebuild.")
    teacher: bool = Field(
        True, description="Have an `als` model to start from, to be taught by, and to find candidates."
    )
    distillation: float = Field(0.5, ge=0, le=1, description="Share of the teacher's opinion in what a pair should be.")
    candidates: PositiveInt = Field(200, description="Items per user that are found first and then ranked.")


class Mixture(Section):
    """Several members and what ranks their candidates, `model.kind: mixture`; the members' own settings, too."""

    members: list[Literal["als", "trend", "cooccurrence", "repeat", "ncf"]] = Field(
        ["als", "trend", "cooccurrence", "repeat"],
        description="Who proposes and scores: `trend` always; `repeat` has a say where `score.exclude_seen` is false.",
    )
    half_lives: list[PositiveFloat] = Field(
        [500, 2_000, 8_000, 32_000, 128_000, 512_000],
        min_length=1,
        description="Half-lives of the trend, in events; each is a ranking of its own.",
    )
    segment_half_lives: list[PositiveFloat] = Field(
        [32_000, 128_000],
        description="Half-lives of the trend among users of one group: new ones, those with few events, the others.",
    )
    cooccurrence_half_life: PositiveFloat = Field(
        50_000, description="Events after which it counts half that one item was taken after another."
    )
    recent_items: PositiveInt = Field(20, description="Last items of a user that tell what may follow.")
    neighbours: PositiveInt = Field(64, description="Followers of an item that are remembered.")
    repeats: PositiveInt = Field(128, description="Items of a user that are remembered for taking them again.")
    repeat_half_life_days: PositiveFloat = Field(60.0, description="Days after which having taken an item counts half.")
    candidates: PositiveInt = Field(50, description="Items that a member, and each half-life, proposes to a user.")
    forgetting: float = Field(0.1, gt=0, lt=1, description="Share of what the blend has learnt that a batch costs.")
    regularization: PositiveFloat = Field(
        10.0, description="How strongly the blends of the user groups are drawn to their mean."
    )

    @field_validator("members")
    @classmethod
    def _with_the_trend(cls, members: list[str]) -> list[str]:
        if "trend" not in members or len(set(members)) < len(members):
            raise ValueError("name `trend`, and no member twice")
        return members


class Model(Section):
    """The learner."""

    kind: Literal["mixture", "als", "ncf", "trend", "cooccurrence", "repeat"] = Field(
        "mixture",
        description="`mixture`: several learners and what has ranked best so far; each of the others also by itself.",
    )
    factors: PositiveInt = Field(64, description="Length of a user's and an item's factor vector.")
    alpha: PositiveFloat = Field(4.0, description="Confidence of an observed pair is 1 + alpha * weight.")
    regularization: PositiveFloat = Field(0.003, description="L2 penalty, before the frequency scale.")
    regularization_exponent: NonNegativeFloat = Field(
        1.0, description="Exponent of the frequency scale of the penalty (Rendle et al. 2021); 0 switches it off."
    )
    budget: PositiveFloat = Field(
        40.0, description="Interactions that a batch may read per event, for users and for items, to solve rows again."
    )
    sweeps: PositiveInt = Field(3, description="Alternations over a batch's users and items, at most.")
    settled: NonNegativeFloat = Field(
        0.05, description="Alternating ends when a batch's rows move by less than this share of their length."
    )
    history_cap: PositiveInt = Field(
        65_536, description="Interactions of one row that a solve reads, at most: an even, seeded sample of them."
    )
    rebuild_sweeps: PositiveInt = Field(8, description="Alternations over everything, in a rebuild.")
    chunk_megabytes: PositiveInt = Field(256, description="Bound on the working memory of one solve.")
    neural: Neural = Field(default_factory=Neural)
    mixture: Mixture = Field(default_factory=Mixture)


class Drift(Section):
    """How far the incremental factors may be from what a full solve would give."""

    sample_rows: PositiveInt = Field(100, description="Users, and items, solved anew after each batch to measure it.")
    threshold: PositiveFloat = Field(
        0.5, description="Relative distance past which a batch ends with a sweep over everything."
    )
    shadow_every_batches: NonNegativeInt = Field(
        0, description="Batches between two comparisons with a model rebuilt for that purpose; 0: none."
    )


class Regulation(Section):
    """How the learning answers to a change of tastes, found when batches surprise the model more than they used to."""

    threshold: PositiveFloat = Field(
        4.0, description="What a rise of the surprise adds up to before it counts, in its usual deviations."
    )
    batches: PositiveInt = Field(10, description="Batches after a change until all is as usual again.")
    max_effort: float = Field(
        2.0, ge=1, description="Factor of `model.budget` and `model.sweeps` at first after a change; 1: none."
    )
    max_learning_rate: float = Field(
        2.0, ge=1, description="Factor of the learning rate at first after a change, where there is one; 1: none."
    )
    max_halvings: int = Field(
        4, ge=0, le=16, description="Times that a change halves the history at once, at most; 0: never."
    )
    refresh_every_batches: NonNegativeInt = Field(
        3, description="Batches between two sweeps over everything after a change; 0: none."
    )


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


class Score(Section):
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
    epochs: PositiveInt = Field(1, description="Times that every text is learnt from.")
    items: PositiveInt = Field(2_000, description="Items that are learnt from, at most: those most users had.")
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

"""Typed settings: a YAML file, overridden by the environment, overridden by the command line.

Every key is checked here once; the rest of the code receives frozen objects. A variable `RECSYS__STORAGE__ROOT` sets
`storage.root`; `storage.root=/data` on the command line wins over both.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from recsys.errors import ConfigError

ENVIRONMENT_PREFIX = "RECSYS__"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Columns(_Section):
    """How the columns of the source are called. `null` says that the source has no such column."""

    user_id: str = Field("user_id", description="Column with the user's id.")
    item_id: str = Field("item_id", description="Column with the item's id.")
    event_type: str | None = Field("event_type", description="Column with the event type, a key of `weights`.")
    value: str | None = Field("value", description="Column with a number: rating, quantity, watch time.")
    event_time: str = Field("event_time", description="Column with the time: ISO 8601 or epoch seconds/milliseconds.")
    event_id: str | None = Field("event_id", description="Column with a unique id, for de-duplication.")


class Source(_Section):
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


class Trigger(_Section):
    """When micro-batches start."""

    mode: Literal["available_now", "processing_time"] = Field(
        "available_now", description="Work off what is there and end, or keep running."
    )
    interval: str = Field("10 seconds", description="Pause between starts, for `processing_time`.")


class Storage(_Section):
    """Where tables, checkpoints, snapshots and the default MLflow database live."""

    root: str = Field("var/recsys", description="Folder of everything the jobs keep.")
    catalog: str | None = Field(None, description="`catalog.schema` for the tables, in place of paths under the root.")
    snapshot_every_batches: PositiveInt = Field(20, description="Batches between two snapshots of the model's state.")
    fold_every_batches: PositiveInt = Field(50, description="Batches between two folds of the log into the totals.")


class EventWeight(_Section):
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


class Decay(_Section):
    """How interest ages."""

    half_life_days: PositiveFloat | None = Field(
        None, description="Days after which an event counts half; `null` keeps all of history alike."
    )


class Model(_Section):
    """The learner."""

    kind: Literal["als"] = Field("als", description="`als`: incremental alternating least squares.")
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


class Drift(_Section):
    """How far the incremental factors may be from what a full solve would give."""

    sample_rows: PositiveInt = Field(100, description="Users, and items, solved anew after each batch to measure it.")
    threshold: PositiveFloat = Field(
        0.5, description="Relative distance past which a batch ends with a sweep over everything."
    )
    shadow_every_batches: NonNegativeInt = Field(
        0, description="Batches between two comparisons with a model rebuilt for that purpose; 0: none."
    )


class MLflow(_Section):
    """Where runs and versions are kept."""

    tracking_uri: str | None = Field(None, description="Tracking server; `null`: SQLite under `storage.root`.")
    experiment: str = Field("recsys", description="Experiment of the runs.")
    model_name: str = Field("recsys", description="Registered model (`catalog.schema.model` in Unity Catalog).")


class Register(_Section):
    """When versions are made."""

    every_batches: PositiveInt = Field(20, description="Batches between two registered versions.")


class Gate(_Section):
    """When a version becomes champion."""

    batches: PositiveInt = Field(10, description="Last batches over which version and champion are compared.")
    tolerance: NonNegativeFloat = Field(
        0.0, description="Relative loss of NDCG@k against the champion that still passes; 0.01 is one percent."
    )


class Evaluation(_Section):
    """The score-then-learn figures."""

    users_per_batch: PositiveInt = Field(500, description="Users of a batch that are scored, drawn with the seed.")
    popularity_half_life_days: PositiveFloat = Field(
        7.0, description="Half-life of the popularity that is the baseline, and the answer to unknown users."
    )


class Score(_Section):
    """What is recommended."""

    k: PositiveInt = Field(20, description="Length of a recommendation list, and of the lists that are measured.")
    exclude_seen: bool = Field(True, description="Leave out what the user already had.")
    model: str | None = Field(
        None, description="Model to score with, as `models:/NAME@ALIAS` or `models:/NAME/VERSION`; `null`: champion."
    )


class Replay(_Section):
    """How `replay_events` turns a data set into a stream of event files."""

    dataset: str = Field("completejourney", description="`completejourney`, or the path of a Parquet or CSV file.")
    until: datetime | None = Field(None, description="Only events before this time.")
    events_per_file: PositiveInt = Field(12_000, description="Events in one file; one file is one micro-batch.")
    pause_seconds: NonNegativeFloat = Field(0.0, description="Pause between files, to watch a live stream.")


DEFAULT_WEIGHTS = {
    "view": 1.0,
    "click": 1.0,
    "like": 2.0,
    "add_to_cart": 2.0,
    "purchase": 4.0,
    "rating": 1.0,
    "return": -4.0,
    "hate": -4.0,
}


class Settings(_Section):
    """All settings of all jobs."""

    source: Source = Field(default_factory=Source)
    trigger: Trigger = Field(default_factory=Trigger)
    storage: Storage = Field(default_factory=Storage)
    weights: dict[str, EventWeight] = Field(
        default_factory=lambda: {kind: EventWeight(weight=weight) for kind, weight in DEFAULT_WEIGHTS.items()},
        description="Weight of each event type; a type that is not listed is quarantined.",
        min_length=1,
    )
    decay: Decay = Field(default_factory=Decay)
    model: Model = Field(default_factory=Model)
    drift: Drift = Field(default_factory=Drift)
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model lives.")
    mlflow: MLflow = Field(default_factory=MLflow)
    register_: Register = Field(default_factory=Register, alias="register")
    gate: Gate = Field(default_factory=Gate)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    score: Score = Field(default_factory=Score)
    replay: Replay = Field(default_factory=Replay)
    spark: dict[str, str] = Field(default_factory=dict, description="Extra Spark settings, as they are.")
    seed: NonNegativeInt = Field(0, description="Seed of every random choice.")

    @property
    def tracking_uri(self) -> str:
        """The MLflow tracking URI, the default filled in."""
        return self.mlflow.tracking_uri or f"sqlite:///{Path(self.storage.root).absolute() / 'mlflow.db'}"

    def fingerprint(self) -> str:
        """Sixteen hex digits that change when what the model learns from its events may change."""
        whole = dict.fromkeys(("weights", "decay", "model", "seed"), True)
        some = {"evaluation": {"popularity_half_life_days"}, "drift": {"sample_rows", "threshold"}}
        parts = self.model_dump(mode="json", include={**whole, **some})
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def public_parameters(self) -> dict[str, str]:
        """Settings by dotted key, without those that may carry secrets (reader options, Spark settings, URIs)."""
        values = self.model_dump(mode="json", by_alias=True, exclude={"spark": True, "source": {"options"}})
        values["mlflow"].pop("tracking_uri")
        return dict(_flatten(values))


def load_settings(file: str | Path | None = None, overrides: Iterable[str] = ()) -> Settings:
    """Read, merge and check the settings.

    Args:
        file: YAML file; without one the defaults apply.
        overrides: `key.sub=value` words; values are read as YAML (`null`, `true`, `[1, 2]`).

    Raises:
        ConfigError: the file is missing or no YAML, a key is unknown, or a value has the wrong type.
    """
    environment = [
        f"{name.removeprefix(ENVIRONMENT_PREFIX).replace('__', '.').lower()}={value}"
        for name, value in sorted(os.environ.items())
        if name.startswith(ENVIRONMENT_PREFIX)
    ]
    overrides = list(overrides)
    for word in overrides:
        if "=" not in word:
            raise ConfigError(f"cannot read '{word}': overrides look like storage.root=/data/recsys")
    try:
        layers = [OmegaConf.create() if file is None else _read_yaml(Path(file))]
        layers += [OmegaConf.from_dotlist(environment), OmegaConf.from_dotlist(overrides)]
        merged = OmegaConf.to_container(OmegaConf.merge(*layers), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"cannot read the settings: {_one_line(error)}") from error
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise ConfigError("; ".join(_describe(problem) for problem in error.errors())) from error


def _read_yaml(file: Path) -> DictConfig:
    try:
        loaded = OmegaConf.load(file)
    except FileNotFoundError as error:
        raise ConfigError(f"no configuration file {file}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} is no readable YAML: {_one_line(error)}") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"{file} must hold keys and values, not a list")
    return loaded


def _describe(problem: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown setting '{key}'"
    message = problem["msg"].removeprefix("Value error, ")
    return f"setting '{key}': {message[0].lower()}{message[1:]} (got {problem['input']!r:.80})"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)

"""Typed settings: a YAML file, overridden by environment variables, overridden by the command line.

Settings are validated here once; the rest of the code receives frozen objects. The variable `RECSYS__STORAGE__ROOT`
sets `storage.root`, and `storage.root=/data` on the command line wins over both.
"""

import copy
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    Field,
    NonNegativeInt,
    ValidationError,
)

from recsys.config.experiment import Experiment
from recsys.config.feed import Feed, Quarantine
from recsys.config.fingerprint import shapes
from recsys.config.model import ConceptDrift, Decay, Model, Robustness, Staleness
from recsys.config.operation import Logging, Maintain, Monitoring, Rebuild, Requeue, Serve, Tune
from recsys.config.scoring import BatchScore
from recsys.config.section import Section, TextByKey
from recsys.config.sections import (
    Evaluation,
    EventWeight,
    FurtherSource,
    Gate,
    Items,
    MLflow,
    Recommend,
    Register,
    Replay,
    Source,
    Storage,
    Trigger,
)
from recsys.errors import ConfigError
from recsys.storage import mlflow_database, refuse_unsupported

ENVIRONMENT_PREFIX = "RECSYS__"
# Settings that may hold secrets: never shown, logged or saved with a model.
PRIVATE: dict[str, Any] = {
    "spark": True,
    "source": {"options"},
    "sources": {"__all__": {"options"}},
    "mlflow": {"tracking_uri"},
}
_PRIVATE_KEYS = ("spark", "source.options", "sources", "mlflow.tracking_uri")

DEFAULT_WEIGHTS = {
    "impression": EventWeight(weight=0.0, impression=True),
    "view": EventWeight(weight=1.0),
    "click": EventWeight(weight=1.0),
    "like": EventWeight(weight=2.0),
    "add_to_cart": EventWeight(weight=2.0),
    "purchase": EventWeight(weight=4.0),
    "rating": EventWeight(weight=1.0),
    "return": EventWeight(weight=-4.0),
    "hate": EventWeight(weight=-4.0),
}


# What of an event type shapes the log.
_WEIGHING = tuple(name for name in EventWeight.model_fields if name != "impression")


class Settings(Section):
    """All settings of all jobs."""

    source: Source = Field(default_factory=Source)
    sources: list[FurtherSource] = Field(
        default_factory=list,
        description="Further sources that feed the same log: each with the keys of `source` (but for `watermark`, "
        "which holds for all) and a `weight` that multiplies those of its events. They are fixed for the life of a "
        "stream.",
    )
    trigger: Trigger = Field(default_factory=Trigger)
    storage: Storage = Field(default_factory=Storage)
    quarantine: Quarantine = Field(default_factory=Quarantine)
    feed: Feed = Field(default_factory=Feed)
    weights: dict[str, EventWeight] = Field(
        default_factory=lambda: dict(DEFAULT_WEIGHTS),
        description="Weight of each event type; a type that is not listed is quarantined.",
        min_length=1,
    )
    decay: Decay = Field(default_factory=Decay)
    robustness: Robustness = Field(default_factory=Robustness)
    model: Model = Field(default_factory=Model)
    staleness: Staleness = Field(default_factory=Staleness)
    concept_drift: ConceptDrift = Field(default_factory=ConceptDrift)
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the model is kept and trained. `auto`: CUDA when there is a GPU."
    )
    mlflow: MLflow = Field(default_factory=MLflow)
    register_: Register = Field(default_factory=Register, alias="register")
    gate: Gate = Field(default_factory=Gate)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    recommend: Recommend = Field(default_factory=Recommend)
    batch_score: BatchScore = Field(default_factory=BatchScore)
    experiment: Experiment = Field(default_factory=Experiment)
    items: Items = Field(default_factory=Items)
    logging: Logging = Field(default_factory=Logging)
    monitoring: Monitoring = Field(default_factory=Monitoring)
    serve: Serve = Field(default_factory=Serve)
    replay: Replay = Field(default_factory=Replay)
    maintain: Maintain = Field(default_factory=Maintain)
    rebuild: Rebuild = Field(default_factory=Rebuild)
    requeue: Requeue = Field(default_factory=Requeue)
    tune: Tune = Field(default_factory=Tune)
    spark: TextByKey = Field(
        default_factory=dict, description="Extra Spark settings; they win over the defaults of the session."
    )
    seed: NonNegativeInt = Field(
        0, description="Seed of every random choice. Change it to see how much results vary by chance."
    )

    @property
    def uses_contents(self) -> bool:
        """Whether the model learns from vectors of items."""
        kinds = self.model.mixture.members if self.model.kind == "mixture" else [self.model.kind]
        return "content" in kinds

    @property
    def each_source(self) -> "list[Settings]":
        """The settings for each source by itself, `source` first."""
        return [self.model_copy(update={"source": one, "sources": []}) for one in (self.source, *self.sources)]

    @property
    def tracking_uri(self) -> str:
        """The MLflow tracking URI, or the default database."""
        return self.mlflow.tracking_uri or f"sqlite:///{mlflow_database(self.storage.root)}"

    def shaping(self) -> dict[str, str]:
        """Settings that influence the log or what the model learns, by dotted key.

        These are `model.kind`, and what differs from the defaults of what that kind uses. Types of impressions are not
        among them: they add nothing to what was learned before, so they may be named later.
        """
        default = Settings()
        own, defaults = _json_values(self), _json_values(default)
        counting, usual = (
            {kind: one for kind, one in of.weights.items() if not one.impression} for of in (self, default)
        )
        told = {} if counting == usual else {f"weights.{kind}.{name}" for kind in counting for name in _WEIGHING}
        own = {key: value for key, value in own.items() if key in told or not key.startswith("weights.")}
        kind, members = self.model.kind, self.model.mixture.members
        return {
            key: value
            for key, value in sorted(own.items())
            if shapes(key, kind, members)
            and (key == "model.kind" or key.startswith("weights.") or value != defaults[key])
        }

    def fingerprint(self) -> str:
        """Sixteen hex digits that change with every setting that influences what the model learns."""
        return hashlib.sha256(json.dumps(self.shaping()).encode()).hexdigest()[:16]

    def public_parameters(self) -> dict[str, str]:
        """Settings by dotted key, without those that may hold secrets (reader options, Spark settings, URIs)."""
        return dict(_flatten(self.model_dump(mode="json", by_alias=True, exclude=PRIVATE)))


def load_settings(file: str | Path | Sequence[str | Path] | None = None, overrides: Iterable[str] = ()) -> Settings:
    """Read, merge and validate the settings.

    Args:
        file: YAML file, or several, of which a later one overrides those before; None for the defaults.
        overrides: `key.sub=value` arguments; values are parsed as YAML (`null`, `true`, `[1, 2]`).

    Raises:
        ConfigError: the file is missing or not valid YAML, a key is unknown, or a value has the wrong type.
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
        files = [file] if isinstance(file, str | Path) else file or []
        layers = [OmegaConf.create(), *(_read_yaml(Path(one)) for one in files)]
        layers += [OmegaConf.from_dotlist(environment), OmegaConf.from_dotlist(overrides)]
        merged = OmegaConf.to_container(OmegaConf.merge(*layers), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"cannot read the settings: {_one_line(error)}") from error
    return check_settings(merged)


def as_settings(given: Settings | Mapping[str, Any] | None) -> Settings:
    """Settings as a caller in Python gives them.

    Args:
        given: Settings; or values by dotted key, `{"model.factors": 32}`, for what differs from the defaults; None: the
            defaults.

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type.
    """
    if isinstance(given, Settings):
        return given
    if not isinstance(given, Mapping | None):
        raise ConfigError(f"settings are {{'key.sub': value}} or a Settings, not {type(given).__name__}")
    return check_settings(nested(given or {}))


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key as sections within sections, as a file of settings has them.

    Raises:
        ConfigError: a key is set as a whole, and in parts too.
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = str(key).split(".")
        place = found
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"setting '{key}': '{section}' is set as a whole, too")
        if last in place:
            raise ConfigError(f"setting '{key}' is set as a whole, and in parts too")
        # The caller's own dictionary is not written to.
        place[last] = copy.deepcopy(value)
    return found


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """The settings, with some values by dotted key in the place of others.

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type.
    """
    whole = settings.model_dump(by_alias=True)
    for key, value in values.items():
        *sections, last = key.split(".")
        place = whole
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"setting '{key}': '{section}' has no parts")
        place[last] = value
    return check_settings(whole)


def check_settings(values: Any) -> Settings:
    """Settings from nested values.

    Raises:
        ConfigError: a key is unknown, a value has the wrong type, or `storage.root` is not supported.
    """
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_describe(problem) for problem in error.errors())) from error
    refuse_unsupported(settings.storage.root, settings.mlflow.tracking_uri)
    if settings.uses_contents and settings.items.path is None:
        key = "model.kind" if settings.model.kind == "content" else "model.mixture.members"
        raise ConfigError(f"setting '{key}': 'content' needs a catalog of items: set items.path, too")
    return settings


def _read_yaml(file: Path) -> DictConfig:
    try:
        loaded = OmegaConf.load(file)
    except FileNotFoundError as error:
        # In cluster mode the driver runs on another machine than the one that has the file.
        submitted = "PYSPARK_GATEWAY_PORT" in os.environ
        remedy = "; with --deploy-mode cluster, send it along with --files, and name it without its folder"
        raise ConfigError(f"no configuration file {file.absolute()}{remedy if submitted else ''}") from error
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
    got = "" if key.startswith(_PRIVATE_KEYS) else f" (got {problem['input']!r:.80})"
    return f"setting '{key}': {message[0].lower()}{message[1:]}{got}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def differences(before: Mapping[str, str], settings: Settings) -> list[str]:
    """What of `Settings.shaping` has changed, as `key (was, is now)`."""
    now, defaults = settings.shaping(), _json_values(Settings())
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    was, now_is = (
        [values.get(key, "not set" if key.startswith("weights.") else defaults.get(key, "not set")) for key in changed]
        for values in (before, now)
    )
    return [f"{key} (was {old}, is {new})" for key, old, new in zip(changed, was, now_is, strict=True)]


def _json_values(settings: Settings) -> dict[str, str]:
    return dict(_flatten(settings.model_dump(mode="json", by_alias=True)))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)

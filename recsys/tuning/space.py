"""The search space: for each kind of learner the few settings that its quality depends on most, and values to try.

The values of a setting are in order, so that the sampler can tell near from far. The configured value is always one of
them. What else there is in `recsys.config.model` bounds cost, or was found to matter little: see ADR 31.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recsys.config import Settings
from recsys.errors import ConfigError

# A value of a setting; None: no decay.
Value = float | None

_HALF_LIFE_DAYS: tuple[Value, ...] = (7, 15, 30, 60, 120, 240, None)
_ALS: dict[str, tuple[Value, ...]] = {
    "decay.half_life_days": _HALF_LIFE_DAYS,
    "model.alpha": (1, 2, 4, 8, 16, 32),
    "model.regularization": (0.0003, 0.001, 0.003, 0.01, 0.03),
    "model.factors": (32, 64, 128),
}
_COOCCURRENCE: dict[str, tuple[Value, ...]] = {
    "model.mixture.cooccurrence_half_life": (5_000, 15_000, 50_000, 150_000, 500_000),
    "model.mixture.recent_items": (5, 10, 20, 40),
}
_REPEAT: dict[str, tuple[Value, ...]] = {"model.mixture.repeat_half_life_days": (15, 30, 60, 120, 240)}
_NCF: dict[str, tuple[Value, ...]] = {
    "decay.half_life_days": _HALF_LIFE_DAYS,
    "model.alpha": (1, 2, 4, 8, 16, 32),
    "model.neural.learning_rate": (0.0005, 0.001, 0.002, 0.004, 0.008),
    "model.neural.regularization": (0.01, 0.03, 0.1, 0.3, 1),
    "model.neural.distillation": (0, 0.25, 0.5, 0.75, 1),
}
# Values by setting, for each `model.kind`.
SPACE: Mapping[str, Mapping[str, tuple[Value, ...]]] = {
    "mixture": {
        "decay.half_life_days": _HALF_LIFE_DAYS,
        "model.alpha": _ALS["model.alpha"],
        "model.regularization": _ALS["model.regularization"],
        "model.mixture.cooccurrence_half_life": _COOCCURRENCE["model.mixture.cooccurrence_half_life"],
        **_REPEAT,
        "model.mixture.candidates": (25, 50, 100, 200),
        "model.mixture.forgetting": (0.03, 0.1, 0.3),
    },
    "als": _ALS,
    "ncf": _NCF,
    "cooccurrence": _COOCCURRENCE,
    "repeat": _REPEAT,
    "sessions": {"model.mixture.session_half_life": (10_000, 30_000, 100_000, 300_000, 1_000_000)},
    "trend": {},
    "content": {},
    "sequence": {},
}
# Settings of a mixture that a member alone uses.
_OF_MEMBER = {
    "decay.half_life_days": {"als", "ncf"},
    "model.alpha": {"als", "ncf"},
    "model.regularization": {"als", "ncf"},
    "model.mixture.cooccurrence_half_life": {"cooccurrence"},
    "model.mixture.repeat_half_life_days": {"repeat"},
}


@dataclass(frozen=True)
class Dimension:
    """A setting that is searched.

    Attributes:
        key: Its dotted key.
        values: Values to try, in order; None, no decay, comes last.
        current: Place of the configured value among them.
    """

    key: str
    values: tuple[Value, ...]
    current: int


def space_of(settings: Settings) -> list[Dimension]:
    """The search space that the settings ask for.

    Args:
        settings: `tune.keys`, the sections model and decay, and `recommend.exclude_seen` are used.

    Raises:
        ConfigError: `tune.keys` names a setting that is not in the space of `model.kind`, or nothing is.
    """
    kind, known = settings.model.kind, _known(settings)
    if not known:
        raise ConfigError(f"model.kind: {kind} has nothing to tune: none of its settings is searched")
    unknown = [key for key in settings.tune.keys if key not in known]
    if unknown:
        raise ConfigError(
            f"tune.keys: '{unknown[0]}' is not searched with model.kind {kind}; these are: {', '.join(known)}"
        )
    chosen = settings.tune.keys or list(known)
    return [_dimension(key, known[key], value_of(settings, key)) for key in dict.fromkeys(chosen)]


def value_of(settings: Settings, key: str) -> Value:
    """The value of a setting by its dotted key."""
    place: Any = settings
    for name in key.split("."):
        place = getattr(place, name)
    value: Value = place
    return value


def _known(settings: Settings) -> dict[str, tuple[Value, ...]]:
    """The space of the kind, without what only absent members of a mixture would use."""
    known, kind = dict(SPACE[settings.model.kind]), settings.model.kind
    if kind != "mixture":
        return known
    members = set(settings.model.mixture.members) - ({"repeat"} if settings.recommend.exclude_seen else set())
    return {key: values for key, values in known.items() if key not in _OF_MEMBER or _OF_MEMBER[key] & members}


def _dimension(key: str, values: Sequence[Value], current: Value) -> Dimension:
    numbers = sorted({*(value for value in values if value is not None), *([] if current is None else [current])})
    ordered: tuple[Value, ...] = (*numbers, None) if None in values or current is None else tuple(numbers)
    return Dimension(key, ordered, ordered.index(current))

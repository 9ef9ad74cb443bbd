"""Which settings shape the log and the model of each kind."""

from collections.abc import Sequence

_ALS = (
    "model.factors",
    "model.alpha",
    "model.regularization",
    "model.regularization_exponent",
    "model.budget",
    "model.sweeps",
    "model.settled",
    "model.history_cap",
    "model.rebuild_sweeps",
    "staleness.sample_rows",
    "staleness.threshold",
)
# Keys, or sections, that each kind of learner depends on.
_OF_KIND = {
    "als": _ALS,
    "ncf": (*_ALS, "model.neural", "recommend.exclude_seen", "rebuild.processes"),
    "trend": ("model.mixture.half_lives", "model.mixture.segment_half_lives"),
    "cooccurrence": (
        "model.mixture.cooccurrence_half_life",
        "model.mixture.recent_items",
        "model.mixture.neighbors",
    ),
    "sessions": ("model.mixture.session_half_life",),
    # What is encoded otherwise is another space.
    "content": ("items.encoder", "items.columns.vector"),
    # The factors that it reads are those of `als`, which counts by itself.
    "sequence": (),
    "repeat": ("model.mixture.repeats", "model.mixture.repeat_half_life_days"),
}
# The re-ranker learns from the quality of lists of that length, and from the items that such lists may contain.
_MIXTURE = (
    "model.mixture.members",
    "model.mixture.candidates",
    "model.mixture.forgetting",
    "model.mixture.regularization",
    "recommend.k",
    "recommend.exclude_seen",
)
_ALL = (
    "weights",
    "model.kind",
    "model.forget_after_days",
    "decay",
    "robustness",
    "concept_drift",
    "seed",
    "evaluation.popularity_half_life_days",
    # In the sample of these users drift is found, and the re-ranker learns from it.
    "evaluation.users_per_batch",
)


def shapes(key: str, kind: str, members: Sequence[str]) -> bool:
    """Whether a setting influences what a model learns.

    Args:
        key: dotted key of the setting.
        kind: `model.kind`.
        members: `model.mixture.members`.
    """
    kinds = members if kind == "mixture" else [kind]
    used = (*_ALL, *(_MIXTURE if kind == "mixture" else ()), *(name for one in kinds for name in _OF_KIND[one]))
    return any(key == name or key.startswith(f"{name}.") for name in used)

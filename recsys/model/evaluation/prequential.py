"""Prequential (test-then-train) evaluation: measure the models on a batch before the batch is learned."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.model.common.arrays import FloatArray, IntArray, offsets_of
from recsys.model.common.randomness import Purpose, generator
from recsys.model.common.sampling import of_sampled_users
from recsys.model.evaluation.metrics import RankingFigures, Relevant, coverage, ranking_figures
from recsys.model.interactions.damping import to_learn
from recsys.model.interactions.vocab import Vocabulary
from recsys.model.recommender import OnlineModel
from recsys.serving import Lists, Ranked
from recsys.serving.shared import SharedScores

_Ranking = Callable[[], Ranked]
# Users of a batch whose relevant items are ranked among all items, which costs several times as much as a list. The
# standard error of their mean AUC is about 0.02, an eighth of the deviation of one user's.
_ORDERED_USERS = 64


class Rival(Protocol):
    """What the live model is compared with: a served version, or another live model."""

    def ranked(self, user_ids: Sequence[str], items: Vocabulary, k: int, seen: Lists, wanted: Lists) -> Ranked:
        """The best live items of n users; see `FrozenModel.ranked`."""


@dataclass(frozen=True)
class BatchEvaluation:
    """What was measured on a batch.

    Attributes:
        figures: see `evaluate`.
        user_ids: the n evaluated users; none where there was nothing to rank.
        ndcg: (n,) NDCG of each of them, by name of the ranker.
        seconds: time that it took to rank for all of them, by name of the ranker.
    """

    figures: dict[str, float]
    user_ids: list[str] = field(default_factory=list)
    ndcg: dict[str, FloatArray] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Sample:
    """Users that are measured.

    Attributes:
        ids: n ids.
        codes: (n,) int64 live codes, -1 for users never seen before.
        relevant: their relevant items in the batch.
        ordered: places of the users of whom all relevant items are ranked.
        seen: live codes of the items that are not recommended to them.
    """

    ids: list[str]
    codes: IntArray
    relevant: Relevant
    ordered: IntArray
    seen: Lists


def evaluate(
    batch: InteractionBatch,
    model: OnlineModel,
    rivals: Mapping[str, Rival],
    settings: Settings,
    step: StepId,
) -> dict[str, float]:
    """Rank the whole catalog for users of a batch, and compare with their interactions in it.

    A user's items with positive weight in the batch are relevant; with `recommend.exclude_seen`, those that the user
    has interacted with before are neither recommended nor relevant. Users without factors get the most popular items.
    Cold items cannot be found, but count as missed.

    Args:
        batch: The batch, not yet learned.
        model: The live model.
        rivals: Other models by name, such as `Rivals`.
        settings: The sections recommend, evaluation, decay and robustness, and the seed, are used.
        step: Generation and number of the batch; they seed the sample of users.

    Returns:
        `NAME/recall_at_K`, `ndcg_at_K`, `precision_at_K`, `f1_at_K`, `auc` and `coverage_at_K`, means over the sampled
        users, for NAME in `model`, `popularity` and the rivals; the same over users known before the batch as
        `NAME_warm/...`. A group without users has no figures. The AUC, which needs the whole order, is a mean over at
        most 64 of the users. `cold_event_share`: share of events whose user or item was unknown; `evaluated_users`:
        size of the sample. Nothing at all for an empty batch.
    """
    return evaluate_users(batch, model, rivals, settings, step).figures


def evaluate_users(
    batch: InteractionBatch,
    model: OnlineModel,
    rivals: Mapping[str, Rival],
    settings: Settings,
    step: StepId,
) -> BatchEvaluation:
    """The same as `evaluate`, with the NDCG of each user."""
    if not len(batch):
        return BatchEvaluation({})
    batch, _ = to_learn(batch, settings)
    users, items = model.users.lookup(batch.user_ids), model.items.lookup(batch.item_ids)
    cold = (users < 0) | (items < 0)
    sample = _draw(batch, users, items, model, settings, step)
    figures = {
        "cold_event_share": float(batch.events[cold].sum() / batch.events.sum()),
        "evaluated_users": float(len(sample.ids)),
    }
    if not len(model.items) or not sample.ids:
        return BatchEvaluation(figures)
    k, wanted = settings.recommend.k, sample.relevant.lists_of(sample.ordered)
    # One more, to see a tie at the end of the list.
    lengths = np.full(len(sample.ids), k + 1)

    def live() -> Ranked:
        return model.scorer().rank(sample.codes, lengths, sample.seen, wanted)

    def popular() -> Ranked:
        return SharedScores(model.popularity.scores().astype(np.float32)).rank(lengths, sample.seen, wanted)

    def served(version: Rival) -> _Ranking:
        return lambda: version.ranked(sample.ids, model.items, k + 1, sample.seen, wanted)

    rankings = {"model": live, "popularity": popular} | {name: served(version) for name, version in rivals.items()}
    # One version may go by two names, as the first that is still champion does: it is measured once.
    measured_by: dict[int, tuple[RankingFigures, float]] = {}
    evaluation = BatchEvaluation(figures, sample.ids)
    for name, ranking in rankings.items():
        version = id(rivals.get(name, ranking))
        if version not in measured_by:
            started = time.perf_counter()
            ranked = ranking()
            seconds = time.perf_counter() - started
            measured_by[version] = ranking_figures(ranked, sample.relevant, k, sample.ordered), seconds
        measured, evaluation.seconds[name] = measured_by[version]
        evaluation.ndcg[name] = measured.ndcg
        for group, chosen in (("", np.ones(len(sample.ids), dtype=bool)), ("_warm", sample.codes >= 0)):
            figures |= _means(f"{name}{group}/", measured, chosen, k, len(model.items))
    return evaluation


def _draw(
    batch: InteractionBatch, users: IntArray, items: IntArray, model: OnlineModel, settings: Settings, step: StepId
) -> _Sample:
    """A seeded sample of the batch's users that have something relevant in it."""
    relevant = batch.weights > 0
    if settings.recommend.exclude_seen:
        known = np.flatnonzero((users >= 0) & (items >= 0))
        relevant[known[model.history.has_pairs(users[known], items[known])]] = False
    everyone = Vocabulary()
    labels = everyone.extend(batch.user_ids)
    rows = np.flatnonzero(relevant & of_sampled_users(labels, batch.weights, settings, step))
    rows = rows[np.argsort(labels[rows], kind="stable")]
    chosen, owners = np.unique(labels[rows], return_inverse=True)
    count = len(chosen)
    drawing = generator(settings.seed, step, Purpose.ORDERED_USERS)
    ordered = np.sort(drawing.permutation(count)[:_ORDERED_USERS])
    found = items[rows] >= 0
    per_user = np.bincount(owners[found], minlength=count)
    named = everyone.ids
    ids = [named[label] for label in chosen.tolist()]
    codes = model.users.lookup(ids)
    return _Sample(
        ids=ids,
        codes=codes,
        relevant=Relevant(offsets_of(per_user), items[rows[found]], np.bincount(owners[~found], minlength=count)),
        ordered=ordered,
        seen=model.seen(codes) if settings.recommend.exclude_seen else Lists.empty(count),
    )


def _means(
    prefix: str, measured: RankingFigures, chosen: npt.NDArray[np.bool_], k: int, items: int
) -> dict[str, float]:
    """Means over the chosen users, (users,), by metric name; nothing if none is chosen."""
    if not chosen.any():
        return {}
    values = {
        f"recall_at_{k}": measured.recall,
        f"ndcg_at_{k}": measured.ndcg,
        f"precision_at_{k}": measured.precision,
        f"f1_at_{k}": measured.f1,
    }
    means = {f"{prefix}{name}": float(value[chosen].mean()) for name, value in values.items()}
    auc = measured.auc[chosen & ~np.isnan(measured.auc)]
    if len(auc):
        means[f"{prefix}auc"] = float(auc.mean())
    means[f"{prefix}coverage_at_{k}"] = coverage(measured.recommended[chosen], items)
    return means

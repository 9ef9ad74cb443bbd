"""Prequential (test-then-train) evaluation: measure the models on a batch before the batch is learned."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.model.common.arrays import IntArray, offsets_of
from recsys.model.common.randomness import Purpose, generator
from recsys.model.evaluation.metrics import RankingFigures, Relevant, coverage, ranking_figures
from recsys.model.interactions.damping import to_learn
from recsys.model.interactions.vocab import Vocabulary
from recsys.model.recommender import OnlineModel

# Users are measured in groups of at most this many scores.
_SCORES_AT_ONCE = 1 << 25

_Scorer = Callable[["_Sample"], torch.Tensor]


class Rival(Protocol):
    """What the live model is compared with: a served version, or another live model."""

    def scores(self, user_ids: Sequence[str], items: Vocabulary) -> torch.Tensor:
        """(n, items) float32 for n users and the live items; see `FrozenModel.scores`."""


@dataclass(frozen=True)
class _Sample:
    """Users that are measured.

    Attributes:
        ids: n ids.
        codes: (n,) int64 live codes, -1 for users never seen before.
        relevant: their relevant items in the batch.
    """

    ids: list[str]
    codes: IntArray
    relevant: Relevant

    def part(self, begin: int, end: int) -> "_Sample":
        """The users begin, ..., end - 1."""
        offsets = self.relevant.offsets[begin : end + 1]
        items = self.relevant.items[offsets[0] : offsets[-1]]
        relevant = Relevant(offsets - offsets[0], items, self.relevant.unknown[begin:end])
        return _Sample(self.ids[begin:end], self.codes[begin:end], relevant)


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
        `NAME_warm/...`. A group without users has no figures. `cold_event_share`: share of events whose user or item
        was unknown; `evaluated_users`: size of the sample. Nothing at all for an empty batch.
    """
    if not len(batch):
        return {}
    batch, _ = to_learn(batch, settings)
    users, items = model.users.lookup(batch.user_ids), model.items.lookup(batch.item_ids)
    cold = (users < 0) | (items < 0)
    sample = _draw(batch, users, items, model, settings, step)
    figures = {
        "cold_event_share": float(batch.events[cold].sum() / batch.events.sum()),
        "evaluated_users": float(len(sample.ids)),
    }
    if not len(model.items) or not sample.ids:
        return figures
    popularity = torch.from_numpy(model.popularity.scores().astype(np.float32))

    def live(part: _Sample) -> torch.Tensor:
        return model.score(part.codes)

    def popular(part: _Sample) -> torch.Tensor:
        return popularity.repeat(len(part.ids), 1)

    def served(version: Rival) -> _Scorer:
        return lambda part: version.scores(part.ids, model.items)

    scorers = {"model": live, "popularity": popular} | {name: served(version) for name, version in rivals.items()}
    # One version may go by two names, as the first that is still champion does: it is measured once.
    measured_by: dict[int, RankingFigures] = {}
    for name, scorer in scorers.items():
        version = id(rivals.get(name, scorer))
        if version not in measured_by:
            measured_by[version] = _measure(sample, scorer, model, settings)
        measured = measured_by[version]
        for group, chosen in (("", np.ones(len(sample.ids), dtype=bool)), ("_warm", sample.codes >= 0)):
            figures |= _means(f"{name}{group}/", measured, chosen, settings.recommend.k, len(model.items))
    return figures


def _draw(
    batch: InteractionBatch, users: IntArray, items: IntArray, model: OnlineModel, settings: Settings, step: StepId
) -> _Sample:
    """A seeded sample of the batch's users that have something relevant in it."""
    relevant = batch.weights > 0
    if settings.recommend.exclude_seen:
        known = np.flatnonzero((users >= 0) & (items >= 0))
        relevant[known[model.history.has_pairs(users[known], items[known])]] = False
    rows = np.flatnonzero(relevant)
    candidates = Vocabulary()
    owners = candidates.extend([batch.user_ids[row] for row in rows.tolist()])
    drawing = generator(settings.seed, step, Purpose.EVALUATED_USERS)
    count = min(settings.evaluation.users_per_batch, len(candidates))
    chosen = np.sort(drawing.choice(len(candidates), count, replace=False))
    number = np.full(len(candidates), -1)
    number[chosen] = np.arange(count)
    kept = number[owners] >= 0
    rows, owners = rows[kept], number[owners[kept]]
    order = np.argsort(owners, kind="stable")
    rows, owners = rows[order], owners[order]
    found = items[rows] >= 0
    per_user = np.bincount(owners[found], minlength=count)
    ids = candidates.ids
    return _Sample(
        ids=[ids[place] for place in chosen],
        codes=model.users.lookup([ids[place] for place in chosen]),
        relevant=Relevant(offsets_of(per_user), items[rows[found]], np.bincount(owners[~found], minlength=count)),
    )


def _measure(sample: _Sample, scorer: _Scorer, model: OnlineModel, settings: Settings) -> RankingFigures:
    """Figures of all users of the sample, computed in groups of bounded memory."""
    group = max(1, _SCORES_AT_ONCE // len(model.items))
    parts = [sample.part(begin, begin + group) for begin in range(0, len(sample.ids), group)]
    measured = []
    for part in parts:
        scores = scorer(part)
        if settings.recommend.exclude_seen:
            model.leave_out_seen(scores, part.codes)
        measured.append(ranking_figures(scores, part.relevant, settings.recommend.k))
    columns = [field.name for field in fields(RankingFigures)]
    return RankingFigures(*(np.concatenate([getattr(figures, name) for figures in measured]) for name in columns))


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
        "auc": measured.auc,
    }
    means = {f"{prefix}{name}": float(value[chosen].mean()) for name, value in values.items()}
    means[f"{prefix}coverage_at_{k}"] = coverage(measured.recommended[chosen], items)
    return means

"""Generated data and slow, obvious versions of what the model computes fast."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.model.als.objective import Objective, training_loss
from recsys.model.als.selection import Selection
from recsys.model.frozen import FrozenModel
from recsys.model.interactions.adjacency import RaggedRows
from recsys.model.interactions.described import Described
from recsys.model.interactions.history import Rows
from recsys.model.interactions.vocab import Vocabulary
from recsys.model.recommender import OnlineModel
from recsys.serving import Lists
from recsys.serving.arrays import ragged_ranges
from recsys.serving.content import coded

DAY = 86_400.0
# Of the vectors of items.
DIMENSIONS = 24


def make_settings(device: str = "cpu", **sections: dict[str, object] | int) -> Settings:
    """Settings of a small model."""
    model = {"kind": "als", "factors": 8, "rebuild_sweeps": 8} | dict(sections.pop("model", {}))
    return Settings.model_validate({"device": device, "model": model, **sections})


def make_batch(rows: Sequence[tuple[str, str, float, float]]) -> InteractionBatch:
    """A batch from (user, item, weight, time), summed by pair and sorted as the pipeline does it."""
    totals: dict[tuple[str, str], tuple[float, int, float]] = {}
    for user, item, weight, time in rows:
        before = totals.get((user, item), (0.0, 0, -np.inf))
        totals[user, item] = (before[0] + weight, before[1] + 1, max(before[2], time))
    pairs = sorted(totals, key=lambda pair: (pair[0].encode(), pair[1].encode()))
    return InteractionBatch(
        user_ids=[user for user, _ in pairs],
        item_ids=[item for _, item in pairs],
        weights=np.array([totals[pair][0] for pair in pairs], dtype=np.float64),
        events=np.array([totals[pair][1] for pair in pairs], dtype=np.int64),
        times=np.array([totals[pair][2] for pair in pairs], dtype=np.float64),
    )


def scores_of(frozen: FrozenModel, users: Sequence[str], items: Vocabulary) -> np.ndarray:
    """(users, live items), out of the longest lists; -inf for items that the version does not know."""
    nothing, scores = Lists.empty(len(users)), np.full((len(users), len(items)), -np.inf, dtype=np.float32)
    ranked = frozen.ranked(users, items, len(items), nothing, nothing)
    owners, places = np.nonzero(ranked.items >= 0)
    scores[owners, ranked.items[owners, places]] = ranked.scores[owners, places]
    return scores


def clustered_batches(batches: int, events: int, seed: int = 0, drift: float = 0.0) -> list[InteractionBatch]:
    """Users and items in planted groups, popular and rare items, new users and items all the time.

    The batch in which an item comes first brings its vector, which is like those of the items of its group.

    Args:
        batches: How many.
        events: Events in each.
        seed: Seed.
        drift: Chance that a user's event comes from the group it moves to half-way.
    """
    generator = np.random.default_rng(seed)
    groups, made = 6, []
    for number in range(batches):
        users = np.minimum(generator.zipf(1.3, events), 60 + 4 * number)
        moved = (generator.random(events) < drift) & (number > batches // 2)
        group = np.where(
            generator.random(events) < 0.85, (users + moved) % groups, generator.integers(groups, size=events)
        )
        items = group + groups * np.minimum(generator.zipf(1.4, events), 20 + number)
        times = number * DAY + np.sort(generator.random(events)) * DAY
        made.append(
            make_batch([(f"u{u}", f"i{i}", 1.0, t) for u, i, t in zip(users, items, times.tolist(), strict=True)])
        )
    catalog = described_groups({item for batch in made for item in batch.item_ids}, groups)
    return [batch for _, batch in catalog.handed_out((StepId(0, number), batch) for number, batch in enumerate(made))]


def described_groups(items: Iterable[str], groups: int = 6) -> Described:
    """A vector of each item: that of its group, with noise."""
    ids = sorted(items)
    centers = np.random.default_rng(0).normal(size=(groups, DIMENSIONS))
    own = [np.random.default_rng(int(item[1:])).normal(size=DIMENSIONS) for item in ids]
    return Described(Vocabulary(ids), coded(centers[[int(item[1:]) % groups for item in ids]] + 0.4 * np.array(own)))


def dense_rows(rows: Rows, others: npt.NDArray[np.float32], objective: Objective) -> npt.NDArray[np.float64]:
    """Each row by its own normal equations over all columns, in float64: the definition, written out."""
    wide = others.astype(np.float64)
    solutions, begin = [], 0
    for length in rows.lengths:
        own = slice(begin, begin + length)
        weights, observed = np.zeros(len(wide)), np.zeros(len(wide), dtype=bool)
        weights[rows.others[own]], observed[rows.others[own]] = rows.weights[own], rows.weights[own] > 0
        confidence = 1 + objective.alpha * np.abs(weights)
        preference = (objective.alpha * np.maximum(weights, 0) + objective.offset * observed) / confidence
        scale = (objective.alpha * np.abs(weights).sum() + len(wide)) ** objective.exponent
        left = wide.T @ (confidence[:, None] * wide) + objective.regularization * scale * np.eye(wide.shape[1])
        solutions.append(np.linalg.solve(left, wide.T @ (confidence * preference)))
        begin += length
    return np.array(solutions).reshape(len(rows.lengths), wide.shape[1])


def select_all(rows: Rows, cap: int | None = None, scale: float = 1.0) -> Selection:
    """A selection of all of `rows`, which lie in their pool one after the other with a gap before each."""
    starts = np.cumsum(rows.lengths + 1) - rows.lengths
    pool = int((rows.lengths + 1).sum())
    others, weights = np.full(pool, -1, dtype=np.int32), np.full(pool, np.nan, dtype=np.float32)
    places = ragged_ranges(starts, rows.lengths)
    others[places], weights[places] = rows.others, rows.weights / scale
    owners = np.repeat(np.arange(len(rows.lengths)), rows.lengths)
    totals = np.bincount(owners, np.abs(rows.weights), minlength=len(rows.lengths))
    table = RaggedRows(starts, rows.lengths, others, weights)
    return Selection.of(table, np.arange(len(starts)), totals, scale, cap, np.random.default_rng(0))


def loss_of(model: OnlineModel) -> float:
    """The training loss of a model over all it has learned."""
    by_user = select_all(model.history.user_rows(np.arange(len(model.users))))
    by_item = select_all(model.history.item_rows(np.arange(len(model.items))))
    als = model.als
    return training_loss(by_user, by_item, als.user_factors, als.item_factors, als.objective)

"""Generated data and slow, obvious versions of what the model computes fast."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recsys.config import Settings
from recsys.contracts import InteractionBatch
from recsys.model.history import Rows
from recsys.model.solve import Penalty

DAY = 86_400.0


def make_settings(device: str = "cpu", **sections: dict[str, object] | int) -> Settings:
    """Settings of a small model."""
    model = {"factors": 8, "rebuild_sweeps": 8} | dict(sections.pop("model", {}))
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


def clustered_batches(batches: int, events: int, seed: int = 0, drift: float = 0.0) -> list[InteractionBatch]:
    """Users and items in planted groups, popular and rare items, new users and items all the time.

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
    return made


def dense_rows(rows: Rows, others: npt.NDArray[np.float32], penalty: Penalty) -> npt.NDArray[np.float64]:
    """Each row by its own normal equations over all columns, in float64: the definition, written out."""
    wide = others.astype(np.float64)
    solutions, begin = [], 0
    for length in rows.lengths:
        own = slice(begin, begin + length)
        weights = np.zeros(len(wide))
        weights[rows.others[own]] = rows.weights[own]
        confidence = 1 + penalty.alpha * np.abs(weights)
        preference = penalty.alpha * np.maximum(weights, 0) / confidence
        scale = (penalty.alpha * np.abs(weights).sum() + len(wide)) ** penalty.exponent
        left = wide.T @ (confidence[:, None] * wide) + penalty.regularization * scale * np.eye(wide.shape[1])
        solutions.append(np.linalg.solve(left, wide.T @ (confidence * preference)))
        begin += length
    return np.array(solutions).reshape(len(rows.lengths), wide.shape[1])

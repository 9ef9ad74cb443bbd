"""Lists made slowly, user by user and place by place."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Whole:
    """An order of the catalog for each user, asked for in parts, as a version is."""

    items: int
    orders: Sequence[Sequence[int]]
    scores: Sequence[Sequence[float]]

    def rank(self, rows: np.ndarray, k: np.ndarray, exclude_seen: np.ndarray) -> "Part":
        del exclude_seen
        own = [(self.orders[row][:most], self.scores[row][:most]) for row, most in zip(rows, k, strict=True)]
        return Part(
            np.array([len(items) for items, _ in own], dtype=np.int64),
            np.array([item for items, _ in own for item in items], dtype=np.int64),
            np.array([score for _, scores in own for score in scores], dtype=np.float32),
        )


class WithCandidates(Whole):
    """One that can also rank some items only."""

    def rank_candidates(
        self, rows: np.ndarray, k: np.ndarray, exclude_seen: np.ndarray, candidates: list[np.ndarray]
    ) -> "Part":
        pairs = [
            [pair for pair in zip(self.orders[row], self.scores[row], strict=True) if pair[0] in own]
            for row, own in zip(rows.tolist(), (set(own.tolist()) for own in candidates), strict=True)
        ]
        only = Whole(self.items, *([[pair[side] for pair in own] for own in pairs] for side in (0, 1)))
        return only.rank(np.arange(len(rows)), k, exclude_seen)


@dataclass(frozen=True)
class Part:
    lengths: np.ndarray
    items: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class SimilarityTable:
    """Similarities of all pairs, (items, items)."""

    table: np.ndarray

    @property
    def width(self) -> int:
        return 1

    def among(self, items: np.ndarray):
        users = np.arange(len(items))
        return lambda places: self.table[items[users, places][:, None], items]


def slow_list(
    order: Sequence[int],
    scores: Sequence[float],
    k: int,
    open_items: set[int],
    categories: Sequence[int],
    cap: int | None,
    diversity: float,
    table: np.ndarray,
    pool: int,
) -> list[int]:
    """One user's list; `order` is the whole order of the version, `pool` how many items compete."""
    rest = [(item, float(score)) for item, score in zip(order, scores, strict=True) if item in open_items]
    competing = [score for _, score in rest[:pool]]
    low, span = min(competing, default=0.0), max(competing, default=0.0) - min(competing, default=0.0)
    relevance = {item: (score - low) / span if span else 0.0 for item, score in rest[:pool]}
    chosen: list[int] = []

    def fits(item: int) -> bool:
        same = [other for other in chosen if categories[other] == categories[item]]
        return item not in chosen and (cap is None or categories[item] < 0 or len(same) < cap)

    def worth(item: int) -> float:
        near = max((float(table[item, other]) for other in chosen), default=0.0)
        return (1 - diversity) * relevance[item] - diversity * near

    while len(chosen) < k:
        left = [item for item, _ in rest if fits(item)]
        best = [item for item in left if item in relevance]
        if not left:
            break
        chosen.append(max(best, key=worth) if best and diversity else left[0])
    return chosen

"""The largest of many numbers, without sorting them all.

Which of equal numbers at the edge of a selection are taken is numpy's choice: the same for the same numbers on one kind
of machine. Only `contenders` keeps them all, so that lists that are shown can break ties by the item.
"""

import numpy as np

from .arrays import Array, PairValues


def largest(values: Array, count: int) -> Array:
    """Places (count,) of the largest of values (n,), in no order; `count` is at most n."""
    if not count:
        return np.zeros(0, dtype=np.int64)
    places: Array = np.argpartition(-values, count - 1)[:count]
    return places


def contenders(scores: Array, k: int) -> tuple[Array, Array]:
    """Pairs (row, column) that hold each row's k best finite scores, all those equal to the k-th, and a few more.

    The k-th largest maximum of any disjoint groups of columns is never above the k-th largest score, so comparing with
    it loses nothing; partitioning the maxima is several times faster than partitioning the row.
    """
    width = max(1, scores.shape[1] // (8 * k))
    groups = scores.shape[1] // width
    maxima = scores[:, : width * groups].reshape(len(scores), width, groups).max(axis=1)
    bound = np.partition(maxima, groups - k, axis=1)[:, groups - k]
    # Nothing that is left out (-inf) may come back where fewer than k are left.
    bound = np.maximum(bound, np.finfo(scores.dtype).min)
    flat = np.flatnonzero(scores >= bound[:, None])
    row, column = np.divmod(flat, scores.shape[1])
    return row, column


def best_of_rows(scores: Array, counts: Array, most: int) -> PairValues:
    """Ranks, from 1, of the best counts[i] <= most items of each row i of scores (n, items)."""
    items = scores.shape[1]
    most = min(most, items)
    # The best are among the members of those groups of columns that have the largest best members.
    wide = max(int((items / max(most, 1)) ** 0.5), 1)
    groups = items // wide
    leading = scores[:, : groups * wide].reshape(len(scores), wide, groups).max(axis=1)
    chosen = np.argpartition(leading, groups - most, axis=1)[:, groups - most :] if most < groups else np.arange(groups)
    members = np.broadcast_to(chosen, (len(scores), min(most, groups)))[:, None, :] + groups * np.arange(wide)[:, None]
    rest = np.broadcast_to(np.arange(groups * wide, items), (len(scores), items - groups * wide))
    columns = np.concatenate([members.reshape(len(scores), -1), rest], axis=1)
    values = np.take_along_axis(scores, columns, axis=1)
    best = np.argpartition(values, values.shape[1] - most, axis=1)[:, values.shape[1] - most :]
    order = np.take_along_axis(
        best, np.argsort(-np.take_along_axis(values, best, axis=1), axis=1, kind="stable"), axis=1
    )
    owners, places = np.nonzero(np.arange(most) < counts[:, None])
    keys = np.take_along_axis(columns, order, axis=1)[owners, places] + owners * items
    by_key = np.argsort(keys)
    return PairValues(keys[by_key], places[by_key] + 1, items)

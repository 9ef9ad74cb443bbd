"""The largest of many numbers, without sorting them all.

Which of equal numbers at the edge of a selection are taken is numpy's choice: the same for the same numbers on one kind
of machine. Only `contenders` keeps them all, so that lists that are shown can break ties by the item.
"""

import numpy as np

from .arrays import Array


def largest(values: Array, count: int) -> Array:
    """Places (count,) of the largest of values (n,), in no order; `count` is at most n."""
    if not count:
        return np.zeros(0, dtype=np.int64)
    places: Array = np.argpartition(-values, count - 1)[:count]
    return places


def cut_lists(owners: Array, items: Array, scores: Array, k: Array) -> tuple[Array, Array, Array]:
    """Sort pairs by list, falling score, item; cut each list at its k.

    Args:
        owners, items, scores: (c,) the list of each pair, its item and its score.
        k: (n,) lengths.

    Returns:
        Places of the pairs that stay, in order, their ranks from 0, and the lengths (n,).
    """
    order = np.lexsort((items, -scores, owners))
    owners = owners[order]
    lengths = np.bincount(owners, minlength=len(k))
    ranks = np.arange(len(order)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = ranks < k[owners]
    return order[kept], ranks[kept], np.minimum(lengths, k)


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

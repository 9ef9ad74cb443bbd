"""Compiled walks over the items of users, one user after the other."""

import numpy as np

from .arrays import Array
from .jit import compiled


@compiled
def first_open(
    orders: Array, sizes: Array, k: Array, left_offsets: Array, left_items: Array, item_count: int
) -> tuple[Array, Array]:
    """The first items of an order that are not left out.

    Args:
        orders: (n, m) int32 items, best first; or (1, m), the same for all users.
        sizes: (n,) int64, how many of each row are used.
        k: (n,) int64, wanted lengths.
        left_offsets, left_items: offsets (n + 1,) and int32 items.
        item_count: how many items there are.

    Returns:
        (n, longest k) int64 places in the orders, -1 where there are no more, and the lengths (n,).
    """
    places, lengths = np.full((len(k), max(k.max(), 0)), -1), np.zeros(len(k), np.int64)
    closed = np.zeros(item_count, np.bool_)
    for user in range(len(k)):
        row = user if len(orders) > 1 else 0
        for place in range(left_offsets[user], left_offsets[user + 1]):
            closed[left_items[place]] = True
        length = 0
        for place in range(sizes[user]):
            if length == k[user]:
                break
            if not closed[orders[row, place]]:
                places[user, length] = place
                length += 1
        lengths[user] = length
        for place in range(left_offsets[user], left_offsets[user + 1]):
            closed[left_items[place]] = False
    return places, lengths


@compiled
def at_least(bound_offsets: Array, bounds: Array, offsets: Array, values: Array, counted: Array) -> Array:
    """(w,) int64: how many of a user's values that count, (c,) bool, reach each of the user's bounds (w,)."""
    reached = np.zeros(len(bounds), np.int64)
    for user in range(len(offsets) - 1):
        for one in range(bound_offsets[user], bound_offsets[user + 1]):
            for place in range(offsets[user], offsets[user + 1]):
                reached[one] += counted[place] and values[place] >= bounds[one]
    return reached


@compiled
def looked_up(
    offsets: Array, items: Array, values: Array, asked_offsets: Array, asked: Array, item_count: int
) -> Array:
    """(a,) float64: a user's values (c,) of items at the items asked for, 0 for items without a value."""
    found, dense = np.zeros(len(asked)), np.zeros(item_count)
    for user in range(len(offsets) - 1):
        for place in range(offsets[user], offsets[user + 1]):
            dense[items[place]] = values[place]
        for place in range(asked_offsets[user], asked_offsets[user + 1]):
            found[place] = dense[asked[place]]
        for place in range(offsets[user], offsets[user + 1]):
            dense[items[place]] = 0
    return found


@compiled
def contained(offsets: Array, items: Array, asked_offsets: Array, asked: Array, item_count: int) -> Array:
    """(a,) bool: whether a user's items (c,) hold those asked for."""
    found, held = np.zeros(len(asked), np.bool_), np.zeros(item_count, np.bool_)
    for user in range(len(offsets) - 1):
        for place in range(offsets[user], offsets[user + 1]):
            held[items[place]] = True
        for place in range(asked_offsets[user], asked_offsets[user + 1]):
            found[place] = held[asked[place]]
        for place in range(offsets[user], offsets[user + 1]):
            held[items[place]] = False
    return found


@compiled
def put_first(latest: Array, offsets: Array, items: Array) -> None:
    """Put items, one after the other, at the head of their users' latest items (n, m), which are written.

    The latest items are codes, one higher than the item, newest first, 0 for none; each stands there once.
    """
    for user in range(len(latest)):
        own = latest[user]
        for one in range(offsets[user], offsets[user + 1]):
            code, place = items[one] + 1, 0
            while place < len(own) - 1 and own[place] != code and own[place] != 0:
                place += 1
            for j in range(place, 0, -1):
                own[j] = own[j - 1]
            own[0] = code

"""Compiled loops over the candidates of users: gathered, valued and ranked, one user after the other."""

import numpy as np

from .arrays import Array
from .jit import compiled


@compiled
def chances_of(
    before: Array, weights: Array, neighbors: Array, strengths: Array, scale: float, item_count: int
) -> tuple[Array, Array, Array]:
    """Neighbors of the latest items of users, each with the sum of its strengths.

    Args:
        before: (n, latest) int64, the latest items.
        weights: (n, latest) float64 of each of them, 0 for none.
        neighbors: (items, slots) int32, one higher than the item, 0 for none.
        strengths: (items, slots) float32.
        scale: Multiplies the strengths, in their precision.
        item_count: How many items there are.

    Returns:
        (n,) numbers of neighbors, and of all of them (c,) the items, in the order of their discovery, and the sums.
    """
    room = 1024
    items, sums, total = np.empty(room, np.int32), np.empty(room), 0
    lengths, place_of = np.zeros(len(before), np.int64), np.full(item_count, -1, np.int32)
    for user in range(len(before)):
        begin = total
        if total + before.shape[1] * neighbors.shape[1] > room:
            room = 2 * room + before.shape[1] * neighbors.shape[1]
            items, sums = _grown(items, total, room), _grown(sums, total, room)
        for latest in range(before.shape[1]):
            weight, item = weights[user, latest], before[user, latest]
            if weight <= 0:
                continue
            for slot in range(neighbors.shape[1]):
                other = neighbors[item, slot] - 1
                if other < 0:
                    continue
                # Without a branch, which would be guessed wrong every other time.
                new = place_of[other] < 0
                place = total if new else place_of[other]
                place_of[other], items[place] = place, other
                sums[place] = (0.0 if new else sums[place]) + strengths[item, slot] * scale * weight
                total += new
        for place in range(begin, total):
            place_of[items[place]] = -1
        lengths[user] = total - begin
    return lengths, items[:total], sums[:total]


@compiled
def _grown(array: Array, used: int, room: int) -> Array:
    larger = np.empty(room, array.dtype)
    larger[:used] = array[:used]
    return larger


@compiled
def gathered(
    proposed: Array,
    counts: Array,
    groups: Array,
    leaders: Array,
    leading: Array,
    again_offsets: Array,
    again: Array,
    left_offsets: Array,
    left: Array,
    item_count: int,
) -> tuple[Array, Array, Array, Array, Array]:
    """The candidates of n users, each item once.

    Args:
        proposed: (members, n, most) int32 items, best first.
        counts: (members, n) how many of them each member proposes.
        groups: (n,) group of each user.
        leaders: (groups, most) int32, items for all users of a group, best first.
        leading: (n,) int64 how many of them count.
        again_offsets, again: offsets (n + 1,) and int32 items of the users' own.
        left_offsets, left: offsets (n + 1,) and int32 items that are left out.
        item_count: How many items there are.

    Returns:
        offsets (n + 1,) int64, items (c,) int32, ranks (members, c) int64 from 1, 0 where a member does not propose an
        item, whether a candidate is left out, (c,) bool, and where each of `again` is among the candidates, int64.
    """
    room = int(counts.sum() + leading.sum() + len(again))
    items, ranks = np.empty(room, np.int32), np.zeros((len(proposed), room), np.int64)
    closed, place_of = np.zeros(room, np.bool_), np.full(item_count, -1, np.int32)
    offsets, total, own = np.zeros(counts.shape[1] + 1, np.int64), 0, np.empty(len(again), np.int64)
    for user in range(counts.shape[1]):
        for member in range(len(proposed)):
            for rank in range(counts[member, user]):
                item = proposed[member, user, rank]
                if place_of[item] < 0:
                    place_of[item], items[total] = total, item
                    total += 1
                ranks[member, place_of[item]] = rank + 1
        for place in range(leading[user]):
            item = leaders[groups[user], place]
            if place_of[item] < 0:
                place_of[item], items[total] = total, item
                total += 1
        for place in range(again_offsets[user], again_offsets[user + 1]):
            item = again[place]
            if place_of[item] < 0:
                place_of[item], items[total] = total, item
                total += 1
            own[place] = place_of[item]
        for place in range(left_offsets[user], left_offsets[user + 1]):
            if place_of[left[place]] >= 0:
                closed[place_of[left[place]]] = True
        for place in range(offsets[user], total):
            place_of[items[place]] = -1
        offsets[user + 1] = total
    return offsets, items[:total], ranks[:, :total], closed[:total], own


@compiled
def valued(
    offsets: Array,
    items: Array,
    groups: Array,
    choices: Array,
    bases: Array,
    weights: Array,
    columns: Array,
    own_offsets: Array,
    own_places: Array,
    own_weights: Array,
    own_columns: Array,
    overall: Array,
    opinions: Array,
) -> Array:
    """(c,) float64: the value of each candidate to the ranking that its user is served by.

    Args:
        offsets: (n + 1,) int64 of the users' candidates; items: (c,) int32.
        groups, choices: (n,) group of each user, and number of the ranking: the re-ranker, the trends, the others.
        bases: (groups, items) what the re-ranker makes of an item, whoever the user is.
        weights: (groups, columns) of the features that depend on the user, too, which are `columns` (columns, c).
        own_offsets, own_places: offsets (n + 1,) and places among the candidates, of the users' own items (o,).
        own_weights: (groups, features) of features that are 0 for all other items; `own_columns` (o, features).
        overall: (trends, items) the values of the trends.
        opinions: (others, c) the values of the others.
    """
    values = np.empty(len(items))
    for user in range(len(groups)):
        group, choice = groups[user], choices[user]
        for place in range(offsets[user], offsets[user + 1]):
            if choice == 0:
                value = bases[group, items[place]]
                for column in range(len(columns)):
                    value += weights[group, column] * columns[column, place]
                values[place] = value
            elif choice <= len(overall):
                values[place] = overall[choice - 1, items[place]]
            else:
                values[place] = opinions[choice - 1 - len(overall), place]
        if choice == 0:
            for one in range(own_offsets[user], own_offsets[user + 1]):
                value = 0.0
                for column in range(own_columns.shape[1]):
                    value += own_weights[group, column] * own_columns[one, column]
                values[own_places[one]] += value
    return values


@compiled
def above_among(
    offsets: Array, items: Array, values: Array, closed: Array, wanted_offsets: Array, wanted: Array
) -> Array:
    """(w,) int64: how many candidates that are not left out rank before a wanted item, -1 if it is no candidate."""
    above = np.full(len(wanted), -1)
    for user in range(len(offsets) - 1):
        begin, end = offsets[user], offsets[user + 1]
        for one in range(wanted_offsets[user], wanted_offsets[user + 1]):
            own = begin
            while own < end and items[own] != wanted[one]:
                own += 1
            if own == end:
                continue
            before = 0
            for place in range(begin, end):
                ahead = values[place] > values[own] or (values[place] == values[own] and items[place] < items[own])
                before += ahead and not closed[place]
            above[one] = before
    return above

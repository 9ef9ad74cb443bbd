"""The compiled search for the items of largest inner products: exact, and without a matrix of users and items.

Items stand in panels of `TILE`, longest first. Four users at a time are multiplied with a panel; the products go no
further than a small buffer. Those that can be among a user's best are collected in the user's pool, which is cut down
to about the best k whenever it is full. What is left at the end is computed once more, in double precision. So lists do
not depend on how the fast products were rounded: they are the best by the inner product in double precision, rounded to
float32, of equal ones the first item. That is the same for any number of threads, any blocks of users, and any
processor but for one product in millions.
"""

import numpy as np

from .arrays import Array
from .jit import compiled, compiled_fast

# Items per panel. With 64 factors one panel has 32 KiB; its length is a constant so that loops over it are vectorized.
TILE = 128
# Users that are multiplied at once, and factors: their products stay in registers.
GROUP = 4
# Products that are compared with a bound at once.
_CHUNK = 32
# Bisections of the range of a pool, at most.
_HALVINGS = 30
# Shorter runs are sorted by insertion.
_SHORT = 12

# Users (n, f) and items (all items, f), float32; the multiplied users (groups * d * 4,) and panels (panels, d * 128),
# float32 (see `Products`); order (panels * 128,) int32, the item at each place of the panels, -1 for none; norms
# (panels,), the length of the longest item of each.
Sides = tuple[Array, Array, Array, Array, Array, Array]
# Of each user: wanted length of the list; length of the factors; bound on the error of a fast product.
Needs = tuple[Array, Array, Array]
# Offsets (n + 1,) int64 and items int32 of what is left out, ascending for each user.
Ragged = tuple[Array, Array]


@compiled_fast
def best_products(
    sides: Sides,
    needs: Needs,
    left_out: Ragged,
    wanted: tuple[Array, Array],
    values: Array,
    found: Array,
    above: Array,
) -> Array:
    """Lists of n users, and how many items stand above given scores.

    Args:
        sides, needs, left_out: See above.
        wanted: Offsets (n + 1,) and scores (w,) float64 as `products_at` computes them.
        values: (n, k) float64, the scores of the lists, written.
        found: (n, k) int32, the items of the lists, written.
        above: (w,) int64, number of items whose score is at least the wanted one, written; items left out count, too.

    Returns:
        (n,) int64, lengths of the lists; they are written best first.
    """
    users, items, heads, panels, order, norms = sides
    k, lengths, margins = needs
    left_offsets, left_items = left_out
    wanted_offsets, wanted_scores = wanted
    room = 2 * (values.shape[1] + _CHUNK)
    pool_values, pool_items = np.empty((len(k), room)), np.empty((len(k), room), np.int32)
    sizes, lows = np.zeros(len(k), np.int64), np.full(len(k), -np.inf, np.float32)
    lows[k == 0] = np.inf
    out = np.empty(GROUP * TILE, np.float32)
    bits, low_bits = out.view(np.int32), lows.view(np.int32)
    for panel in range(len(panels)):
        alive = False
        for begin in range(0, len(k), GROUP):
            end = min(begin + GROUP, len(k))
            needed = False
            for user in range(begin, end):
                # Later panels hold shorter items: who has no use for this one has none for them.
                needed |= lengths[user] * norms[panel] >= lows[user] or wanted_offsets[user + 1] > wanted_offsets[user]
            if not needed:
                continue
            alive = True
            _multiply(heads, begin, panels[panel], out)
            for user in range(begin, end):
                start = (user - begin) * TILE
                for one in range(wanted_offsets[user], wanted_offsets[user + 1]):
                    score = wanted_scores[one]
                    above[one] += _count(user, start, panel, out, users, items, order, score, margins[user])
                # Positive numbers are in the order of their bits, and the largest of many integers is found faster.
                if lows[user] > 0 and _largest(bits, start, TILE) < low_bits[user]:
                    continue
                for chunk in range(0, TILE, _CHUNK):
                    if lows[user] > 0 and _largest(bits, start + chunk, _CHUNK) < low_bits[user]:
                        continue
                    place, own = panel * TILE + chunk, out[start + chunk : start + chunk + _CHUNK]
                    _collect(user, own, place, order, left_offsets, left_items, pool_values, pool_items, sizes, lows)
                    if sizes[user] > room - _CHUNK:
                        _cut(user, users, items, k[user], margins[user], pool_values, pool_items, sizes, lows)
        if not alive:
            break
    for user in range(len(k)):
        if sizes[user] > k[user]:
            _cut(user, users, items, k[user], margins[user], pool_values, pool_items, sizes, lows)
        for place in range(sizes[user]):
            pool_values[user, place] = _product(users, user, items, pool_items[user, place])
        _best_first(pool_values[user], pool_items[user], sizes[user], k[user], True)
        sizes[user] = min(sizes[user], k[user])
        for place in range(sizes[user]):
            values[user, place], found[user, place] = pool_values[user, place], pool_items[user, place]
    return sizes


@compiled_fast
def products_at(users: Array, items: Array, offsets: Array, codes: Array) -> Array:
    """(c,) float64, float32 numbers: products of users (n, f) with items codes[offsets[u]:offsets[u + 1]] of each."""
    products = np.empty(len(codes))
    for user in range(len(users)):
        for place in range(offsets[user], offsets[user + 1]):
            products[place] = _product(users, user, items, codes[place])
    return products


@compiled_fast
def all_products(users: Array, items: Array) -> Array:
    """(n, all items) float32 products of users (n, f) with items (all items, f), as `products_at` computes them."""
    products = np.empty((len(users), len(items)), np.float32)
    for item in range(len(items)):
        for user in range(len(users)):
            products[user, item] = _product(users, user, items, item)
    return products


@compiled
def best_of_segments(values: Array, items: Array, offsets: Array, counts: Array, best: Array, found: Array) -> None:
    """The best `counts[u]` of the pairs offsets[u], ..., offsets[u + 1] - 1 of each user u, best first.

    Args:
        values: (c,) float64; items: (c,) int32, distinct for a user.
        offsets: (n + 1,) int64.
        counts: (n,) int64, at most as many as the user has pairs.
        best: (n, k) float64, written as far as the counts go.
        found: (n, k) int32, written as far.
    """
    longest = np.diff(offsets).max() if len(counts) else 0
    own_values, own_items = np.empty(longest + 1), np.empty(longest + 1, np.int32)
    for user in range(len(counts)):
        begin, end, count = offsets[user], offsets[user + 1], counts[user]
        low, length = _low_of_best(values, begin, end, count), 0
        for place in range(begin, end):
            own_values[length], own_items[length] = values[place], items[place]
            length += values[place] >= low
        _best_first(own_values, own_items, length, count, True)
        best[user, :count], found[user, :count] = own_values[:count], own_items[:count]


@compiled_fast
def _multiply(heads: Array, begin: int, panel: Array, out: Array) -> None:
    """Products of four users, from user `begin` on, with a panel: out[user * TILE + place].

    `heads` holds group after group the four users' numbers of one dimension, then of the next. Strides are constants,
    so that the compiler sees that nothing overlaps.
    """
    depth = len(panel) // TILE
    own = heads[begin * depth : (begin + GROUP) * depth]
    out[:] = 0
    for d in range(0, depth, 4):
        a0, a1, a2, a3 = own[4 * d], own[4 * d + 1], own[4 * d + 2], own[4 * d + 3]
        b0, b1, b2, b3 = own[4 * d + 4], own[4 * d + 5], own[4 * d + 6], own[4 * d + 7]
        c0, c1, c2, c3 = own[4 * d + 8], own[4 * d + 9], own[4 * d + 10], own[4 * d + 11]
        e0, e1, e2, e3 = own[4 * d + 12], own[4 * d + 13], own[4 * d + 14], own[4 * d + 15]
        part = panel[d * TILE : (d + 4) * TILE]
        for j in range(TILE):
            x, y, z, w = part[j], part[TILE + j], part[2 * TILE + j], part[3 * TILE + j]
            out[j] += a0 * x + b0 * y + c0 * z + e0 * w
            out[TILE + j] += a1 * x + b1 * y + c1 * z + e1 * w
            out[2 * TILE + j] += a2 * x + b2 * y + c2 * z + e2 * w
            out[3 * TILE + j] += a3 * x + b3 * y + c3 * z + e3 * w


@compiled
def _largest(numbers: Array, begin: int, count: int) -> int:
    """The largest of `count` numbers from a place on."""
    largest = numbers[begin]
    for j in range(begin, begin + count):
        largest = max(largest, numbers[j])
    return int(largest)


@compiled_fast
def _collect(
    user: int,
    own: Array,
    place: int,
    order: Array,
    left_offsets: Array,
    left_items: Array,
    pool_values: Array,
    pool_items: Array,
    sizes: Array,
    lows: Array,
) -> None:
    """Add to a user's pool those of `_CHUNK` products, at a place of the panels, that may be among the best."""
    low, size = lows[user], sizes[user]
    for j in range(_CHUNK):
        item = order[place + j]
        if own[j] >= low and item >= 0 and not _contains(left_offsets, left_items, user, item):
            pool_values[user, size], pool_items[user, size] = own[j], item
            size += 1
    sizes[user] = size


@compiled_fast
def _cut(
    user: int,
    users: Array,
    items: Array,
    k: int,
    margin: float,
    pool_values: Array,
    pool_items: Array,
    sizes: Array,
    lows: Array,
) -> None:
    """Cut a user's pool down to what can be among the best k, and raise the bound below which nothing enters it."""
    values, codes, size, kept = pool_values[user], pool_items[user], sizes[user], 0
    # Each value is within the margin of the exact one.
    low = _low_of_best(values, 0, size, k) - 2 * margin
    for place in range(size):
        values[kept], codes[kept] = values[place], codes[place]
        kept += values[kept] >= low
    if kept > len(values) - 2 * _CHUNK:
        # So many that are as good: only exact values tell which ones stay.
        for place in range(kept):
            values[place] = _product(users, user, items, codes[place])
        _best_first(values, codes, kept, k, False)
        kept, low = k, values[:k].min() - margin
    sizes[user], lows[user] = kept, low


@compiled_fast
def _low_of_best(values: Array, begin: int, end: int, k: int) -> float:
    """A number that at least k of the values begin, ..., end - 1 reach, and few more; by bisection."""
    high, low = -np.inf, np.inf
    for place in range(begin, end):
        high, low = max(high, values[place]), min(low, values[place])
    for _ in range(_HALVINGS if k < end - begin else 0):
        middle = (low + high) / 2
        count = 0
        for place in range(begin, end):
            count += values[place] >= middle
        if count < k:
            high = middle
        else:
            low = middle
            if count <= k + k // 4 + 4:
                break
    return low


@compiled_fast
def _count(
    user: int,
    start: int,
    panel: int,
    out: Array,
    users: Array,
    items: Array,
    order: Array,
    score: float,
    margin: float,
) -> int:
    """How many items of a panel score at least so much; what the fast product leaves open is computed once more."""
    high, low = np.float32(score + margin), np.float32(score - margin)
    filled = TILE
    while filled > 0 and order[panel * TILE + filled - 1] < 0:
        filled -= 1
    sure, possible = 0, 0
    for j in range(start, start + filled):
        sure += out[j] > high
        possible += out[j] >= low
    if possible > sure:
        for j in range(filled):
            if low <= out[start + j] <= high:
                sure += _product(users, user, items, order[panel * TILE + j]) >= score
    return sure


@compiled_fast
def _product(users: Array, user: int, items: Array, item: int) -> float:
    """The inner product of a user and an item in double precision, rounded to float32."""
    total = 0.0
    for factor in range(users.shape[1]):
        total += np.float64(users[user, factor]) * np.float64(items[item, factor])
    return float(np.float32(total))


@compiled
def _contains(offsets: Array, items: Array, user: int, item: int) -> bool:
    """Whether a user's list, which is ascending, holds an item."""
    begin, end = offsets[user], offsets[user + 1]
    while begin < end:
        middle = (begin + end) // 2
        if items[middle] < item:
            begin = middle + 1
        else:
            end = middle
    return bool(begin < offsets[user + 1] and items[begin] == item)


@compiled
def _best_first(values: Array, items: Array, size: int, count: int, in_order: bool) -> None:
    """Move the best `count` of `size` pairs to the front: the largest values, of equal ones the smaller items first.

    Quicksort that leaves alone what is not asked for; only with `in_order` are the best sorted among themselves.
    """
    waiting, open_ = np.empty((64, 2), np.int64), 0
    low, high = 0, size - 1
    while True:
        while high - low > _SHORT:
            left, right = _partition(values, items, low, high)
            if left < count - 1 and not in_order:
                low = right
            elif right >= count or not in_order:
                high = left
            else:
                # The shorter part first, so that few wait.
                first = left - low < high - right
                waiting[open_, 0], waiting[open_, 1] = (right, high) if first else (low, left)
                open_ += 1
                low, high = (low, left) if first else (right, high)
        _insertion_sort(values, items, low, high)
        if open_ == 0:
            break
        open_ -= 1
        low, high = waiting[open_]


@compiled
def _partition(values: Array, items: Array, low: int, high: int) -> tuple[int, int]:
    """Split pairs low, ..., high: those up to the first place returned stand before those from the second one on."""
    value, item = values[(low + high) // 2], items[(low + high) // 2]
    left, right = low, high
    while left <= right:
        while values[left] > value or (values[left] == value and items[left] < item):
            left += 1
        while values[right] < value or (values[right] == value and items[right] > item):
            right -= 1
        if left <= right:
            values[left], values[right] = values[right], values[left]
            items[left], items[right] = items[right], items[left]
            left += 1
            right -= 1
    return right, left


@compiled
def _insertion_sort(values: Array, items: Array, low: int, high: int) -> None:
    for end in range(low + 1, high + 1):
        value, item = values[end], items[end]
        place = end
        while place > low and (values[place - 1] < value or (values[place - 1] == value and items[place - 1] > item)):
            values[place], items[place] = values[place - 1], items[place - 1]
            place -= 1
        values[place], items[place] = value, item

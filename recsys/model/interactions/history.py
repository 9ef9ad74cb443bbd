"""All interactions in memory, by user and by item; the cost of adding a batch follows its size."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from recsys.contracts import WEIGHT_PARTS
from recsys.model.common.arrays import Float32Array, FloatArray, GrowingArray, Int32Array, IntArray
from recsys.model.interactions.adjacency import AdjacencyLists
from recsys.model.interactions.decay import SECONDS_PER_DAY, DecayClock
from recsys.model.interactions.keeping import Kept
from recsys.model.interactions.pair_index import PairIndex, keys_of

# Memory that a pair takes at most, see `History`.
BYTES_PER_PAIR = 65


@dataclass(frozen=True)
class Rows:
    """The interactions of some rows (users or items), one row after the other.

    Attributes:
        lengths: (rows,) int64, number of interactions of each.
        others: (sum of lengths,) int32, codes of the other side.
        weights: (sum of lengths,) float64, decayed to the present.
    """

    lengths: IntArray
    others: Int32Array
    weights: FloatArray


class Orientation:
    """The pairs grouped by user, or by item.

    Attributes:
        lists: the other side and the stored weight of each row's pairs, in the order in which the pairs appeared.
        total: sum of |stored weight| of each row, float64.
    """

    def __init__(self, total: npt.ArrayLike = ()) -> None:
        self.lists = AdjacencyLists()
        self.total = GrowingArray(total, np.float64)
        self.lists.add_rows(len(self.total))
        # Where in its row each pair is, by slot.
        self._ordinals = GrowingArray((), np.int32)

    @classmethod
    def of(cls, rows: IntArray, others: IntArray, amounts: Float32Array, count: int) -> Self:
        """From interactions in their order: rows (n,) of `count`, others (n,) and stored weights (n,)."""
        own, pairs = cls(), PairIndex()
        own.add_rows(count)
        slots = pairs.find_or_add(rows, others)
        own.append(pairs.users(), pairs.items(), np.zeros(len(pairs), dtype=np.float32))
        own.add(rows, slots, amounts)
        return own

    def __len__(self) -> int:
        return len(self.lists)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.lists.nbytes + self.total.nbytes + self._ordinals.nbytes

    def add_rows(self, rows: int) -> None:
        """Have `rows` rows; new ones are empty."""
        self.lists.add_rows(rows)
        self.total.resize(rows)

    def append(self, rows: IntArray, others: IntArray, weights: Float32Array) -> None:
        """Append the pairs of the next slots, (n,), to their rows; `total` stays as it is."""
        self._ordinals.append(self.lists.append(rows, others, weights))

    def add(self, rows: IntArray, slots: IntArray, amounts: Float32Array) -> None:
        """Add amounts (n,) to the pairs at slots (n,), which are in rows (n,)."""
        grown = self.lists.add_weights(rows, self._ordinals.values[slots], amounts)
        np.add.at(self.total.values, rows, grown)

    def weights(self, rows: IntArray) -> Float32Array:
        """Stored weights of all slots, of which slot s is in row rows[s]."""
        return self.lists.weights_at(rows, self._ordinals.values)

    def rebase(self, halvings: int) -> None:
        """Divide everything stored by 2^halvings."""
        self.lists.scale(halvings)
        np.ldexp(self.total.values, -halvings, out=self.total.values)


class History:
    """One entry per distinct (user, item) pair, its weight the decayed sum of all weights added to it.

    Both orientations hold the code of the other side and the weight of each pair, row by row, so that rows are read
    where they lie; the two copies of a weight are equal to the last bit. Weights add up in float32: each addition is
    off by at most 6e-8 of the sum, and a pair of 2^24 (16.8 million) equal additions grows no further.

    A pair takes 65 bytes and the process 6.1 GB at most, as measured with 100 million pairs of 2 million users and
    200,000 items (bench/speed/history.py): 8 for its key, 8 to 16 in the hash table, 4 for its place in each
    orientation and 8 for its entry there, the arrays up to a third and the rows up to half spare. A batch costs what
    its events cost, except that one that finds the hash table or a pool full waits until it is copied, each about 2
    seconds at 67 million pairs; that is so seldom that n pairs take time O(n) in all.

    Args:
        half_life_days: Days after which a weight counts half; None: never.
    """

    def __init__(self, half_life_days: float | None) -> None:
        self.by_user = Orientation()
        self.by_item = Orientation()
        self._clock = _clock(half_life_days)
        self._pairs = PairIndex()
        # How often `age` has halved all weights.
        self._aged = 0

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._pairs.nbytes + self.by_user.nbytes + self.by_item.nbytes

    @property
    def latest_time(self) -> float:
        """The largest time of an interaction so far, in seconds; -inf before the first."""
        return float(self._clock.state[2])

    @property
    def scale(self) -> float:
        """Factor from stored weights to current ones."""
        return self._clock.scale

    @property
    def halvings(self) -> int:
        """How often all stored weights have been halved so far; sums of stored weights kept elsewhere must follow."""
        return self._clock.halvings + self._aged

    def stored(self, weights: FloatArray, times: FloatArray) -> FloatArray:
        """Weights (n,) at times (n,) as they are stored now."""
        return self._clock.stored(weights, times)

    def add_rows(self, users: int, items: int) -> None:
        """Have this many users and items; new ones have no interactions."""
        self.by_user.add_rows(users)
        self.by_item.add_rows(items)

    def add(self, users: IntArray, items: IntArray, weights: FloatArray, times: FloatArray) -> None:
        """Add interactions. Adding them in any split over calls gives the same sums, but for rounding.

        Args:
            users, items: (n,) codes of rows that there are; a pair may occur more than once.
            weights: (n,) finite, negative allowed, sums far below 2^64.
            times: (n,) seconds; each weight decays from its time on.

        Raises:
            IndexError: there is no such row.
        """
        if not len(users):
            return
        halvings = self._clock.advance(times)
        self._rebase(halvings)
        amounts = self._clock.stored(weights, times).astype(np.float32)
        known = len(self)
        slots = self._pairs.find_or_add(users, items)
        self._append(known, np.zeros(len(self) - known, dtype=np.float32))
        self.by_user.add(users, slots, amounts)
        self.by_item.add(items, slots, amounts)

    def age(self, halvings: int) -> None:
        """Multiply the weight of everything added so far by 2^-halvings."""
        self._rebase(halvings)
        self._aged += halvings

    def user_rows(self, rows: IntArray) -> Rows:
        """The interactions of users (n,); others are items."""
        return self._rows(self.by_user, rows)

    def item_rows(self, rows: IntArray) -> Rows:
        """The interactions of items (n,); others are users."""
        return self._rows(self.by_item, rows)

    def has_pairs(self, users: IntArray, items: IntArray) -> npt.NDArray[np.bool_]:
        """Whether each of the pairs (n,) was ever added."""
        return self._pairs.find(users, items) >= 0

    def lasting(self, kept: Kept) -> IntArray:
        """The slots (n,) of pairs that have not faded (see `forgetting`), and whose user and item stay; ascending."""
        users, items = self._pairs.users(), self._pairs.items()
        stays = (kept.users.renumbered[users] >= 0) & (kept.items.renumbered[items] >= 0)
        weights = np.abs(self.by_user.weights(users) * np.float64(self.scale))
        return np.flatnonzero(stays & ((weights >= 1 / WEIGHT_PARTS) | (weights == 0)))

    def keep(self, kept: Kept, slots: IntArray) -> None:
        """Have only some users and items, and the pairs of some slots (n,), from `lasting`."""
        users, items = self._pairs.users(), self._pairs.items()
        weights = self.by_user.weights(users)[slots]
        users, items = kept.users.renumbered[users[slots]], kept.items.renumbered[items[slots]]
        amounts = np.abs(weights.astype(np.float64))
        totals = (np.bincount(own, amounts, len(rows)) for own, rows in ((users, kept.users), (items, kept.items)))
        self._pairs = PairIndex(keys_of(users, items))
        self._fill(weights, *totals)

    def state(self) -> dict[str, npt.NDArray[np.generic]]:
        """Arrays from which `from_state` builds a history that behaves the same to the last bit."""
        return {
            "keys": self._pairs.keys,
            "weights": self.by_user.weights(self._pairs.users()),
            "clock": self._clock.state,
            "aged": np.array([self._aged]),
            "user_total": self.by_user.total.values,
            "item_total": self.by_item.total.values,
        }

    @classmethod
    def from_state(cls, half_life_days: float | None, state: dict[str, npt.NDArray[np.generic]]) -> "History":
        """A history from what `state` returned."""
        history = cls(half_life_days)
        history._clock = _clock(half_life_days, state["clock"].astype(np.float64))
        history._pairs = PairIndex(state["keys"])
        history._aged = int(state["aged"][0])
        history._fill(state["weights"].astype(np.float32), state["user_total"], state["item_total"])
        return history

    def _rebase(self, halvings: int) -> None:
        """Divide everything stored by 2^halvings."""
        if halvings:
            self.by_user.rebase(halvings)
            self.by_item.rebase(halvings)

    def _fill(self, weights: Float32Array, user_total: npt.ArrayLike, item_total: npt.ArrayLike) -> None:
        """Have the pairs of all slots, with these weights (slots,), in orientations of their own."""
        self.by_user, self.by_item = Orientation(user_total), Orientation(item_total)
        # Slots are in order of appearance, so appending them all at once repeats the order of every row.
        self._append(0, weights)

    def _append(self, begin: int, weights: Float32Array) -> None:
        """Enter the pairs of the slots from `begin` on into both orientations."""
        users, items = self._pairs.users(begin), self._pairs.items(begin)
        self.by_user.append(users, items, weights)
        self.by_item.append(items, users, weights)

    def _rows(self, side: Orientation, rows: IntArray) -> Rows:
        lengths, others, weights = side.lists.gather(rows)
        return Rows(lengths, others, weights * np.float64(self.scale))


def _clock(half_life_days: float | None, state: FloatArray | None = None) -> DecayClock:
    """A clock for times in seconds."""
    return DecayClock(None if half_life_days is None else half_life_days * SECONDS_PER_DAY, state)

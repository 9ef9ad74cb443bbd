"""All interactions in memory, by user and by item, growing at a cost that follows the batch."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.model.adjacency import AdjacencyLists
from recsys.model.arrays import FloatArray, GrowingArray, IntArray
from recsys.model.decay import DecayClock
from recsys.model.pairs import PairIndex


@dataclass(frozen=True)
class Rows:
    """The interactions of some rows (users or items), one row after the other.

    Attributes:
        lengths: (rows,) int64, number of interactions of each.
        others: (sum of lengths,) int64, codes of the other side.
        weights: (sum of lengths,) float64, as they count now.
    """

    lengths: IntArray
    others: IntArray
    weights: FloatArray


class Orientation:
    """One way to look at the pairs: by user or by item.

    Attributes:
        lists: the slots of each row.
        total: sum of |weight| of each row, as stored (decay not applied).
        unsolved: how much weight the row has taken in since it was last solved, as stored.
    """

    def __init__(self, total: npt.ArrayLike = (), unsolved: npt.ArrayLike = ()) -> None:
        self.lists = AdjacencyLists()
        self.total = GrowingArray(total, np.float64)
        self.unsolved = GrowingArray(unsolved, np.float64)
        self.lists.add_rows(len(self.total))

    def __len__(self) -> int:
        return len(self.lists)

    def add_rows(self, rows: int) -> None:
        """Have `rows` rows; new ones are empty."""
        self.lists.add_rows(rows)
        self.total.resize(rows)
        self.unsolved.resize(rows)

    def due(self, rows: IntArray, share: float) -> IntArray:
        """Those of rows (n,) of whose weight at least `share` is new since they were last solved, or that have none."""
        return rows[self.unsolved.values[rows] >= share * self.total.values[rows]]


class History:
    """One entry per distinct (user, item) pair, its weight the decayed sum of all weights added to it.

    A pair takes about 50 bytes: 8 for its key, 8 for its weight, 8 to 16 in the hash table and 4 in each of two
    adjacency pools, the pools and arrays up to half spare.

    Args:
        half_life_days: Days after which a weight counts half; None: never.
    """

    def __init__(self, half_life_days: float | None) -> None:
        self.by_user = Orientation()
        self.by_item = Orientation()
        self._clock = DecayClock(half_life_days)
        self._pairs = PairIndex()
        self._weights = GrowingArray((), np.float64)

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        lists = self.by_user.lists.nbytes + self.by_item.lists.nbytes
        return self._pairs.nbytes + self._weights.nbytes + lists

    def add_rows(self, users: int, items: int) -> None:
        """Have this many users and items; new ones have no interactions."""
        self.by_user.add_rows(users)
        self.by_item.add_rows(items)

    def add(self, users: IntArray, items: IntArray, weights: FloatArray, times: FloatArray) -> None:
        """Add interactions. Adding them in any split over calls gives the same sums.

        Args:
            users, items: (n,) codes; a pair may occur more than once.
            weights: (n,) finite, negative allowed.
            times: (n,) seconds; each weight decays from its time on.
        """
        if not len(users):
            return
        self._rebase(self._clock.advance(times))
        stored = self._clock.stored(weights, times)
        known = len(self)
        slots = self._pairs.find_or_add(users, items)
        self._weights.resize(len(self))
        touched = np.unique(slots)
        before = np.abs(self._weights.values[touched])
        np.add.at(self._weights.values, slots, stored)
        grown = np.abs(self._weights.values[touched]) - before
        fresh = np.arange(known, len(self))
        for side, rows, code in (
            (self.by_user, users, self._pairs.users),
            (self.by_item, items, self._pairs.items),
        ):
            side.lists.append(code(fresh), fresh)
            np.add.at(side.total.values, code(touched), grown)
            np.add.at(side.unsolved.values, rows, np.abs(stored))

    def user_rows(self, rows: IntArray) -> Rows:
        """The interactions of users (n,); others are items."""
        lengths, slots = self.by_user.lists.gather(rows)
        return Rows(lengths, self._pairs.items(slots), self._weights.values[slots] * self._clock.scale)

    def item_rows(self, rows: IntArray) -> Rows:
        """The interactions of items (n,); others are users."""
        lengths, slots = self.by_item.lists.gather(rows)
        return Rows(lengths, self._pairs.users(slots), self._weights.values[slots] * self._clock.scale)

    def has_pairs(self, users: IntArray, items: IntArray) -> npt.NDArray[np.bool_]:
        """Whether each of the pairs (n,) was ever added."""
        return self._pairs.find(users, items) >= 0

    def state(self) -> dict[str, npt.NDArray[np.generic]]:
        """Arrays from which `from_state` builds a history that behaves the same to the last bit."""
        return {
            "keys": self._pairs.keys,
            "weights": self._weights.values,
            "clock": self._clock.state,
            "user_total": self.by_user.total.values,
            "user_unsolved": self.by_user.unsolved.values,
            "item_total": self.by_item.total.values,
            "item_unsolved": self.by_item.unsolved.values,
        }

    @classmethod
    def from_state(cls, half_life_days: float | None, state: dict[str, npt.NDArray[np.generic]]) -> "History":
        """A history from what `state` returned."""
        history = cls(half_life_days)
        history._clock = DecayClock(half_life_days, state["clock"].astype(np.float64))
        history._pairs = PairIndex(state["keys"])
        history._weights = GrowingArray(state["weights"], np.float64)
        history.by_user = Orientation(state["user_total"], state["user_unsolved"])
        history.by_item = Orientation(state["item_total"], state["item_unsolved"])
        slots = np.arange(len(history))
        # Slots are in order of appearance, so appending them all at once repeats the order of every row.
        history.by_user.lists.append(history._pairs.users(slots), slots)
        history.by_item.lists.append(history._pairs.items(slots), slots)
        return history

    def _rebase(self, halvings: int) -> None:
        if halvings:
            sides = (self.by_user, self.by_item)
            for array in (self._weights, *(a for side in sides for a in (side.total, side.unsolved))):
                np.ldexp(array.values, -halvings, out=array.values)

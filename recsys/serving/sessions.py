"""The scorer of neighbors within sessions."""

from copy import copy
from typing import ClassVar, Self

import numpy as np

from .arrays import Array, Arrays, Lists
from .axes import ITEMS, USERS, Axes, Declared, Loss, NewItem
from .ranking import Contributions, DenseScorer, Reason
from .scorers import CoOccurrenceScorer
from .walks import looked_up

SESSION_FEATURES = ("session_after", "session_before", "session_next", "session_rank")


class SessionScorer(DenseScorer):
    """How often an item comes right after the user's latest items within a session, and how often right before them.

    Each direction is a `CoOccurrenceScorer` of its own; they have the neighbors in common. A score is the mean of both
    chances: where the order of a session says little, what came before is as good a guess as what came after.
    """

    axes: ClassVar[Declared] = {
        # Codes of items, one higher, 0 for none.
        "recent": Axes((USERS, "last items")),
        "others": Axes((ITEMS, "neighbors"), NewItem.ZERO, sorted_by="after"),
        "after": Axes((ITEMS, "neighbors"), NewItem.ZERO, Loss.SINGLE, sorted_by="after"),
        # Within a basket, what comes after an item comes before it as often.
        "before": Axes((ITEMS, "neighbors"), NewItem.ZERO, Loss.SINGLE, sorted_by="after", like="after"),
        "totals": Axes(("after, before", ITEMS), NewItem.ZERO, Loss.SINGLE),
        "share": Axes((ITEMS,), NewItem.ZERO, Loss.SINGLE),
        "scale": Axes(("one",)),
        "fading": Axes(("one",)),
    }

    def __init__(self, arrays: Arrays) -> None:
        shared = {name: arrays[name] for name in ("recent", "share", "scale", "fading")} | {
            "neighbors": arrays["others"]
        }
        self.after, self._before = (
            CoOccurrenceScorer({**shared, "strengths": arrays[name], "totals": totals})
            for name, totals in zip(("after", "before"), arrays["totals"], strict=True)
        )
        self.items = self.after.items

    @property
    def sides(self) -> list[CoOccurrenceScorer]:
        """What comes after the latest items, what before them, and what after the last one alone."""
        return [self.after, self._before, self.after.of_last()]

    def neighbors(self, rows: Array) -> tuple[Lists, Array, Array]:
        """Neighbors (c,) of users' latest items, their chances (3, c), and the weight of any item's share, (3, n).

        The chances are, in this order, those of `sides`.
        """
        (lists, after, beside_after), (_, before, beside_before), (some, last, beside_last) = (
            side.neighbors(rows) for side in self.sides
        )
        chances = np.stack([after, before, looked_up(*some, last, *lists, self.items)])
        return lists, chances, np.stack([beside_after, beside_before, beside_last])

    def beside(self, rest: Array, owners: Array, items: Array) -> Array:
        """The part (3, c) of the chances that items (c,) owe to their share of all events."""
        return np.stack([self.after.beside(own, owners, items) for own in rest])

    def score(self, rows: Array) -> Array:
        """See `Scorer`."""
        scores: Array = (self.after.score(rows) + self._before.score(rows)) / np.float32(2)
        return scores

    def with_recent(self, rows: Array, recent: Lists) -> Self:
        """See `VersionedScorer`; recent items are a session of their own, and what the user did before it is past."""
        view, own = copy(self), np.where(recent.lengths > 0, -1, rows)
        view.after, view._before = (side.with_recent(own, recent) for side in (self.after, self._before))
        return view

    def contributions(self, rows: Array, lists: Lists) -> list[Contributions]:
        """See `VersionedScorer`."""
        near, chances, rest = self.neighbors(rows)
        shares = both_ways(self.beside(rest, lists.owners, lists.items)).tolist()
        after, before = ((looked_up(*near, own, *lists, self.items) / 2).tolist() for own in chances[:2])
        found = zip(after, before, shares, strict=True)
        return [{"after": follows, "before": leads, "share": share} for follows, leads, share in found]

    def reasons(self, rows: Array, lists: Lists) -> list[list[Reason]]:
        """See `VersionedScorer`: those of the latest items that an item most often comes right after."""
        found = self.after.reasons(rows, lists)
        return [[Reason("sessions", reason.item, reason.weight / 2) for reason in own] for own in found]


class RunningNeighbors:
    """What is beside the items of running sessions.

    Args:
        scorer: Of the sessions that have been learned.
        rows: (n,) users of the scorer.
        known: (n,) bool, whether their running session is known: only then it says anything.

    Attributes:
        known: (n,) as given.
        lists, chances: See `SessionScorer.neighbors`.
    """

    def __init__(self, scorer: SessionScorer, rows: Array, known: Array) -> None:
        self.known, self._scorer = known, scorer
        self.lists, self.chances, self._rest = scorer.neighbors(rows)

    def at(self, lists: Lists, item_count: int) -> Array:
        """(3, c) chances of items (c,) of the users, their share of all events included."""
        found = np.stack([looked_up(*self.lists, own, *lists, item_count) for own in self.chances])
        sides: Array = found + self._scorer.beside(self._rest, lists.owners, lists.items)
        return sides


def both_ways(chances: Array) -> Array:
    """(c,) the mean of the chances (3, c) of coming after the latest items and before them."""
    mean: Array = (chances[0] + chances[1]) / 2
    return mean

"""The scorer of repeat consumption."""

from copy import copy
from typing import ClassVar, Self

import numpy as np

from .arrays import Array, Arrays, Lists, PairValues, ragged_ranges
from .axes import ITEMS, USERS, Axes, Declared, Loss, NewItem
from .ranking import Contributions, DenseScorer

# Prior of the days between two interactions of a user with the same item.
_USUAL_DAYS = 20.0
# And of the baskets between.
_USUAL_BASKETS = 20.0
# Half-lives, in baskets of the user, of occasions.
BASKET_HALF_LIVES = {"fast": 3.0, "slow": 12.0}
# Decayed occasions below it count as none.
_LITTLE = 0.02
REPEAT_FEATURES = (
    "repeat",
    "repeat_count",
    "repeat_recency",
    "repeat_due",
    "repeat_overdue",
    "repeat_rate",
    "repeat_share",
    "repeat_passed",
    "repeat_last",
    "repeat_last_three",
    "repeat_fast",
    "repeat_slow",
    "repeat_usual",
    "repeat_over_usual",
    "repeat_age",
    "repeat_user",
)
_DECAYED = ("lately", *BASKET_HALF_LIVES)
_ENTRIES = ("items", "counts", "first", "last", "first_basket", "last_basket", *_DECAYED)


class RepeatScorer(DenseScorer):
    """Repeat consumption: a user's own items, by how often and how lately, and whether they are due again."""

    axes: ClassVar[Declared] = {
        **{name: Axes(("entries",), loss=Loss.SINGLE) for name in _ENTRIES},
        **{name: Axes(("entries",), loss=Loss.LOGARITHMIC) for name in _DECAYED},
        "starts": Axes((USERS,)),
        "lengths": Axes((USERS,)),
        "occasions": Axes(("again, at all", ITEMS), NewItem.ZERO),
        "intervals": Axes(("days, number, baskets", ITEMS), NewItem.ZERO, Loss.SINGLE),
        "baskets": Axes((USERS,)),
        "habits": Axes(("again, at all", USERS)),
        "share": Axes((ITEMS,), NewItem.ZERO, Loss.SINGLE),
        "now": Axes(("one",)),
        "half_life": Axes(("one",)),
    }

    def __init__(self, arrays: Arrays) -> None:
        self._arrays, self.share = arrays, arrays["share"]
        self.items = len(self.share)
        self._starts, self._lengths = arrays["starts"], arrays["lengths"]

    def repeats(self, rows: Array) -> tuple[PairValues, Array]:
        """How often users interacted with their items, and features (pairs, features) in the order of the pairs."""
        lists, counts, features = self.own(rows)
        keys = lists.owners * self.items + lists.items
        order = np.argsort(keys)
        return PairValues(keys[order], counts[order], self.items), features[order]

    def own(self, rows: Array) -> tuple[Lists, Array, Array]:
        """Items of users (n,), how often each user interacted with them, (o,), and features, (o, features) float64."""
        arrays, owners, places = self._arrays, *self._entries(rows)
        taken, of_users = arrays["items"][places].astype(np.int64), rows[owners]
        counts, last, first, last_basket, first_basket = (
            arrays[name][places].astype(np.float64)
            for name in ("counts", "last", "first", "last_basket", "first_basket")
        )
        since = np.maximum(arrays["now"][0] - last, 0)
        lately = arrays["lately"][places] * 2.0 ** (-since / arrays["half_life"][0])
        # The user's interval, with the item's as one more observation, and for that in turn the general one.
        general, usual = arrays["intervals"].sum(axis=1), arrays["intervals"][:, taken]
        typical = (general[0] + _USUAL_DAYS) / (general[1] + 1)
        interval = (last - first + (usual[0] + typical) / (usual[1] + 1)) / counts
        due = np.log((since + 0.5) / (interval + 0.5))
        again, taken_at_all = arrays["occasions"][:, taken]
        # The same in baskets: `passed` of the user's are without the item since the last one with it.
        baskets = arrays["baskets"][of_users]
        passed = np.maximum(baskets - last_basket, 0)
        between = (general[2] + _USUAL_BASKETS) / (general[1] + 1)
        rhythm = (last_basket - first_basket + (usual[2] + between) / (usual[1] + 1)) / counts
        over = np.log((passed + 1) / (rhythm + 1))
        fast, slow = (arrays[name][places] * 2.0 ** (-passed / life) for name, life in BASKET_HALF_LIVES.items())
        user_again, user_taken = arrays["habits"][:, of_users]
        features = [
            np.ones(len(taken)),
            np.log(counts),
            np.log(lately + _LITTLE) - np.log(_LITTLE),
            due,
            np.minimum(due, 0),
            np.log((again + 1) / (taken_at_all + 5)),
            np.log((counts + 1) / (baskets + 5)),
            np.log(passed + 1),
            passed == 0,
            passed < 3,
            np.log(fast + _LITTLE) - np.log(_LITTLE),
            np.log(slow + _LITTLE) - np.log(_LITTLE),
            over,
            np.minimum(over, 0),
            np.log(arrays["now"][0] - first + 1),
            np.log((user_again + 1) / (user_taken + 5)),
        ]
        return Lists.of(np.bincount(owners, minlength=len(rows)), taken), counts, np.stack(features, axis=1)

    def with_recent(self, rows: Array, recent: Lists) -> Self:
        """See `VersionedScorer`; a user's list may grow beyond the slots that a learner keeps."""
        own, places = self._entries(rows)
        width, now, half_life = max(self.items, 1), self._arrays["now"][0], self._arrays["half_life"][0]
        entries = {name: self._arrays[name][places] for name in _ENTRIES}
        keys, more = np.unique(recent.owners * width + recent.items, return_counts=True)
        at = np.append(own * width + entries["items"], -1)
        order = np.argsort(at, kind="stable")
        found = order[np.minimum(np.searchsorted(at, keys, sorter=order), len(at) - 1)]
        again = at[found] == keys
        hit, times = found[again], more[again]
        since = np.maximum(now - entries["last"][hit], 0)
        entries["counts"][hit] += times.astype(entries["counts"].dtype)
        entries["lately"][hit] = entries["lately"][hit] * 2.0 ** (-since / half_life) + times
        entries["last"][hit] += since
        # What a user has just done is a basket of its own.
        known = (rows >= 0) & (rows < len(self._starts))
        of_users = np.where(known, rows, -1)
        baskets = np.append(self._arrays["baskets"], 0)[of_users] + (recent.lengths > 0)
        passed = baskets[own[hit]] - entries["last_basket"][hit]
        for name, life in BASKET_HALF_LIVES.items():
            entries[name][hit] = entries[name][hit] * 2.0 ** (-passed / life) + times
        entries["last_basket"][hit] += passed.astype(entries["last_basket"].dtype)
        habits = np.append(self._arrays["habits"], [[0.0], [0.0]], axis=1)[:, of_users]
        owners, items = np.divmod(keys[~again], width)
        repeated = np.bincount(np.concatenate([own[hit], owners]), np.concatenate([times, more[~again] - 1]), len(rows))
        habits += np.stack([repeated, recent.lengths])
        days = np.full(len(items), now)
        new = {"items": items, "counts": more[~again], "lately": more[~again], "first": days, "last": days}
        new |= {
            "first_basket": baskets[owners],
            "last_basket": baskets[owners],
            "fast": more[~again],
            "slow": more[~again],
        }
        owners = np.concatenate([own, owners])
        order = np.argsort(owners, kind="stable")
        lengths = np.bincount(owners, minlength=len(rows))
        joined = {name: np.concatenate([old, new[name].astype(old.dtype)])[order] for name, old in entries.items()}
        view = copy(self)
        view._arrays = {**self._arrays, **joined, "baskets": baskets, "habits": habits}
        view._starts, view._lengths = np.cumsum(lengths) - lengths, lengths
        return view

    def contributions(self, rows: Array, lists: Lists) -> list[Contributions]:
        """See `VersionedScorer`."""
        pairs, _ = self.repeats(rows)
        counts, shares = pairs.at(lists.owners, lists.items).tolist(), self.share[lists.items].tolist()
        return [{"repeats": count, "share": share} for count, share in zip(counts, shares, strict=True)]

    def _entries(self, rows: Array) -> tuple[Array, Array]:
        """The owner of each entry of users (n,), and its place."""
        known = (rows >= 0) & (rows < len(self._starts))
        lengths = np.where(known, np.append(self._lengths, 0)[np.where(known, rows, -1)], 0)
        places = ragged_ranges(np.append(self._starts, 0)[np.where(known, rows, -1)], lengths)
        return np.repeat(np.arange(len(rows)), lengths), places

    def score(self, rows: Array) -> Array:
        """The user's interactions with an item, ties broken by its share of all events; see `Scorer`."""
        scores = np.repeat(self.share.astype(np.float32)[None], len(rows), axis=0)
        pairs, _ = self.repeats(rows)
        scores[pairs.owners, pairs.items] += pairs.values
        return scores

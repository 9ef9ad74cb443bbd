"""One place of some lists for unseen items, by Thompson sampling, and what the other lists make of it.

The place is a randomized experiment. A share of the lists, drawn by a hash, has an unseen item there; as many others,
the controls, are counted as they are. So the rate of an item is known apart from popularity and position, relative to
what the version puts there by itself.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.exposure import CONTROL_MARK, EXPLORED_MARK, ITEM_DIGITS
from recsys.scoring.composition import Composed, Ordered, RanksCandidates
from recsys.serving.arrays import Array, Lists

# Explored items of a run, at most: every explored list draws a number for each of them.
MOST_ITEMS = 2_000
# An item has been explored once it was shown so often in such places.
ENOUGH = 1_000
# What the first rates are worth: so many impressions, one of them clicked.
_PRIOR = 20
# The explored place divides a list in so many parts, and is the last of the first: seen by many, and no first choice.
EXPLORED_PART = 8
# Users on whose scores those of an item are calibrated.
_SAMPLED = 1_000
# Standard deviations by which the rate of an item may be smaller than it seems.
_CAUTION = 2.0


@dataclass(frozen=True)
class Posterior:
    """What is known of p items from explored places: Beta distributions of their click rates.

    All items have the same prior, whose mean is the rate of all of them together and which is worth one click
    (Chapelle and Li 2011, "An Empirical Evaluation of Thompson Sampling").

    Attributes:
        item_ids: p ids.
        alphas, betas: (p,) float64.
        open: (p,) bool, the items that are still explored.
        control: click rate of what the version puts in the place.
    """

    item_ids: Sequence[str]
    alphas: Array
    betas: Array
    open: Array
    control: float

    @classmethod
    def of(cls, item_ids: Sequence[str], impressions: Array, clicks: Array, control: tuple[int, int]) -> "Posterior":
        """From what was shown in explored places, and clicked.

        Args:
            item_ids: n distinct ids.
            impressions: (n,).
            clicks: (n,).
            control: impressions and clicks of the controls.
        """
        rate = (clicks.sum() + 1) / (max(impressions.sum(), clicks.sum()) + _PRIOR)
        alphas, betas = 1 + clicks, 1 / rate - 1 + np.maximum(impressions - clicks, 0)
        # The most promising ones where there are too many; of equal ones those whose ids hash lowest.
        keys = [_hash(item) for item in item_ids]
        best = np.lexsort((keys, -alphas / (alphas + betas)))[:MOST_ITEMS]
        chosen = [item_ids[place] for place in best.tolist()]
        usual = (control[1] + 1) / (max(control) + _PRIOR)
        return cls(chosen, alphas[best], betas[best], impressions[best] < ENOUGH, usual)

    @property
    def least(self) -> Array:
        """(p,) click rates that the items most likely exceed; 0 where too little is known."""
        total = self.alphas + self.betas
        mean = self.alphas / total
        found: Array = np.maximum(mean - _CAUTION * np.sqrt(mean * (1 - mean) / (total + 1)), 0)
        return found


@dataclass(frozen=True)
class Exploration:
    """How a run explores.

    Attributes:
        share: chance that a list has an explored place, 0 to 1/2; as many are controls.
        place: which it is, from 0.
        key: names the run; the same key and users give the same draws.
        posterior: of the items that may be explored.
    """

    share: float
    place: int
    key: str
    posterior: Posterior

    def drawn(self, user_ids: Sequence[str]) -> Array:
        """(n,) 1 for users whose lists are explored, -1 for controls, 0 for all others."""
        numbers = np.array([_hash(f"{self.key}\n{user}") for user in user_ids], dtype=np.float64) / 2.0**64
        found: Array = (numbers < self.share).astype(np.int64) - ((numbers >= self.share) & (numbers < 2 * self.share))
        return found

    def order(self, user_id: str) -> Array:
        """(o,) places of the open items in the order of what is drawn of their click rates, highest first."""
        own = np.flatnonzero(self.posterior.open)
        generator = np.random.default_rng(_hash(f"{self.key}\n{user_id}\nitem"))
        found: Array = own[np.argsort(-generator.beta(self.posterior.alphas[own], self.posterior.betas[own]))]
        return found


class LiftedRanker:
    """Ranks as a version does, but with explored items at the scores that their click rates stand for.

    A version's score is the log-odds of a click as things are: an item that is hardly shown is hardly clicked. Which
    users it is for, scores do say. So one number is added to all scores of an item: with it, the mean odds of the item
    relate to those of what the version puts in the explored place as their click rates in that place do. It is left
    out where it would lower the scores: once an item is shown to all whom it is for, nothing is added any more.

    Args:
        ranker: Of the version.
        users: Whom it knows.
        items: (q,) rows of items.
        rates: (q,) their click rates in the explored place, as far as they are certain; above 0.
        control: click rate of the ordinary lists there.
        place: of the lists, from 0.
        exclude_seen: As lists are made.
    """

    def __init__(
        self,
        ranker: RanksCandidates,
        users: int,
        items: Array,
        rates: Array,
        control: float,
        place: int,
        exclude_seen: bool,
    ) -> None:
        self._ranker, self.items = ranker, ranker.items
        self._lifted, self._lifts = items[:0], np.zeros(self.items)
        if not users or not len(items):
            return
        rows = np.unique(np.linspace(0, users - 1, min(users, _SAMPLED)).astype(np.int64))
        seen = np.full(len(rows), exclude_seen)
        usual = ranker.rank(rows, np.full(len(rows), place + 1), seen)
        ends = np.cumsum(usual.lengths)[usual.lengths == place + 1] - 1
        if not len(ends):
            return
        odds = float(np.exp(usual.scores[ends].astype(np.float64)).mean())
        own = ranker.rank_candidates(rows, np.full(len(rows), len(items)), seen, [items] * len(rows))
        sums = np.bincount(own.items, np.exp(own.scores.astype(np.float64)), minlength=self.items)[items]
        counts = np.bincount(own.items, minlength=self.items)[items]
        # Of an item that all of them have seen, nothing is known.
        factors = np.divide(rates / control * odds * counts, sums, where=counts > 0, out=np.ones(len(items)))
        self._lifted = items[factors > 1]
        self._lifts[self._lifted] = np.log(factors[factors > 1])

    def rank(self, rows: Array, k: Array, exclude_seen: Array) -> Ordered:
        """The best k items of users."""
        ranked = self._ranker.rank(rows, k, exclude_seen)
        if not len(self._lifted) or not len(rows):
            return ranked
        lifted = self._ranker.rank_candidates(
            rows, np.full(len(rows), len(self._lifted)), exclude_seen, [self._lifted] * len(rows)
        )
        return self._merged(ranked, lifted, k)

    def rank_candidates(self, rows: Array, k: Array, exclude_seen: Array, candidates: list[Array]) -> Ordered:
        """The best k of each user's candidates."""
        every = np.array([len(own) for own in candidates])
        ranked = self._ranker.rank_candidates(rows, np.maximum(every, 1), exclude_seen, candidates)
        return self._merged(ranked, _none(len(rows)), k)

    def unseen(self, rows: Array, items: Array, exclude_seen: bool) -> list[set[int]]:
        """Those of some items (q,) that each user may be shown."""
        if not len(items):
            return [set() for _ in rows]
        asked = np.full(len(rows), len(items)), np.full(len(rows), exclude_seen)
        found = self._ranker.rank_candidates(rows, *asked, [items] * len(rows))
        return [set(own.tolist()) for own in np.split(found.items, np.cumsum(found.lengths)[:-1])] if len(rows) else []

    def _merged(self, ranked: Ordered, lifted: Ordered, k: Array) -> Composed:
        """Two orders of n users' items as one, cut at k; the lifts are added to the scores."""
        users = np.arange(len(ranked.lengths))
        owners = np.concatenate([np.repeat(users, ranked.lengths), np.repeat(users, lifted.lengths)])
        items = np.concatenate([ranked.items, lifted.items])
        scores = np.concatenate([ranked.scores, lifted.scores]).astype(np.float64) + self._lifts[items]
        _, first = np.unique(owners * self.items + items, return_index=True)
        order = first[np.lexsort((items[first], -scores[first], owners[first]))]
        owners = owners[order]
        places = np.arange(len(order)) - np.searchsorted(owners, owners)
        kept = places < k[owners]
        order, owners = order[kept], owners[kept]
        lengths = np.bincount(owners, minlength=len(users))
        return Composed(lengths, items[order], scores[order].astype(np.float32))


@dataclass(frozen=True)
class Explored:
    """Lists of n users, some with an explored place.

    Attributes:
        lists: what they hold.
        place: the explored one, from 0.
        marks: (n,) as `Exploration.drawn`, 0 where a list is too short, or no item was left.
        there: (n,) rows of the items in the place, -1 where the mark is 0.
    """

    lists: Composed
    place: int
    marks: Array
    there: Array

    def ends(self, item_ids: Sequence[str]) -> list[str]:
        """What the ids of n lists end with, see `recsys.exposure`: nothing where the mark is 0.

        Args:
            item_ids: n ids of the items in the place.
        """
        signs = {1: EXPLORED_MARK, -1: CONTROL_MARK}
        return [
            f"{signs[mark]}{hashlib.sha256(item.encode()).hexdigest()[:ITEM_DIGITS]}" if mark else ""
            for mark, item in zip(self.marks.tolist(), item_ids, strict=True)
        ]


class Explorer:
    """Explores with a version.

    Args:
        exploration: How.
        ranker: Of the version.
        users: How many it knows.
        rows: (p,) rows of the items of the posterior, -1 for those that the version does not know.
        exclude_seen: As lists are made.
        lifts: Whether its scores are log-odds, so that what was explored can lift items.
        allowed: (p,) bool, the only ones that may be in a list; None: all.
    """

    def __init__(
        self,
        exploration: Exploration,
        ranker: RanksCandidates,
        users: int,
        rows: Array,
        exclude_seen: bool,
        lifts: bool,
        allowed: Array | None = None,
    ) -> None:
        self._how, self._exclude_seen, posterior = exploration, exclude_seen, exploration.posterior
        known, least = rows >= 0, posterior.least
        lifted = np.flatnonzero(known & (least > 0) & lifts)
        self.ranker = LiftedRanker(
            ranker, users, rows[lifted], least[lifted], posterior.control, exploration.place, exclude_seen
        )
        self.new_ids = [posterior.item_ids[place] for place in np.flatnonzero(~known).tolist()]
        # Those that the version does not know have the rows after its own.
        self._rows, self._allowed = rows.copy(), np.ones(len(rows), bool) if allowed is None else allowed
        self._rows[~known] = ranker.items + np.arange(len(self.new_ids))
        self._known = rows[known]

    def of(self, ranked: Ordered, rows: Array, user_ids: Sequence[str], excluded: Lists) -> Explored:
        """Explore lists.

        Args:
            ranked: Of n users, by the ranker above.
            rows: (n,) of the users; those of unknown ones, which are -1, are not explored.
            user_ids: n ids.
            excluded: Items that single users shall not get.
        """
        place, items = self._how.place, ranked.items.copy()
        marks = np.where((rows >= 0) & (ranked.lengths > place), self._how.drawn(user_ids), 0)
        starts = np.cumsum(ranked.lengths) - ranked.lengths
        chosen = np.flatnonzero(marks == 1)
        unseen = self.ranker.unseen(rows[chosen], self._known, self._exclude_seen)
        for own, free in zip(chosen.tolist(), unseen, strict=True):
            barred = {*items[starts[own] : starts[own] + ranked.lengths[own]].tolist()}
            barred |= {*excluded.items[excluded.offsets[own] : excluded.offsets[own + 1]].tolist()}
            for candidate in self._how.order(user_ids[own]).tolist():
                row = int(self._rows[candidate])
                if self._allowed[candidate] and row not in barred and (row >= self.ranker.items or row in free):
                    items[starts[own] + place] = row
                    break
            else:
                marks[own] = 0
        there = np.full(len(rows), -1)
        there[marks != 0] = items[starts[marks != 0] + place]
        return Explored(Composed(ranked.lengths, items, ranked.scores), place, marks, there)


def _none(users: int) -> Composed:
    return Composed(np.zeros(users, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


def _hash(text: str) -> int:
    """A number of 64 bits."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

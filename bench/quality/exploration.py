"""Exploration in a simulated shop: whether a good item that nobody has met is found, and what looking for it costs.

    python -m bench.quality.exploration [--quick]

A shop has 2,000 users, 300 known items in 6 genres, and 20 hidden items that no event names until one is clicked in
an explored place. A user likes 2 genres: wants an item of them in a visit with its appeal as chance, and other items
with 15 % of it; each pair of user and item departs from that by a factor (log-normal, deviation 0.3). The n-th item of
a genre has the appeal 0.5 / sqrt(n). A hidden item is of a random genre; one is as good as the best known of its genre,
and the others are as those of the genre's second half. In some shops there is no good one. In every second shop
items are wanted once (`recommend.exclude_seen`), in the others again.

The known items have 10 batches of history, in which users choose by their wants. In each of the 50 batches that follow
there are 1,000 visits of random users. The model lists 20 items for each; one that is wanted is clicked with the
chance that its place is looked at, 1 / log2(1 + place). All lists are logged as impressions, places that nobody looked
at included. Besides, users choose 300 known items by themselves, and never a hidden one. Then the model learns.

An item is found when it stands in the lists, explored places left out, of half of the users who like its genre and
have not had it, after some batch. NDCG@20 is that of the lists as they are shown, on all that is wanted in a visit;
the cost is what it loses against the same shop without exploration, with a standard error over shops: two runs of a
shop depart by chance, too. The direct cost is what the explored places alone lose against the lists that they are in.

The last line gives the share of the shops with a good item in which it was found, with exploration and without, and
the largest of the costs and direct costs in shops with a good item and in those without. With --quick there is one
shop of each kind: too few to be quoted.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from bench.harness.generated_stream import numbered
from recsys.config import Settings
from recsys.contracts import StepId
from recsys.frames import WeighedEvents
from recsys.model.common.arrays import FloatArray, IntArray
from recsys.model.recommender import OnlineModel
from recsys.scoring.exploration import EXPLORED_PART, Exploration, Explorer, Posterior
from recsys.serving import Lists, Ranker

K, PLACE = 20, 19 // EXPLORED_PART
USERS, ITEMS, GENRES, HIDDEN, VISITS, CHOSEN = 2_000, 300, 6, 20, 1_000, 300
HISTORY, BATCHES, SHARE = 10, 50, 0.05
# With a good hidden item, and with none.
SHOPS, HOPELESS = 12, 6
BEST, ELSEWHERE, SPREAD, MOST = 0.5, 0.15, 0.3, 0.9
LOOKED_AT = 1 / np.log2(np.arange(K) + 2)
BOTH = "with a good item", "with none"

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Wants:
    """What the users of a shop like.

    Attributes:
        chances: (users, items) with which a user wants an item in a visit; the hidden items are last.
        fans: (f,) users who like the genre of the first hidden item.
    """

    chances: FloatArray
    fans: IntArray

    @classmethod
    def drawn(cls, drawing: np.random.Generator, good: bool) -> "Wants":
        """Those of a new shop."""
        liked = np.full((USERS, GENRES), ELSEWHERE)
        for user in range(USERS):
            liked[user, drawing.choice(GENRES, 2, replace=False)] = 1.0
        ranks, genres = np.arange(ITEMS) // GENRES, np.arange(ITEMS) % GENRES
        hidden = drawing.integers(ITEMS // GENRES // 2, ITEMS // GENRES, size=HIDDEN)
        hidden[0] = 0 if good else hidden[0]
        genres = np.concatenate([genres, drawing.integers(GENRES, size=HIDDEN)])
        appeals = BEST / np.sqrt(np.concatenate([ranks, hidden]) + 1.0)
        chances = liked[:, genres] * appeals * np.exp(drawing.normal(0, SPREAD, (USERS, ITEMS + HIDDEN)))
        return cls(np.minimum(chances, MOST), np.flatnonzero(liked[:, genres[ITEMS]] == 1.0))


class Shop:
    """A shop, batch by batch.

    Args:
        seed: Of what is drawn.
        good: Whether one of the hidden items is.
        share: Chance that a list has an explored place.
        once: Whether an item is wanted once.
    """

    def __init__(self, seed: int, good: bool, share: float, once: bool) -> None:
        self._drawing, self._seed, self._share, self._once = np.random.default_rng(seed), seed, share, once
        self._wants = Wants.drawn(self._drawing, good)
        self._user_ids, self._item_ids = numbered("u", USERS), numbered("i", ITEMS + HIDDEN)
        self._places = {item: place for place, item in enumerate(self._item_ids)}
        self._model = OnlineModel(Settings.model_validate({"device": "cpu", "recommend": {"exclude_seen": once}}))
        self._had = np.zeros((USERS, ITEMS + HIDDEN), dtype=bool)
        # Of explored places: impressions and clicks of the hidden items, and of the controls.
        self._explored, self._control, self._batch = np.zeros((2, HIDDEN)), (0, 0), 0

    def choose(self, count: int) -> tuple[IntArray, IntArray]:
        """Users, and known items that they choose by themselves."""
        users = self._drawing.integers(USERS, size=count)
        sums = (self._open(users) * self._wants.chances[users])[:, :ITEMS].cumsum(axis=1)
        return users, (sums < self._drawing.random((count, 1)) * sums[:, -1:]).sum(axis=1)

    def learn(self, users: IntArray, items: IntArray, shown: Flags) -> None:
        """Learn a batch of events (n,), some of which only say that an item was shown."""
        order = self._drawing.permutation(len(users))
        users, items, shown = users[order], items[order], shown[order]
        self._had[users[~shown], items[~shown]] = True
        times = 3_600 * (self._batch + np.arange(len(users)) / len(users))
        events = WeighedEvents(self._user_ids, self._item_ids, users, items, 1.0 - shown, times, shown)
        self._model.update(events.batch(), StepId(0, self._batch))
        self._batch += 1

    def visit(self) -> tuple[float, float, float]:
        """A batch of visits: NDCG of the lists as shown, and without explored places; share of fans with the item."""
        ordinary, lists, marks = self._lists()
        users = self._drawing.integers(USERS, size=VISITS)
        wanted = self._drawing.random((VISITS, ITEMS + HIDDEN)) < self._open(users) * self._wants.chances[users]
        shown = lists[users]
        clicked = np.take_along_axis(wanted, shown, axis=1) & (self._drawing.random(shown.shape) < LOOKED_AT)
        explored, control = marks[users] == 1, marks[users] == -1
        there, hits = shown[explored, PLACE] - ITEMS, clicked[explored, PLACE]
        np.add.at(self._explored[0], there, 1)
        np.add.at(self._explored[1], there[hits], 1)
        seen, taken = self._control
        self._control = seen + int(control.sum()), taken + int(clicked[control, PLACE].sum())
        rows, columns = np.nonzero(clicked)
        own, chosen = self.choose(CHOSEN)
        self.learn(
            np.concatenate([users[rows], own, np.repeat(users, K)]),
            np.concatenate([shown[rows, columns], chosen, shown.ravel()]),
            np.repeat([False, True], [len(rows) + CHOSEN, VISITS * K]),
        )
        fans = self._wants.fans[self._open(self._wants.fans)[:, ITEMS]]
        found = float((ordinary[fans] == ITEMS).any(axis=1).mean())
        return _ndcg(wanted, shown), _ndcg(wanted, ordinary[users]), found

    def _open(self, users: IntArray) -> Flags:
        """(n, items) whether users (n,) may want items."""
        return ~self._had[users] if self._once else np.ones((len(users), ITEMS + HIDDEN), dtype=bool)

    def _lists(self) -> tuple[IntArray, IntArray, IntArray]:
        """(users, K) items of the ordinary lists and of those that are shown, and the marks of these, (users,)."""
        model, ids = self._model, self._model.items.ids
        ranker, rows = Ranker(model.served().packed()), model.users.lookup(self._user_ids)
        asked = rows, np.full(USERS, K), np.full(USERS, self._once)
        codes = np.array([self._places[item] for item in ids])
        if not self._share:
            ordinary = codes[ranker.rank(*asked).items].reshape(USERS, K)
            return ordinary, ordinary, np.zeros(USERS, dtype=np.int64)
        posterior = Posterior.of(self._item_ids[ITEMS:], *self._explored, self._control)
        exploration = Exploration(self._share, PLACE, f"{self._seed} {self._batch}", posterior)
        explorer = Explorer(
            exploration, ranker, len(model.users), model.items.lookup(posterior.item_ids), self._once, True
        )
        ranked = explorer.ranker.rank(*asked)
        explored = explorer.of(ranked, rows, self._user_ids, Lists.empty(USERS))
        codes = np.append(codes, [self._places[item] for item in explorer.new_ids]).astype(np.int64)
        return *(codes[own.items].reshape(USERS, K) for own in (ranked, explored.lists)), explored.marks


def _ndcg(wanted: Flags, lists: IntArray) -> float:
    """Mean NDCG of lists (n, K) where something was wanted, (n, items)."""
    counts = wanted.sum(axis=1)
    some = counts > 0
    best = np.cumsum(LOOKED_AT)[np.minimum(counts[some], K) - 1]
    return float(((np.take_along_axis(wanted, lists, axis=1) @ LOOKED_AT)[some] / best).mean())


def run(seed: int, good: bool, share: float, batches: int) -> dict[str, float | bool]:
    """What becomes of a shop: whether and in which batch the item is found, NDCG as shown and of the ordinary lists."""
    shop = Shop(seed, good, share, once=seed % 2 == 0)
    for _ in range(HISTORY):
        users, items = shop.choose(3 * VISITS)
        shop.learn(users, items, np.zeros(len(users), dtype=bool))
    shown, ordinary, found = np.array([shop.visit() for _ in range(batches)]).T
    half = np.flatnonzero(found >= 0.5)
    return {
        "shop": seed,
        "good": good,
        "explored": share > 0,
        "found": len(half) > 0,
        "batch": half[0] + 1 if len(half) else np.nan,
        "share": found.max(),
        "ndcg": shown.mean(),
        "direct_cost": 1 - shown.mean() / ordinary.mean(),
    }


def cost(frame: pd.DataFrame) -> tuple[float, float]:
    """What NDCG loses by exploration, as a share, and its standard error over shops."""
    plain, explored = (
        frame[frame["explored"] == told].sort_values("shop")["ndcg"].to_numpy() for told in (False, True)
    )
    ratio = float(explored.sum() / plain.sum())
    residuals = explored - ratio * plain
    return 1 - ratio, float(np.sqrt((residuals**2).sum() * len(plain) / max(len(plain) - 1, 1)) / plain.sum())


def main(words: Sequence[str] | None = None) -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one shop of each kind")
    chosen = parser.parse_args(words)
    shops = [(seed, True) for seed in range(SHOPS)] + [(seed, False) for seed in range(HOPELESS)]
    shops = [(0, True), (0, False)] if chosen.quick else shops
    cases = [(seed, good, share) for seed, good in shops for share in (SHARE, 0.0)]
    rows = pd.DataFrame([run(*case, BATCHES) for case in tqdm(cases, unit="run", dynamic_ncols=True)])
    print(rows.to_string(index=False, float_format=lambda number: f"{number:.4f}"))
    costs = []
    for name, own in zip(BOTH, (rows[rows["good"]], rows[~rows["good"]]), strict=True):
        value, error = cost(own)
        direct = own.loc[own["explored"], "direct_cost"].mean()
        print(f"shops {name}: NDCG@20 loses {value:+.2%} +- {error:.2%} by exploration, {direct:.2%} directly")
        costs += [value, direct]
    found = rows[rows["good"]].groupby("explored")["found"].mean()
    print(
        f"exploration_found={found[True]:.2f} exploration_found_without={found[False]:.2f} "
        f"exploration_cost={max(costs):.4f}"
    )


if __name__ == "__main__":
    main()

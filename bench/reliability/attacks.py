"""Scripted attacks on the recommendations of honest users, with `robustness` and without.

    python -m bench.reliability.attacks

A model learns a small generated stream of users and items in groups. Then one more batch comes: with honest events
only, or with those of an attack among them. An attack has changed a user's list of ten if one of its items is another
than without the attack; the order does not count. What is reported is the share of honest users, new ones included,
whose list has changed. A model is sensitive: `other honest events` is the share of lists that another sample of honest
events in the place of the batch changes. The last line has the medians over the attacks.

Fake users who each do little are within the bounds of `robustness`: against those it does not help, and the table
shows it.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.model.learner import State
from recsys.model.recommender import OnlineModel

# user, item, weight and number of events of a row
Row = tuple[str, str, float, int]
USERS, ITEMS, GROUPS = 300, 180, 6
BATCHES, EVENTS = 20, 1_000
DAY = 86_400.0
LENGTH = 10
VIEW, PURCHASE, DISLIKE = 1.0, 4.0, -4.0
OFF = {"events_per_pair": None, "repeats_per_user": None}


@dataclass(frozen=True)
class Attack:
    """An attack: what it is, and its rows."""

    name: str
    rows: Sequence[Row]


def honest_rows(draw: np.random.Generator) -> list[Row]:
    """Events of one batch: few items are popular, users stay in their group most of the time."""
    users = draw.integers(USERS, size=EVENTS)
    groups = np.where(draw.random(EVENTS) < 0.8, users % GROUPS, draw.integers(GROUPS, size=EVENTS))
    places = np.minimum(draw.geometric(0.08, size=EVENTS) - 1, ITEMS // GROUPS - 1)
    bought = draw.random(EVENTS) < 0.2
    return [
        (f"u{user}", f"i{group + GROUPS * place}", PURCHASE if buys else VIEW, 1)
        for user, group, place, buys in zip(users, groups, places, bought, strict=True)
    ]


def as_batch(rows: Sequence[Row], number: int) -> InteractionBatch:
    """Rows as the log has them: one for each user and item."""
    frame = pd.DataFrame(rows, columns=["user", "item", "weight", "events"])
    sums = frame.groupby(["user", "item"], sort=True).sum().reset_index()
    return InteractionBatch(
        user_ids=sums["user"].tolist(),
        item_ids=sums["item"].tolist(),
        weights=sums["weight"].to_numpy(np.float64),
        events=sums["events"].to_numpy(np.int64),
        times=np.full(len(sums), number * DAY),
    )


def many(users: Sequence[str], items: Sequence[str], weight: float, times: int) -> list[Row]:
    """Each of the users does the same with each of the items, so many times."""
    return [(user, item, weight * times, times) for user in users for item in items]


def named(prefix: str, count: int) -> list[str]:
    """Ids of users or items."""
    return [f"{prefix}{number}" for number in range(count)]


def attacks() -> list[Attack]:
    """All attacks. `i179` is the least popular item, `i0` the most popular one, `new` is in no other event."""
    bot, everything, popular = ["bot"], named("i", ITEMS), named("i", 10)
    return [
        Attack("one bot buys one item 100 times", many(bot, ["i179"], PURCHASE, 100)),
        Attack("one bot buys one item 1,000 times", many(bot, ["i179"], PURCHASE, 1_000)),
        Attack("one bot buys one item 100,000 times", many(bot, ["i179"], PURCHASE, 100_000)),
        Attack("one client buys one item a million times", many(["client"], ["i178"], PURCHASE, 1_000_000)),
        Attack("one bot buys a new item 10,000 times", many(bot, ["new"], PURCHASE, 10_000)),
        Attack("one bot views one item 20,000 times", many(bot, ["i179"], VIEW, 20_000)),
        Attack("one event of value 1,000,000", [("bot", "i179", 1e6, 1)]),
        Attack("a known user buys one item 5,000 times", many(["u7"], ["i179"], PURCHASE, 5_000)),
        Attack("a known user buys a group 200 times", many(["u7"], named("i", ITEMS)[3::GROUPS], PURCHASE, 200)),
        Attack("one user views everything 100 times", many(bot, everything, VIEW, 100)),
        Attack("one user views everything 10,000 times", many(bot, everything, VIEW, 10_000)),
        Attack("one user buys 20 items 500 times", many(bot, everything[-20:], PURCHASE, 500)),
        Attack("5 bots buy one item 1,000 times", many(named("bot", 5), ["i179"], PURCHASE, 1_000)),
        Attack("10 bots buy 3 items 1,000 times", many(named("bot", 10), everything[-3:], PURCHASE, 1_000)),
        Attack("50 bots buy one item 100 times", many(named("bot", 50), ["i179"], PURCHASE, 100)),
        Attack("20 bots view 5 items 500 times", many(named("bot", 20), everything[-5:], VIEW, 500)),
        Attack("30 bots view 3 items 300 times", many(named("bot", 30), everything[-3:], VIEW, 300)),
        Attack("200 fake users buy one item once", many(named("fake", 200), ["i179"], PURCHASE, 1)),
        Attack("200 fake users buy one item 10 times", many(named("fake", 200), ["i179"], PURCHASE, 10)),
        Attack("500 fake users view a new item 3 times", many(named("fake", 500), ["new"], VIEW, 3)),
        Attack("one user hates the best item 10,000 times", many(bot, ["i0"], DISLIKE, 10_000)),
        Attack("10 users hate 10 items 1,000 times", many(named("bot", 10), popular, DISLIKE, 1_000)),
        Attack("a known user hates everything 1,000 times", many(["u7"], everything, DISLIKE, 1_000)),
        Attack("views and dislikes that cancel out, 200,000", [("bot", "i179", 0.0, 200_000)]),
        Attack("5 bots tie one item to the best one", many(named("bot", 5), ["i0", "i179"], PURCHASE, 1_000)),
        Attack("5 bots tie one item to ten others", many(named("bot", 5), [*popular, "i179"], PURCHASE, 1_000)),
        Attack("burst of purchases of 30 items by one client", many(["client"], everything[-30:], PURCHASE, 3_000)),
    ]


def taught(settings: Settings, draw: np.random.Generator) -> OnlineModel:
    """The model before the attack."""
    model = OnlineModel(settings)
    for number in range(BATCHES):
        model.update(as_batch(honest_rows(draw), number), StepId(0, number))
    return model


def lists(settings: Settings, state: State, rows: Sequence[Row], users: Sequence[str]) -> list[set[str]]:
    """What the users are recommended after one more batch."""
    model = OnlineModel.from_state(settings, state, StepId(0, BATCHES - 1))
    model.update(as_batch(rows, BATCHES), StepId(0, BATCHES))
    return [{item for item, _ in best} for best in model.recommend(users, LENGTH)]


def changed(before: Sequence[set[str]], after: Sequence[set[str]]) -> float:
    """Share of the lists that have changed."""
    return float(np.mean([old != new for old, new in zip(before, after, strict=True)]))


def run(scripted: Sequence[Attack]) -> None:
    """Make the attacks and print a line for each, and one for all."""
    draw = np.random.default_rng(0)
    without = Settings.model_validate({"device": "cpu", "model": {"factors": 16}, "robustness": OFF})
    protected = without.model_copy(update={"robustness": Settings().robustness})
    model = taught(without, draw)
    state, honest = model.state(), honest_rows(draw)
    users = [*model.users.ids, *named("newcomer", USERS // 10)]
    pair = (without, protected)
    before = [lists(settings, state, honest, users) for settings in pair]
    assert before[0] == before[1], "the defaults leave an ordinary batch as it is"
    print(f"other honest events: {changed(before[0], lists(without, state, honest_rows(draw), users)):.2f}")
    shares = []
    print(f"{'attack':48} without  with")
    for attack in scripted:
        rows = [*honest, *attack.rows]
        found = [changed(old, lists(one, state, rows, users)) for one, old in zip(pair, before, strict=True)]
        shares.append(found)
        print(f"{attack.name:48} {found[0]:7.2f} {found[1]:5.2f}")
    medians = [statistics.median(column) for column in zip(*shares, strict=True)]
    print(f"attacks={len(shares)} changed_without={medians[0]:.3f} changed_with={medians[1]:.3f}")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    run(attacks())

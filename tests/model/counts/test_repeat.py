"""What users take again, against a version that keeps everything in dictionaries."""

from collections import defaultdict
from dataclasses import dataclass, field
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.model.counts.repeat import Repeat
from recsys.model.drift.surprise import AS_USUAL
from recsys.model.learner import CodedBatch
from recsys.serving import Lists
from recsys.serving.repeats import REPEAT_FEATURES
from tests.model.counts.test_trend import NO_HISTORY, STEP, coded
from tests.model.helpers import DAY, make_settings

HALF_LIFE, MOST = 10.0, 3
SETTINGS = make_settings(model={"mixture": {"repeat_half_life_days": HALF_LIFE, "repeats": MOST}})


def random_days(seed: int, batches: int = 12) -> list[CodedBatch]:
    generator = np.random.default_rng(seed)
    made = []
    for number in range(batches):
        pairs = np.unique(generator.integers((4, 6), size=(5, 2)), axis=0)
        rows = [(user, item, generator.choice([1.0, 1.0, -1.0]), 1, 0.0) for user, item in pairs.tolist()]
        # Now and then a batch comes late.
        days = number - 4 * (generator.random() < 0.2) + generator.random(len(rows))
        made.append(coded([(*row[:4], day * DAY) for row, day in zip(rows, days.tolist(), strict=True)], users=4))
    return made


def taught(batches: list[CodedBatch]) -> Repeat:
    learner = Repeat(SETTINGS)
    for batch in batches:
        learner.update(batch, NO_HISTORY, STEP, AS_USUAL)
    return learner


@dataclass
class SlowRepeats:
    """Everything that is counted, in dictionaries: of users' items, of users, and of items."""

    kept: dict[int, dict[int, dict[str, float]]] = field(default_factory=lambda: defaultdict(dict))
    users: dict[int, dict[str, float]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(float)))
    items: dict[int, dict[str, float]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(float)))
    now: float = 0.0
    most: int = MOST

    def take(self, user: int, item: int, day: float) -> None:
        own, habits, facts = self.kept[user], self.users[user], self.items[item]
        self.now = max(self.now, day)
        if not habits["baskets"] or day > habits["day"]:
            habits["baskets"], habits["day"] = habits["baskets"] + 1, day
        basket = habits["baskets"]
        facts["taken"] += 1
        habits["taken"] += 1
        if item not in own:
            if len(own) == self.most:
                del own[min(own, key=lambda other: own[other]["last"])]
            own[item] = dict.fromkeys(("counts", "lately", "fast", "slow"), 1.0)
            own[item] |= dict.fromkeys(("first", "last"), day) | dict.fromkeys(("first_basket", "last_basket"), basket)
            return
        pair = own[item]
        gap, passed = max(day - pair["last"], 0.0), basket - pair["last_basket"]
        facts["again"] += 1
        habits["again"] += 1
        facts["days"] += gap
        facts["baskets"] += passed
        for name, halvings in (("lately", gap / HALF_LIFE), ("fast", passed / 3), ("slow", passed / 12)):
            pair[name] = pair[name] / 2**halvings + 1
        pair["counts"] += 1
        pair["last"], pair["last_basket"] = pair["last"] + gap, basket

    def features(self, user: int, item: int) -> list[float]:
        """In the order of `REPEAT_FEATURES`."""
        pair, habits, facts = self.kept[user][item], self.users[user], self.items[item]
        total = {name: sum(one[name] for one in self.items.values()) for name in ("days", "baskets", "again")}
        since, passed = max(self.now - pair["last"], 0.0), habits["baskets"] - pair["last_basket"]
        # What is usual for all items is one more interval of the item, and the item's mean one more of the pair.
        usual_days = (facts["days"] + (total["days"] + 20) / (total["again"] + 1)) / (facts["again"] + 1)
        usual_baskets = (facts["baskets"] + (total["baskets"] + 20) / (total["again"] + 1)) / (facts["again"] + 1)
        days = (pair["last"] - pair["first"] + usual_days) / pair["counts"]
        baskets = (pair["last_basket"] - pair["first_basket"] + usual_baskets) / pair["counts"]
        due, over = log((since + 0.5) / (days + 0.5)), log((passed + 1) / (baskets + 1))
        lately, fast, slow = (
            log(1 + pair[name] / 2**halvings / 0.02)
            for name, halvings in (("lately", since / HALF_LIFE), ("fast", passed / 3), ("slow", passed / 12))
        )
        found = {
            "repeat": 1.0,
            "repeat_count": log(pair["counts"]),
            "repeat_recency": lately,
            "repeat_due": due,
            "repeat_overdue": min(due, 0.0),
            "repeat_rate": log((facts["again"] + 1) / (facts["taken"] + 5)),
            "repeat_share": log((pair["counts"] + 1) / (habits["baskets"] + 5)),
            "repeat_passed": log(1 + passed),
            "repeat_last": float(passed == 0),
            "repeat_last_three": float(passed < 3),
            "repeat_fast": fast,
            "repeat_slow": slow,
            "repeat_usual": over,
            "repeat_over_usual": min(over, 0.0),
            "repeat_age": log(1 + self.now - pair["first"]),
            "repeat_user": log((habits["again"] + 1) / (habits["taken"] + 5)),
        }
        assert tuple(found) == REPEAT_FEATURES
        return list(found.values())


def slowly(batches: list[CodedBatch]) -> SlowRepeats:
    slow = SlowRepeats()
    for batch in batches:
        for row in np.lexsort((batch.items, batch.times, batch.users)).tolist():
            if batch.weights[row] > 0:
                slow.take(int(batch.users[row]), int(batch.items[row]), batch.times[row] / DAY)
    return slow


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_what_is_kept_of_users_is_that_of_the_definition(seed: int) -> None:
    batches = random_days(seed)
    served, slow = taught(batches).served(NO_HISTORY), slowly(batches)
    facts = [served["occasions"], served["intervals"]]
    names = ("again", "taken", "days", "again", "baskets")
    np.testing.assert_allclose(np.concatenate(facts), [[slow.items[i][name] for i in range(6)] for name in names])
    np.testing.assert_array_equal(served["baskets"], [slow.users[user]["baskets"] for user in range(4)])
    for name, habits in zip(("again", "taken"), served["habits"], strict=True):
        np.testing.assert_array_equal(habits, [slow.users[user][name] for user in range(4)])
    for user in range(4):
        places = served["starts"][user] + np.arange(served["lengths"][user])
        assert set(served["items"][places].tolist()) == slow.kept[user].keys()
        for place in places.tolist():
            pair = slow.kept[user][int(served["items"][place])]
            assert {name: float(served[name][place]) for name in pair} == pytest.approx(pair, rel=1e-5)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_features_are_those_of_the_definition(seed: int) -> None:
    batches, users = random_days(seed), np.array([3, -1, 0, 2, 4])
    slow = slowly(batches)
    pairs, features = taught(batches).scorer().repeats(users)
    expected = [
        (owner, item, pair["counts"], *slow.features(user, item))
        for owner, user in enumerate(users.tolist())
        for item, pair in sorted(slow.kept[user].items())
    ]
    found = np.column_stack([pairs.owners, pairs.items, pairs.values, features])
    np.testing.assert_allclose(found, np.array(expected).reshape(found.shape), rtol=1e-5, atol=1e-5)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_recent_items_are_one_more_basket(seed: int) -> None:
    """As if it had been learned just now, but what is known of items in general stays; and nothing is dropped."""
    batches, draw = random_days(seed, batches=6), np.random.default_rng(seed)
    users, recent = np.array([2, 0, -1]), [draw.integers(0, 6, draw.integers(0, 5)) for _ in range(3)]
    lists = Lists.of(np.array([len(own) for own in recent]), np.concatenate(recent))
    pairs, features = taught(batches).scorer().with_recent(users, lists).repeats(np.arange(3))
    slow = slowly(batches)
    now, items = slow.now, {item: dict(facts) for item, facts in slow.items.items()}
    slow.most = 100
    for user, own in zip(users.tolist(), recent, strict=True):
        for item in own.tolist():
            slow.take(user, item, now + 1e-9)
    slow.now = now
    slow.items = defaultdict(lambda: defaultdict(float), {i: defaultdict(float, facts) for i, facts in items.items()})
    expected = [
        (owner, item, pair["counts"], *slow.features(user, item))
        for owner, user in enumerate(users.tolist())
        for item, pair in sorted(slow.kept[user].items())
    ]
    found = np.column_stack([pairs.owners, pairs.items, pairs.values, features])
    np.testing.assert_allclose(found, np.array(expected).reshape(found.shape), rtol=1e-5, atol=1e-5)


def test_a_restored_learner_goes_on_alike() -> None:
    batches = random_days(1, batches=30)
    whole, half = taught(batches), taught(batches[:15])
    again = Repeat.from_state(SETTINGS, {name: array.copy() for name, array in half.state().items()})
    for batch in batches[15:]:
        again.update(batch, NO_HISTORY, STEP, AS_USUAL)
    for name, array in whole.state().items():
        assert array.tobytes() == again.state()[name].tobytes(), name


def test_how_often_ranks_before_what_others_take() -> None:
    favorite = [coded([(0, 1, 1.0, 1, day * DAY)], users=4) for day in range(3)]
    crowd = coded([(0, 2, 1.0, 1, 3 * DAY), *((user, 3, 1.0, 1, 3 * DAY) for user in (1, 2, 3))], users=4)
    learner = taught([*favorite, crowd])
    scores = learner.score(np.array([0, -1])).numpy()
    assert np.argsort(-scores[0])[:3].tolist() == [1, 2, 3]
    assert scores[1].argmax() == 3
    users, items = np.array([0, 0, 3]), np.array([2, 1, 1])
    np.testing.assert_allclose(learner.score_pairs(users, items), [scores[0, 2], scores[0, 1], scores[1, 1]], rtol=1e-6)


def test_what_is_due_is_told_from_what_was_just_taken() -> None:
    weekly = [coded([(0, 1, 1.0, 1, 7 * week * DAY)], users=4) for week in range(6)]
    just = [coded([(0, 2, 1.0, 1, (1 + 7 * week) * DAY)], users=4) for week in range(6)]
    learner = taught(sorted([*weekly, *just], key=lambda batch: float(batch.times[0])))
    learner.update(coded([(1, 5, 1.0, 1, 42 * DAY)], users=4), NO_HISTORY, STEP, AS_USUAL)
    pairs, facts = learner.scorer().repeats(np.array([0]))
    due = dict(zip(pairs.items.tolist(), facts[:, 3].tolist(), strict=True))
    # Both are bought once a week; one was bought seven days ago, the other six.
    assert due[1] > due[2]
    assert abs(due[1]) < 0.5

"""Followers of items against their definition."""

from collections import defaultdict

import numpy as np
import pytest

from recsys.model.counts.cooccurrence import CoOccurrence
from recsys.model.drift.surprise import AS_USUAL
from tests.model.counts.test_trend import NO_HISTORY, STEP, coded, random_batches
from tests.model.helpers import make_settings

HALF_LIFE, WIDTH = 40.0, 3


def taught(batches: list, **mixture: int) -> CoOccurrence:
    sizes = {"cooccurrence_half_life": HALF_LIFE, "recent_items": WIDTH, "neighbors": 8} | mixture
    learner = CoOccurrence(make_settings(model={"mixture": sizes}))
    for batch in batches:
        learner.update(batch, NO_HISTORY, STEP, AS_USUAL)
    return learner


def slow_followers(batches: list) -> tuple[dict[tuple[int, int], float], dict[int, list[int]], np.ndarray]:
    """Decayed counts of (item, what came after it), each user's last items, newest first, and decayed counts."""
    clock, recent, counted, taken = 0.0, defaultdict(list), [], []
    for batch in batches:
        positions = {}
        for row in np.argsort(batch.times, kind="stable").tolist():
            clock += batch.events[row]
            positions[row] = clock
        for row in np.lexsort((batch.times, batch.users)).tolist():
            if batch.weights[row] <= 0:
                continue
            own, item = recent[int(batch.users[row])], int(batch.items[row])
            counted += [(before, item, positions[row]) for before in own if before != item]
            taken.append((item, positions[row]))
            own[:] = [item, *(other for other in own if other != item)][:WIDTH]
    end = max(position for _, position in taken)
    strengths, popular = defaultdict(float), np.zeros(6)
    for before, item, position in counted:
        strengths[before, item] += 2 ** ((position - end) / HALF_LIFE)
    for item, position in taken:
        popular[item] += 2 ** ((position - end) / HALF_LIFE)
    return strengths, recent, popular


@pytest.mark.parametrize("seed", range(4))
def test_strengths_and_recent_items_are_those_of_the_definition(seed: int) -> None:
    batches = random_batches(seed, batches=5 + 100 * (seed == 3))
    served = taught(batches).served(NO_HISTORY)
    strengths, recent, popular = slow_followers(batches)
    for item in range(6):
        own = {
            int(other) - 1: float(strength) * served["scale"][0]
            for other, strength in zip(served["neighbors"][item], served["strengths"][item], strict=True)
            if other
        }
        expected = {other: value for (before, other), value in strengths.items() if before == item}
        assert own == pytest.approx(expected, rel=1e-4, abs=1e-9)
        assert served["totals"][item] * served["scale"][0] == pytest.approx(sum(expected.values()))
    for user in range(30):
        assert [code - 1 for code in served["recent"][user].tolist() if code] == recent.get(user, [])
    np.testing.assert_allclose(served["share"], popular / max(popular.sum(), 1), rtol=1e-6)


def test_scores_are_mean_chances_with_the_share_where_little_is_known() -> None:
    batches = random_batches(5)
    learner, (strengths, recent, popular) = taught(batches), slow_followers(batches)
    share, totals = popular / popular.sum(), defaultdict(float)
    for (before, _), strength in strengths.items():
        totals[before] += strength
    scores = learner.score(np.arange(-1, 30)).numpy()
    np.testing.assert_allclose(scores[0], share, rtol=1e-5)
    for user in range(30):
        weights = 0.9 ** np.arange(len(recent.get(user, [])))
        expected = np.zeros(6) if len(weights) else share.copy()
        for weight, before in zip(weights / weights.sum(), recent.get(user, []), strict=True):
            own = np.array([strengths[before, item] for item in range(6)])
            expected += weight * (own + 5 * share) / (totals[before] + 5)
        np.testing.assert_allclose(scores[user + 1], expected, rtol=1e-4)
    users, items = np.array([3, 0, 3]), np.array([1, 5, 2])
    np.testing.assert_allclose(learner.score_pairs(users, items), scores[users + 1, items], rtol=1e-5)


def test_what_came_before_is_no_follower() -> None:
    scores = taught([coded([(user, item, 1.0, 1, float(item)) for user in range(9) for item in (0, 1)])]).scorer()
    pairs, _ = scores.chances(np.array([0]))
    # The user's last items are 1 and 0; only 1 follows anything.
    assert pairs.items.tolist() == [1]


def test_the_weakest_gives_its_place() -> None:
    rows = [(0, 0, 1.0, 1, 0.0), (1, 0, 1.0, 1, 0.0), (2, 0, 1.0, 1, 0.0), (3, 0, 1.0, 1, 0.0)]
    rows += [(0, 1, 1.0, 1, 1.0), (1, 1, 1.0, 1, 2.0), (2, 2, 1.0, 1, 3.0), (3, 3, 1.0, 1, 4.0)]
    served = taught([coded(rows)], neighbors=2).served(NO_HISTORY)
    assert set(served["neighbors"][0].tolist()) == {2, 4}

"""Neighbors within sessions against their definition."""

from collections import defaultdict

import numpy as np
import pytest

from recsys.model.counts.sessions import _GAP, Sessions
from recsys.model.drift.surprise import AS_USUAL
from recsys.model.learner import CodedBatch
from tests.model.counts.test_trend import NO_HISTORY, STEP, coded
from tests.model.helpers import make_settings

HALF_LIFE, WIDTH = 40.0, 5
Pairs = dict[tuple[int, int], float]


def taught(batches: list[CodedBatch]) -> Sessions:
    learner = Sessions(make_settings(model={"mixture": {"session_half_life": HALF_LIFE}}))
    for batch in batches:
        learner.update(batch, NO_HISTORY, STEP, AS_USUAL)
    return learner


def visits(seed: int, batches: int = 4) -> list[CodedBatch]:
    """Sessions with items at the same time, late events, and items that are taken back."""
    generator, made = np.random.default_rng(seed), []
    for number in range(batches):
        pairs = np.unique(generator.integers((8, 6), size=(25, 2)), axis=0)
        times = number * 4 * _GAP + generator.integers(0, 9, len(pairs)) * _GAP / 2 - (number > 1) * 5 * _GAP
        weights, events = generator.choice([-1.0, 0.5, 8.0], len(pairs)), generator.integers(1, 4, len(pairs))
        columns = (*pairs.T.tolist(), weights.tolist(), events.tolist(), times.tolist())
        made.append(coded(list(zip(*columns, strict=True))))
    return made


def slow_neighbors(batches: list[CodedBatch]) -> tuple[Pairs, dict[int, list[int]], np.ndarray]:
    """Decayed counts of (item, what came after it), each user's last items, newest first, and decayed counts."""
    clock, counted, taken = 0.0, [], []
    recent, last, tied = defaultdict(list), defaultdict(float), defaultdict(int)
    for batch in batches:
        positions = {}
        for row in np.argsort(batch.times, kind="stable").tolist():
            clock += batch.events[row]
            positions[row] = clock
        for row in np.lexsort((batch.items, batch.times, batch.users)).tolist():
            if batch.weights[row] <= 0:
                continue
            user, item, time = int(batch.users[row]), int(batch.items[row]), float(batch.times[row])
            own, taken = recent[user], [*taken, (item, positions[row])]
            together = [other for other in own[: tied[user]] if other != item]
            if 0 < time - last[user] <= _GAP:
                counted += [(other, item, positions[row], 1 / tied[user]) for other in together]
            elif time == last[user]:
                both = [pair for other in together for pair in ((other, item), (item, other))]
                counted += [(*pair, positions[row], 0.5) for pair in both]
            if time > last[user] or tied[user] == 0:
                last[user], tied[user] = time, 1
            elif time == last[user]:
                tied[user] = min(tied[user] + (item not in own[: tied[user]]), WIDTH)
            else:
                tied[user] = 0
            own[:] = [item, *(other for other in own if other != item)][:WIDTH]
    end = max(position for _, position in taken)
    after, popular = defaultdict(float), np.zeros(6)
    for before, item, position, amount in counted:
        after[before, item] += amount * 2 ** ((position - end) / HALF_LIFE)
    for item, position in taken:
        popular[item] += 2 ** ((position - end) / HALF_LIFE)
    return after, recent, popular


@pytest.mark.parametrize("seed", range(5))
def test_counts_of_both_directions_are_those_of_the_definition(seed: int) -> None:
    batches = visits(seed, batches=5 + 100 * (seed == 4))
    served = taught(batches).served(NO_HISTORY)
    after, recent, popular = slow_neighbors(batches)
    assert any(value % 1 for value in after.values())
    scale = float(served["scale"][0])
    for item in range(6):
        for side, expected in (
            ("after", {other: value for (before, other), value in after.items() if before == item}),
            ("before", {other: value for (other, follower), value in after.items() if follower == item}),
        ):
            own = {
                int(other) - 1: float(count) * scale
                for other, count in zip(served["others"][item], served[side][item], strict=True)
                if other and count
            }
            assert own == pytest.approx(expected, rel=1e-4, abs=1e-9)
            total = served["totals"][int(side == "before"), item]
            assert total * scale == pytest.approx(sum(expected.values()), rel=1e-5, abs=1e-9)
    for user in range(30):
        assert [code - 1 for code in served["recent"][user].tolist() if code] == recent.get(user, [])
    np.testing.assert_allclose(served["share"], popular / popular.sum(), rtol=1e-6)


def test_scores_are_mean_chances_of_both_directions() -> None:
    batches = visits(5)
    learner, (after, recent, popular) = taught(batches), slow_neighbors(batches)
    share, scores = popular / popular.sum(), learner.score(np.arange(-1, 30)).numpy()
    table = np.array([[after[item, other] for other in range(6)] for item in range(6)])
    np.testing.assert_allclose(scores[0], share, rtol=1e-5)
    for user in range(30):
        own = recent.get(user, [])
        weights, expected = 0.5 ** np.arange(len(own)), np.zeros(6) if own else share.copy()
        for weight, item in zip(weights / weights.sum(), own, strict=True):
            for side in (table, table.T):
                expected += weight / 2 * (side[item] + 5 * share) / (side[item].sum() + 5)
        np.testing.assert_allclose(scores[user + 1], expected, rtol=1e-4)
    users, items = np.array([3, 0, 3]), np.array([1, 5, 2])
    np.testing.assert_allclose(learner.score_pairs(users, items), scores[users + 1, items], rtol=1e-5)


def test_what_is_beside_the_last_item_is_told_from_the_rest() -> None:
    rows = [(user, item, 1.0, 1, 10.0 * item) for user in range(9) for item in (0, 1, 2)]
    scorer = taught([coded(rows)]).scorer()
    lists, chances, _ = scorer.neighbors(np.array([0]))
    found = dict(zip(lists.items.tolist(), chances.T.tolist(), strict=True))
    # The last items are 2, 1, 0. Item 1 is followed by 2 and preceded by 0; nothing follows 2.
    assert found[2][0] > 0 == found[2][1]
    assert found[0][0] == 0 < found[0][1]
    assert [own[2] for own in found.values()] == [0, 0, 0]


def test_the_weakest_neighbor_gives_its_place() -> None:
    visitors = [(user, item, 1.0, 1, time) for user in range(40) for item, time in ((0, 0.0), (1 + user, 1.0))]
    served = taught([coded([*visitors, (40, 0, 1.0, 1, 0.0), (40, 1, 1.0, 1, 0.5)], users=41, items=41)])
    others = served.served(NO_HISTORY)["others"][0]
    assert len(set(others.tolist())) == len(others) == 32
    assert 2 in others

"""Decayed shares against their definition, written out event by event."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.contracts import StepId
from recsys.model.counts.trend import Trend
from recsys.model.drift.surprise import AS_USUAL
from recsys.model.interactions.history import History
from recsys.model.learner import CodedBatch
from recsys.serving.scorers import GROUPS
from tests.model.helpers import make_settings

HALF_LIVES, SEGMENTS = [3.0, 20.0], [10.0]
SETTINGS = make_settings(model={"mixture": {"half_lives": HALF_LIVES, "segment_half_lives": SEGMENTS}})
STEP, NO_HISTORY = StepId(0, 0), History(None)


def coded(rows: list[tuple[int, int, float, int, float]], users: int = 30, items: int = 6) -> CodedBatch:
    """A batch of (user, item, weight, events, time)."""
    columns = list(zip(*rows, strict=True)) or [()] * 5
    ids = [np.array(column, dtype=np.int64) for column in columns[:2]]
    weights, events, times = (np.array(column, dtype=np.float64) for column in columns[2:])
    return CodedBatch(
        *ids,
        weights,
        events.astype(np.int64),
        times,
        np.ones(len(rows), bool),
        users,
        items,
        *np.empty((3, 0), np.int64),
        np.zeros((0, 0), np.int8),
    )


def random_batches(seed: int, batches: int = 4) -> list[CodedBatch]:
    generator = np.random.default_rng(seed)
    made = []
    for number in range(batches):
        pairs = np.unique(generator.integers((30, 6), size=(25, 2)), axis=0)
        times = number * 100.0 + generator.permutation(len(pairs))
        weights, events = generator.choice([-1.0, 0.5, 8.0], len(pairs)), generator.integers(1, 4, len(pairs))
        columns = (*pairs.T.tolist(), weights.tolist(), events.tolist(), times.tolist())
        made.append(coded(list(zip(*columns, strict=True))))
    return made


def taught(batches: list[CodedBatch]) -> Trend:
    trend = Trend(SETTINGS)
    for batch in batches:
        trend.update(batch, NO_HISTORY, STEP, AS_USUAL)
    return trend


def slow_counts(batches: list[CodedBatch]) -> dict[str, np.ndarray]:
    """Everything that is counted, event by event in the order of time."""
    clock, rows, taken = 0.0, np.zeros(30, dtype=int), []
    for batch in batches:
        before = rows.copy()
        for row in np.argsort(batch.times, kind="stable").tolist():
            clock += batch.events[row]
            user = batch.users[row]
            group = 0 if before[user] == 0 else 1 if before[user] < 20 else 2
            if batch.weights[row] > 0:
                taken.append((clock, int(batch.items[row]), group, int(batch.events[row])))
            rows[user] += 1
    counts, segments = np.zeros((len(HALF_LIVES), 6)), np.zeros((len(GROUPS), len(SEGMENTS), 6))
    first, last = np.zeros(6), np.zeros(6)
    end = max((position for position, *_ in taken), default=0.0)
    for position, item, group, events in taken:
        for place, half_life in enumerate(HALF_LIVES):
            counts[place, item] += events * 2 ** ((position - end) / half_life)
        for place, half_life in enumerate(SEGMENTS):
            segments[group, place, item] += events * 2 ** ((position - end) / half_life)
        first[item], last[item] = first[item] or position, position
    return {"counts": counts, "segment_counts": segments, "first": first, "last": last, "rows_of_users": rows}


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_the_definition(seed: int) -> None:
    batches = random_batches(seed, batches=2 + 20 * seed)
    served = taught(batches).served(NO_HISTORY)
    for name, expected in slow_counts(batches).items():
        np.testing.assert_allclose(served[name], expected, rtol=1e-9, atol=1e-12, err_msg=name)


def test_what_an_event_weighs_does_not_matter_unless_it_is_a_dislike() -> None:
    rows = [(0, 0, 1.0, 1, 0.0), (1, 1, 500.0, 1, 1.0), (2, 2, -1.0, 1, 2.0)]
    counts = taught([coded(rows)]).served(NO_HISTORY)["counts"]
    assert counts[0, 1] > counts[0, 0] > counts[0, 2] == 0


@given(st.integers(0, 100), st.integers(1, 99))
def test_where_a_batch_ends_does_not_matter_to_shares_of_all(seed: int, cut: int) -> None:
    (batch,) = random_batches(seed, batches=1)
    order = np.argsort(batch.times)
    rows = list(zip(batch.users, batch.items, batch.weights, batch.events, batch.times, strict=True))
    ordered = [rows[place] for place in order.tolist()]
    parts = [part for part in (ordered[: cut % len(rows)], ordered[cut % len(rows) :]) if part]
    whole, split = (taught(batches).served(NO_HISTORY) for batches in ([batch], [coded(part) for part in parts]))
    for name in ("counts", "first", "last", "rows_of_users", "clock"):
        np.testing.assert_allclose(whole[name], split[name], rtol=1e-9)


def test_short_half_lives_are_drawn_to_the_longer_ones() -> None:
    scorer = taught(random_batches(7)).scorer()
    served = taught(random_batches(7)).served(NO_HISTORY)
    longest = (served["counts"][1] + 20 / 6) / (served["counts"][1].sum() + 20)
    shortest = (served["counts"][0] + 20 * longest) / (served["counts"][0].sum() + 20)
    np.testing.assert_allclose(np.exp(scorer.overall), [shortest, longest])
    np.testing.assert_allclose(np.exp(scorer.overall).sum(axis=1), 1)
    # The nearest to ten events on a scale of ratios is twenty.
    cold = served["segment_counts"][0, 0]
    np.testing.assert_allclose(np.exp(scorer.segments[0, 0]), (cold + 20 * longest) / (cold.sum() + 20))


def test_leaders_are_the_first_of_any_list() -> None:
    scorer = taught(random_batches(3)).scorer()
    for group in range(3):
        items, ranks = scorer.leaders(group, 2)
        lists = [*scorer.overall, *scorer.segments[group]]
        orders = [sorted(range(6), key=lambda item, shares=shares: (-shares[item], item)) for shares in lists]
        best = {item: min(order.index(item) for order in orders) for item in range(6)}
        assert dict(zip(items.tolist(), ranks.tolist(), strict=True)) == {i: r for i, r in best.items() if r < 2}
        assert (np.diff(ranks) >= 0).all()


def test_a_new_trend_overtakes_an_old_favorite() -> None:
    old = coded([(user, 0, 1.0, 1, float(user)) for user in range(25)])
    new = coded([(user, 1, 1.0, 1, 100.0 + user) for user in range(8)])
    shares = taught([old, new]).scorer().overall
    assert shares[0, 1] > shares[0, 0]
    assert shares[1, 1] < shares[1, 0]

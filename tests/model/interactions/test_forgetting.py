"""Forgetting of the parts that hold ids and pairs: codes stay dense, and what stays keeps what it had."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.common.arrays import GrowingArray
from recsys.model.interactions.forgetting import LastSeen, idle_before
from recsys.model.interactions.history import History
from recsys.model.interactions.keeping import Kept, KeptRows
from recsys.model.interactions.vocab import Vocabulary
from tests.model.helpers import DAY
from tests.model.interactions.test_history import EVENTS, Event, add, filled

STAYING = st.lists(st.booleans(), min_size=6, max_size=6)


def rows_of(stays: list[bool]) -> KeptRows:
    return KeptRows.of(np.array(stays, dtype=bool))


def test_codes_stay_dense_and_in_order() -> None:
    rows = rows_of([True, False, False, True, True])
    assert rows.codes.tolist() == [0, 3, 4]
    assert rows.renumbered.tolist() == [0, -1, -1, 1, 2]
    slots = np.array([[0, 1, 2], [5, 4, 3]], dtype=np.int32)
    renumbered = rows.in_slots(slots)
    assert renumbered.tolist() == [[0, 1, 0], [3, 2, 0]]
    assert renumbered.dtype == np.int32


def test_ids_that_stay_keep_their_order_and_forgotten_ones_are_new() -> None:
    vocabulary = Vocabulary("abcd").kept(rows_of([False, True, False, True]))
    assert vocabulary.ids == ["b", "d"]
    assert vocabulary.extend(["a", "d"]).tolist() == [2, 1]


def test_an_array_keeps_places_and_grows_on() -> None:
    array = GrowingArray([1, 2, 3, 4], np.int64)
    array.append([5])
    array.keep(np.array([1, 4]))
    assert array.values.tolist() == [2, 5]
    array.resize(3)
    assert array.values.tolist() == [2, 5, 0]
    assert array.nbytes <= 3 * 8


def test_idle_rows_are_looked_for_once_in_an_eighth() -> None:
    """Eight days, so a period is a day."""
    times = np.array([99.0, 100.0, 100.9]) * DAY
    assert idle_before(8.0, 99.9 * DAY, times) == 92 * DAY
    assert idle_before(8.0, 100.1 * DAY, times) is None
    assert idle_before(8.0, 90.0 * DAY, np.array([99.2 * DAY])) == 91 * DAY
    assert idle_before(8.0, 99.2 * DAY, np.array([90.0 * DAY])) is None
    assert idle_before(8.0, 99.2 * DAY, np.zeros(0)) is None


def test_whoever_the_batch_brings_is_not_idle() -> None:
    seen = LastSeen()
    seen.see(np.array([0, 1, 2, 1]), np.array([0, 1, 1, 0]), np.array([5.0, -9.0, -3.0, 4.0]), 3, 2)
    seen = LastSeen(seen.state)
    assert seen.state["users"].tolist() == [5.0, 4.0, -3.0]
    assert seen.state["items"].tolist() == [5.0, -3.0]
    kept = seen.kept(5.0, np.array([2, -1]), np.array([-1]))
    assert (kept.users.codes.tolist(), kept.items.codes.tolist()) == ([0, 2], [0])
    seen.keep(kept)
    assert (seen.state["users"].tolist(), seen.state["items"].tolist()) == ([5.0, -3.0], [5.0])


def pairs_of(history: History) -> dict[tuple[int, int], float]:
    """Pairs in the order of appearance, with their weights."""
    keys = history.state()["keys"].astype(np.int64)
    rows = history.user_rows(np.arange(len(history.by_user)))
    owners = np.repeat(np.arange(len(rows.lengths)), rows.lengths)
    weights = dict(zip(zip(owners.tolist(), rows.others.tolist(), strict=True), rows.weights.tolist(), strict=True))
    return {pair: weights[pair] for pair in zip((keys >> 32).tolist(), (keys & 0xFFFFFFFF).tolist(), strict=True)}


@given(EVENTS, EVENTS, STAYING, STAYING, st.sampled_from([None, 0.5, 30.0]))
def test_a_history_keeps_the_pairs_of_what_stays_and_goes_on_as_from_its_state(
    events: list[Event], later: list[Event], users: list[bool], items: list[bool], half_life_days: float | None
) -> None:
    history = filled(half_life_days, [events])
    before, kept = pairs_of(history), Kept(rows_of(users), rows_of(items))
    history.keep(kept, history.lasting(kept))
    expected = {
        (int(kept.users.renumbered[user]), int(kept.items.renumbered[item])): weight
        for (user, item), weight in before.items()
        if users[user] and items[item] and (abs(weight) >= 2.0**-20 or weight == 0)
    }
    assert list(pairs_of(history).items()) == list(expected.items())
    for side, rows in ((history.by_user, history.user_rows), (history.by_item, history.item_rows)):
        held = rows(np.arange(len(side)))
        owners = np.repeat(np.arange(len(side)), held.lengths)
        totals = np.bincount(owners, np.abs(held.weights), minlength=len(side))
        np.testing.assert_allclose(side.total.values * history.scale, totals, rtol=1e-12)
    copy = History.from_state(half_life_days, history.state())
    for each in (history, copy):
        each.add_rows(6, 6)
        add(each, later)
    for name, array in history.state().items():
        assert array.tobytes() == copy.state()[name].tobytes(), name


def test_pairs_that_have_faded_go_and_those_that_cancel_out_stay() -> None:
    """After 20 half-lives a weight of 1 is exactly 2^-20, and after 21 it is less."""
    history = filled(1.0, [[(0, 0, 1.0, 0.0), (0, 1, 1.0, 1.0), (1, 1, -1.0, 0.0), (1, 2, 2.0, 0.0)]])
    add(history, [(2, 2, 0.0, 21.0), (3, 3, 1.0, 21.0), (3, 3, -1.0, 21.0)])
    everyone = Kept(rows_of([True] * 6), rows_of([True] * 6))
    history.keep(everyone, history.lasting(everyone))
    assert list(pairs_of(history)) == [(0, 1), (1, 2), (2, 2), (3, 3)]
    assert history.has_pairs(np.array([0, 0]), np.array([0, 1])).tolist() == [False, True]


@pytest.mark.parametrize("half_life_days", [None, 3.0])
def test_a_history_that_forgets_stays_small(half_life_days: float | None) -> None:
    history, sizes = History(half_life_days), []
    history.add_rows(1_500, 200)
    generator, stays = np.random.default_rng(0), np.arange(1_500) >= 500
    for day in range(60):
        users, items = 1_000 + generator.integers(0, 500, 2_000), generator.integers(0, 200, 2_000)
        history.add(users, items, np.ones(2_000), np.full(2_000, day * DAY))
        kept = Kept(KeptRows.of(stays), KeptRows.of(np.ones(200, dtype=bool)))
        history.keep(kept, history.lasting(kept))
        history.add_rows(1_500, 200)
        sizes.append(history.nbytes)
    assert max(sizes) < 1.3 * max(sizes[:6])

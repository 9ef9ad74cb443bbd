"""Which lists are explored, which item they get, and what explored places make of the other lists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recsys.scoring.composition import Composed
from recsys.scoring.exploration import ENOUGH, Exploration, Explorer, LiftedRanker, Posterior
from recsys.serving import Lists, Ranker
from tests.registry.served import served_arrays

USERS, ITEMS, K = 30, 25, 6
KNOWN = [f"i{row}" for row in range(ITEMS)]
PEOPLE = [f"u{row}" for row in range(USERS)]
NEW = ["new", "newer", "newest"]
HIDDEN = [*NEW, "i3", "i7"]
NOTHING = np.zeros(len(HIDDEN))


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    return Ranker(served_arrays(PEOPLE, KNOWN, factors=8))


def listed(ranked) -> list[list[int]]:
    return [own.tolist() for own in np.split(ranked.items, np.cumsum(ranked.lengths)[:-1])]


def explorer_of(ranker: Ranker, posterior: Posterior, share: float, seed: int, place: int = 2) -> Explorer:
    rows = np.array([KNOWN.index(item) if item in KNOWN else -1 for item in posterior.item_ids])
    return Explorer(Exploration(share, place, str(seed), posterior), ranker, USERS, rows, True, True)


@hypothesis_settings(deadline=None)  # The first example compiles.
@given(seed=st.integers(0, 2**32), share=st.sampled_from([0.0, 0.05, 0.2, 0.5]))
def test_only_the_place_of_drawn_lists_changes_and_draws_repeat(ranker: Ranker, seed: int, share: float) -> None:
    asked = np.arange(-1, USERS), np.full(USERS + 1, K), np.ones(USERS + 1, dtype=bool)
    people, plain = ["stranger", *PEOPLE], ranker.rank(*asked)
    excluded = Lists.of(np.ones(USERS + 1, dtype=np.int64), np.full(USERS + 1, 3))
    found = []
    for _ in range(2):
        explorer = explorer_of(ranker, Posterior.of(HIDDEN, NOTHING, NOTHING, (0, 0)), share, seed)
        ranked = explorer.ranker.rank(*asked)
        assert listed(ranked) == listed(plain), "nothing is known of any item"
        found.append(explorer.of(ranked, asked[0], people, excluded))
    explored = found[0]
    assert (explored.lists.items == found[1].lists.items).all()
    assert (explored.marks == found[1].marks).all()
    seen = [set(own) for own in listed(ranker.rank(asked[0], np.full(USERS + 1, ITEMS), asked[2]))]
    for user, (own, before) in enumerate(zip(listed(explored.lists), listed(plain), strict=True)):
        differing = [place for place in range(K) if own[place] != before[place]]
        assert differing == ([2] if explored.marks[user] == 1 else [])
        if differing:
            assert own[2] >= ITEMS or (own[2] in seen[user] and own[2] in (3, 7) and own[2] not in before)
            assert own[2] != 3, "it is excluded"
    assert explored.marks[0] == 0, "a user without an id of a list"
    ends = explored.ends(["x"] * (USERS + 1))
    assert [end[:1] for end in ends] == [{1: "+", -1: "=", 0: ""}[mark] for mark in explored.marks.tolist()]


def test_chances_are_those_that_are_stated() -> None:
    people = [f"person {number}" for number in range(20_000)]
    for share in (0.05, 0.5):
        drawn = Exploration(share, 2, "7", Posterior.of(HIDDEN, NOTHING, NOTHING, (0, 0))).drawn(people)
        error = np.sqrt(share * (1 - share) / len(people))
        for mark in (1, -1):
            assert abs((drawn == mark).mean() - share) < 4 * error


def test_items_are_drawn_by_their_click_rates_until_they_were_shown_enough() -> None:
    impressions, clicks = np.array([200.0, 200, 0, 200, ENOUGH]), np.array([20.0, 2, 0, 2, 500])
    posterior = Posterior.of(HIDDEN, impressions, clicks, (300, 30))
    exploration = Exploration(0.5, 2, "7", posterior)
    first = [posterior.item_ids[exploration.order(f"u{number}")[0]] for number in range(4_000)]
    times = {item: first.count(item) for item in HIDDEN}
    # As often as an independent simulation of the same distributions has them first.
    rate = (clicks.sum() + 1) / (impressions.sum() + 20)
    draws = np.random.default_rng(1).beta(1 + clicks[:4], 1 / rate - 1 + (impressions - clicks)[:4], (20_000, 4))
    shares = np.bincount(draws.argmax(axis=1), minlength=4) / 20_000
    for item, share in zip(HIDDEN[:4], shares.tolist(), strict=True):
        assert times[item] / 4_000 == pytest.approx(share, abs=0.03)
    assert times[HIDDEN[4]] == 0


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_lifted_lists_are_those_of_a_slow_oracle(ranker: Ranker, exclude_seen: bool) -> None:
    items, rates, control, place = np.array([3, 7, 11]), np.array([0.3, 0.2, 1e-9]), 0.1, 2
    lifted = LiftedRanker(ranker, USERS, items, rates, control, place, exclude_seen)
    rows = np.arange(USERS)
    whole = ranker.rank(rows, np.full(USERS, ITEMS), np.full(USERS, exclude_seen))
    scores = np.full((USERS, ITEMS), -np.inf)
    scores[np.repeat(rows, whole.lengths), whole.items] = whole.scores
    odds = np.exp([np.sort(own)[::-1][place] for own in scores]).mean()
    for item, rate in zip(items.tolist(), rates.tolist(), strict=True):
        own = scores[:, item][np.isfinite(scores[:, item])]
        scores[:, item] += max(np.log(rate / control * odds / np.exp(own.astype(np.float64)).mean()), 0)
    orders = [np.argsort(-own, kind="stable") for own in scores]
    wanted = [order[np.isfinite(scores[user, order])] for user, order in enumerate(orders)]
    asked = np.full(USERS, K), np.full(USERS, exclude_seen)
    assert listed(lifted.rank(rows, *asked)) == [order[:K].tolist() for order in wanted]
    some = [np.array([1, 3, 7, 20])] * USERS
    assert listed(lifted.rank_candidates(rows, *asked, some)) == [
        [item for item in order.tolist() if item in (1, 3, 7, 20)] for order in wanted
    ]


def test_nothing_is_lifted_without_evidence(ranker: Ranker) -> None:
    few = Posterior.of(["i3"], np.array([20.0]), np.array([2.0]), (500, 10))
    assert few.least.tolist() == [0.0]
    assert Posterior.of(["i3"], np.array([20.0]), np.array([12.0]), (500, 10)).least[0] > 0.1
    nobody = LiftedRanker(ranker, 0, np.array([3]), np.array([0.5]), 0.1, 2, True)
    ranked = nobody.rank(np.array([4]), np.array([K]), np.array([True]))
    assert listed(ranked) == listed(ranker.rank(np.array([4]), np.array([K]), np.array([True])))


def test_allowed_items_and_short_lists(ranker: Ranker) -> None:
    posterior = Posterior.of(HIDDEN, NOTHING, NOTHING, (0, 0))
    rows = np.array([KNOWN.index(item) if item in KNOWN else -1 for item in posterior.item_ids])
    how = Exploration(0.5, 2, "1", posterior)
    people = [f"u{number}" for number in range(USERS)]
    asked = np.arange(USERS), np.full(USERS, K), np.zeros(USERS, dtype=bool)
    nothing = Lists.empty(USERS)
    none = Explorer(how, ranker, USERS, rows, False, True, np.zeros(len(rows), dtype=bool))
    ranked = none.ranker.rank(*asked)
    assert (none.of(ranked, asked[0], people, nothing).marks <= 0).all()
    short = Composed(np.full(USERS, 2), np.tile([0, 1], USERS), np.zeros(2 * USERS, dtype=np.float32))
    assert (none.of(short, asked[0], people, nothing).marks == 0).all(), "there is no such place"
    assert Posterior.of([], np.zeros(0), np.zeros(0), (0, 0)).least.tolist() == []

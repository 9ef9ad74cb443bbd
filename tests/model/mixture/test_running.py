"""Running sessions: what is asked about a batch, and that the mixture learns from it what comes next."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from recsys.contracts import StepId
from recsys.model.interactions.history import History
from recsys.model.mixture import running
from recsys.model.mixture.live import FoldInBefore
from recsys.model.mixture.mixture import Mixture
from recsys.model.mixture.running import RunningSessions
from recsys.model.recommender import OnlineModel
from recsys.serving import Answers, Lists, Ranker
from recsys.serving.fold_in import FoldIn
from recsys.serving.scorers import GROUPS
from tests.model.als.test_incremental_als import learn
from tests.model.counts.test_trend import coded
from tests.model.helpers import DAY, clustered_batches, make_batch, make_settings
from tests.model.mixture.test_mixture import settings_of

STEP = StepId(0, 3)


def of(rows: list[tuple[Any, ...]], known: int = 100, exclude_seen: bool = False, **more: Any) -> RunningSessions:
    settings = make_settings(recommend={"exclude_seen": exclude_seen})
    return RunningSessions.of(replace(coded(rows, users=90), **more), known, settings, STEP)


def spelled(found: RunningSessions) -> dict[int, tuple[list[int], int]]:
    given = [found.given.of_users(np.array([place])).items.tolist() for place in range(len(found.users))]
    return dict(zip(found.users.tolist(), zip(given, found.targets.tolist(), strict=True), strict=True))


def test_the_last_item_is_asked_for_given_the_known_ones_before_it() -> None:
    rows = [(0, 4, 1.0, 1, 2.0), (0, 1, 1.0, 1, 3.0), (0, 3, 1.0, 1, 1.0), (0, 2, -1.0, 1, 9.0)]
    rows += [(1, 5, 1.0, 1, 1.0), (2, 1, 1.0, 1, 5.0), (2, 5, 1.0, 1, 4.0), (3, 2, 1.0, 1, 5.0), (3, 1, 1.0, 1, 4.0)]
    assert spelled(of(rows)) == {0: ([3, 4], 1), 2: ([5], 1), 3: ([1], 2)}
    # Item 5 is not known before the batch; item 2 may come last all the same.
    assert spelled(of(rows, known=5)) == {0: ([3, 4], 1), 3: ([1], 2)}
    assert spelled(of(rows, known=2)) == {3: ([1], 2)}


def test_what_is_no_next_item_is_not_asked_for() -> None:
    rows = [(0, 4, 1.0, 1, 1.0), (0, 2, 1.0, 1, 2.0), (0, 2, 1.0, 1, 4000.0)]
    assert spelled(of(rows)) == {}
    again = [(0, 4, 1.0, 1, 1.0), (0, 2, 1.0, 1, 2.0), (0, 4, 1.0, 1, 4000.0)]
    assert spelled(of(again)) == {0: ([4, 2], 4)}
    assert spelled(of(again, exclude_seen=True)) == {}
    rows = [(0, 4, 1.0, 1, 1.0), (0, 2, 1.0, 1, 2.0)]
    for seen, expected in (([True, False], {0: ([4], 2)}), ([False, True], {})):
        assert spelled(of(rows, exclude_seen=True, new_pairs=~np.array(seen))) == expected


def test_order_within_one_instant_is_drawn_and_many_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    found = of([(user, item, 1.0, 1, 5.0) for user in range(90) for item in (0, 1, 2)])
    assert np.bincount(found.targets).min() > 15
    monkeypatch.setattr(running, "_MOST_USERS", 7)
    monkeypatch.setattr(running, "_MOST_ITEMS", 2)
    cut = of([(user, item, 1.0, 1, float(item)) for user in range(30) for item in range(user % 6)])
    assert len(cut.users) == 7
    assert (np.diff(cut.users) > 0).all()
    expected = {user: ([*range(user % 6 - 1)][-2:], user % 6 - 1) for user in cut.users.tolist()}
    assert spelled(cut) == expected


@pytest.mark.parametrize("half_life_days", [None, 0.5])
def test_users_are_folded_in_with_what_they_had_before_the_batch(half_life_days: float | None) -> None:
    batches = clustered_batches(6, 120)
    settings = make_settings(
        model={"kind": "als", "factors": 4}, decay={"half_life_days": half_life_days}, recommend={"exclude_seen": False}
    )
    model, asked = learn(OnlineModel(settings), batches[:5]), {}
    # Before the batch, whose history holds items that the learner does not know yet.
    of_items = {name: array.copy() for name, array in model.learner.served(model.history).items()}

    class Watching(type(model.learner)):  # type: ignore[misc]
        def update(self, batch: Any, history: History, *others: Any) -> dict[str, float]:
            users = np.unique(batch.users)
            asked["users"], asked["fold_in"] = users, FoldInBefore(self, users, batch, history)
            asked["scale"], known = history.scale, len(self.item_factors)
            recent = Lists.of(np.full(len(users), 2), np.arange(2 * len(users)) % known)
            rows = np.where(users < len(self.user_factors), users, -1)
            asked["factors"], asked["recent"] = asked["fold_in"].factors(rows, recent), recent
            return super().update(batch, history, *others)

    before = model.seen(np.arange(len(model.users)))
    rows, scale = model.history.user_rows(np.arange(len(model.users))), model.history.scale
    owners = np.repeat(np.arange(len(model.users)), rows.lengths)
    triples = zip(owners.tolist(), rows.others.tolist(), rows.weights.tolist(), strict=True)
    weights = {(user, item): weight for user, item, weight in triples}
    model.learner.__class__ = Watching
    model.update(batches[5], StepId(0, 5))
    fold_in = asked["fold_in"]
    # Time has passed for what was there before.
    aged = asked["scale"] / scale
    owners, items = np.divmod(fold_in.keys, len(model.items))
    for place, user in enumerate(asked["users"].tolist()):
        own = owners == place
        found = dict(zip(items[own].tolist(), fold_in.weights[own].tolist(), strict=True))
        known = user < len(before.lengths)
        had = before.items[before.offsets[user] : before.offsets[user + 1]].tolist() if known else []
        assert found == pytest.approx({item: weights[user, item] * aged for item in had}, rel=1e-4, abs=1e-6)
    # Solved as a version solves them.
    seen = {"seen_offsets": np.searchsorted(owners, np.arange(len(asked["users"]) + 1)), "seen_items": items}
    served = FoldIn({**of_items, **seen, "seen_weights": fold_in.weights})
    expected = served.factors(np.arange(len(asked["users"])), asked["recent"], asked["factors"])
    np.testing.assert_allclose(asked["factors"], expected, rtol=1e-3, atol=1e-4)


def chains(seed: int, batches: int = 20) -> list[Any]:
    """Users walk along a ring of items, from anywhere: only what came last tells what is next."""
    generator, made = np.random.default_rng(seed), []
    for number in range(batches):
        rows = []
        for visit in range(30):
            start, user = generator.integers(0, 40), generator.integers(0, 200)
            rows += [
                (f"u{user}", f"i{(start + step) % 40}", 1.0, number * DAY + 60.0 * (10 * visit + step))
                for step in range(4)
            ]
        made.append(make_batch(rows))
    return made


def in_session(model: OnlineModel) -> float:
    """Share of next items that are the first of a served list."""
    answers = Answers(Ranker(model.served().packed()), 1, False, {})
    asked = {
        "user_id": [f"u{user}" for user in range(40)],
        "recent_items": [[f"i{(user + step) % 40}" for step in range(3)] for user in range(40)],
    }
    found = answers.of("recommend", asked)["item_ids"]
    return float(np.mean([own == [f"i{(user + 3) % 40}"] for user, own in enumerate(found)]))


def test_what_comes_next_is_learned_and_served_with_recent_items() -> None:
    settings = settings_of(exclude_seen=False, k=5)
    model = learn(OnlineModel(settings), chains(0))
    assert in_session(model) > 0.9
    without = settings_of(exclude_seen=False, k=5, members=["als", "trend", "cooccurrence", "repeat"])
    assert in_session(learn(OnlineModel(without), chains(0))) < 0.7


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_sessions_say_nothing_where_none_is_running(exclude_seen: bool) -> None:
    members = ["als", "trend", "cooccurrence", "repeat"]
    batches = clustered_batches(8, 120)
    plain, more = (
        learn(OnlineModel(settings_of(exclude_seen, members=own)), batches) for own in (members, [*members, "sessions"])
    )
    users = np.arange(-1, len(plain.users))
    np.testing.assert_array_equal(plain.scorer().score(users), more.scorer().score(users))
    for name, array in plain.learner.state().items():
        if not name.startswith("running."):
            np.testing.assert_array_equal(array, more.learner.state()[name], name)


def test_before_there_was_a_session_users_are_served_as_without_one() -> None:
    alone = [
        make_batch([(f"u{user}", f"i{(user + 7 * number) % 9}", 1.0, number * DAY) for user in range(30)])
        for number in range(6)
    ]
    learner = learn(OnlineModel(settings_of(exclude_seen=False)), alone).learner
    assert isinstance(learner, Mixture)
    for name in ("weights", "chances", "calibration"):
        array = learner._arrays()[name]
        np.testing.assert_array_equal(array[: len(GROUPS)], array[len(GROUPS) :])

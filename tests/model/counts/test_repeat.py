"""What users take again, against a version that keeps everything in dictionaries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.model.counts.repeat import Repeat
from recsys.model.drift.surprise import AS_USUAL
from recsys.model.learner import CodedBatch
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


def slow_repeats(batches: list[CodedBatch]) -> tuple[dict[int, dict[int, list[float]]], np.ndarray]:
    """For each user the items with [count, lately, first, last], and for all items the four facts."""
    kept: dict[int, dict[int, list[float]]] = {}
    facts = np.zeros((4, 6))
    for batch in batches:
        for row in np.lexsort((batch.items, batch.times, batch.users)).tolist():
            if batch.weights[row] <= 0:
                continue
            own, item, day = (
                kept.setdefault(int(batch.users[row]), {}),
                int(batch.items[row]),
                batch.times[row] / DAY,
            )
            facts[1, item] += 1
            if item in own:
                count, lately, first, last = own[item]
                gap = max(day - last, 0.0)
                facts[:, item] += [1, 0, gap, 1]
                own[item] = [count + 1, lately * 2 ** (-gap / HALF_LIFE) + 1, first, last + gap]
                continue
            if len(own) == MOST:
                del own[min(own, key=lambda other: own[other][3])]
            own[item] = [1.0, 1.0, day, day]
    return kept, facts


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_what_is_kept_of_users_is_that_of_the_definition(seed: int) -> None:
    batches = random_days(seed)
    served = taught(batches).served(NO_HISTORY)
    kept, facts = slow_repeats(batches)
    np.testing.assert_allclose(np.concatenate([served["occasions"], served["intervals"]]), facts)
    for user in range(4):
        places = served["starts"][user] + np.arange(served["lengths"][user])
        own = {
            int(served["items"][place]): [float(served[name][place]) for name in ("counts", "lately", "first", "last")]
            for place in places
        }
        assert own.keys() == kept.get(user, {}).keys()
        for item, numbers in own.items():
            assert numbers == pytest.approx(kept[user][item], rel=1e-5)


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

"""What every kind of version answers: laws of its lists, its scores, its explanations and of recent items."""

import json
from functools import cache
from typing import Any

import numpy as np
import pytest

from recsys.contracts import StepId
from recsys.model.recommender import LEARNERS, OnlineModel
from recsys.registry.signature import COLUMNS, SCORES, TASKS
from recsys.serving import Answers, Lists, Ranker, RefusedError, Wishes
from recsys.serving.inputs import MOST_RECENT
from recsys.serving.version import absent_arrays
from tests.model.als.test_incremental_als import learn
from tests.model.helpers import clustered_batches, make_batch, make_settings

CASES = [*LEARNERS, "mixture+repeat", "mixture+ncf"]
STAMP = {"model_name": "shop", "generation": 0, "batch_id": 5}
# Kinds that rank by factors, alone or among others.
FACTORS = ["als", "ncf", "mixture", "mixture+repeat", "mixture+ncf"]


@cache
def fitted(case: str) -> tuple[OnlineModel, Answers]:
    """A model of a small stream, and what its version answers."""
    kind, _, more = case.partition("+")
    members = ["als", "trend", "cooccurrence", "sessions", "repeat"] if more != "ncf" else ["ncf", "trend"]
    settings = make_settings(
        model={
            "kind": kind,
            "mixture": {"members": members, "half_lives": [100, 1000], "candidates": 4},
            "neural": {"candidates": 5},
        },
        recommend={"k": 6, "exclude_seen": more != "repeat"},
        decay={"half_life_days": None},
    )
    model = learn(OnlineModel(settings), clustered_batches(8, 120))
    return model, Answers(Ranker(model.served().packed()), 6, settings.recommend.exclude_seen, STAMP)


def recommend(answers: Answers, **columns: list[Any]) -> tuple[list[list[str]], list[list[float]]]:
    found = answers.of("recommend", columns)
    return found["item_ids"].tolist(), found["scores"].tolist()


def scores_of(answers: Answers, user: Any, items: list[str], recent: list[str] | None = None) -> list[float]:
    columns = {"user_id": [user] * len(items), "item_id": items, "recent_items": [recent] * len(items)}
    return answers.of("score", columns)["score"].tolist()


def test_every_task_and_column_is_described():
    assert {*SCORES} == {*LEARNERS}
    _, answers = fitted("als")
    for task, text in TASKS.items():
        taken, _, given = text.partition(": ")
        assert {*taken.split(", ")} <= {*COLUMNS}
        answer = answers.of(task, {"user_id": ["u1"], "item_id": ["i6"]})
        assert {*answer} == {*given.split(", ")} | {*taken.split(", ")} & {"user_id", "item_id"}
    with pytest.raises(RefusedError, match="there is no task 'sing': give one of recommend, similar_items, score"):
        answers.of("sing", {})


@pytest.mark.parametrize("case", CASES)
def test_a_version_has_all_arrays_of_its_kind(case: str):
    model, _ = fitted(case)
    served = model.served()
    assert absent_arrays(served.kind, served.arrays) == []


@pytest.mark.parametrize("case", CASES)
def test_a_pair_has_one_score_in_every_list(case: str):
    model, answers = fitted(case)
    users, items = ["u1", "u2", "u40", "stranger"], model.items.ids
    (lists, scores), live = recommend(answers, user_id=users), model.recommend(users, 6)
    if case in ("trend", "cooccurrence", "sessions", "repeat"):
        assert lists == [[item for item, _ in own] for own in live]
    whole = recommend(answers, user_id=users, k=[10**9] * 4, exclude_seen=[False] * 4)
    some = items[::3]
    chosen = recommend(answers, user_id=users, k=[None] * 4, candidates=[some] * 4, exclude_seen=[False] * 4)
    for place, user in enumerate(users):
        score = dict(zip(items, scores_of(answers, user, items), strict=True))
        assert sorted(whole[0][place]) == sorted(items)
        for found in ((lists, scores), whole, chosen):
            own = found[1][place]
            # Products by BLAS depend on how many users are multiplied at once, in the last digit.
            assert own == pytest.approx([score[item] for item in found[0][place]], rel=1e-6 if "ncf" in case else 0)
            # Behind the candidates the order is that of all scores at once, and they differ in the last digit, too.
            assert max(np.diff(own)) < 2e-6
        best = [item for item in whole[0][place] if item in some][:6]
        assert sorted(score[item] for item in chosen[0][place]) == sorted(score[item] for item in best)


@pytest.mark.parametrize("case", CASES)
def test_contributions_add_up_to_the_score(case: str):
    model, answers = fitted(case)
    count, recent = len(model.items), model.items.ids[3:6]
    asked = {
        "user_id": ["u1", "u30", "stranger", "stranger", "u1", "u2"],
        "k": [count] * 6,
        "recent_items": [None, None, None, recent, recent, None],
        "explain": [True, True, True, True, True, None],
        "candidates": [None, model.items.ids, None, None, None, None],
    }
    found = answers.of("recommend", asked)
    assert found["explanations"][5] == ""
    answer = zip(*(found[name][:5] for name in ("item_ids", "scores", "explanations")), strict=True)
    for items, scores, text in answer:
        told = json.loads(text)
        assert told["version"] == STAMP
        assert [one["item_id"] for one in told["items"]] == items
        for one, score in zip(told["items"], scores, strict=True):
            assert one["score"] == score == pytest.approx(sum(one["contributions"].values()), abs=1e-5)
    told = json.loads(found["explanations"][3])["items"]
    reasons = {reason["item_id"] for one in told for reason in one["because"]}
    assert reasons <= set(recent)
    assert bool(reasons) == (case not in ("trend", "repeat", "sequence"))


@pytest.mark.parametrize("case", CASES)
def test_no_recent_items_change_nothing(case: str):
    model, answers = fitted(case)
    users = [*model.users.ids[:30], "stranger", None]
    empty = [[], ["never seen"], None] * 10 + [[], []]
    # An item that is left out of no list takes the way of recent items.
    ranker, rows = answers._ranker, np.append(np.arange(-1, 30), -1)
    k, no = np.full(len(rows), 9), np.zeros(len(rows), dtype=bool)
    plain, asked = ranker.rank(rows, k, no), Wishes(Lists.empty(len(rows)), Lists.empty(len(rows)))
    view = ranker.rank(rows, k, no, asked)
    for name in ("lengths", "items", "scores"):
        np.testing.assert_array_equal(getattr(view, name), getattr(plain, name))
    assert recommend(answers, user_id=users) == recommend(answers, user_id=users, recent_items=empty)


@pytest.mark.parametrize("case", CASES)
def test_recent_items_answer_for_somebody_new(case: str):
    model, answers = fitted(case)
    recent = model.recommend(["u1"], 3)[0]
    recent = [item for item, _ in recent]
    lists, scores = recommend(answers, user_id=["stranger"], recent_items=[recent], exclude_seen=[True])
    assert not set(lists[0]) & set(recent), "what has just been done is left out with what was done before"
    open_lists, _ = recommend(answers, user_id=["stranger"], recent_items=[recent], exclude_seen=[False], k=[99])
    assert set(recent) <= set(open_lists[0])
    before, after = (scores_of(answers, "stranger", model.items.ids, some) for some in (None, recent))
    # The trend alone is the same for everybody.
    assert (before != after) == (case != "trend")
    long = ["never seen"] * 10_000 + recent
    again = recommend(answers, user_id=["stranger"], recent_items=[long], exclude_seen=[True])
    assert again == (lists, scores)
    late = recommend(answers, user_id=["stranger"], recent_items=[recent + ["never seen"] * MOST_RECENT])
    assert late == recommend(answers, user_id=["stranger"])


@pytest.mark.parametrize("case", CASES)
def test_an_answer_says_which_ranking_has_made_the_list_and_how_likely_that_was(case: str):
    model, answers = fitted(case)
    users = ["u1", "u2", "u40", "stranger", "u3", "u4"]
    recent = [None, None, model.items.ids[3:6], model.items.ids[3:6], None, None]
    some = [None, None, None, None, model.items.ids[:9], None]
    wanted = [True, None, True, True, True, False]
    asked = {"user_id": users, "recent_items": recent, "candidates": some}
    plain, found = answers.of("recommend", asked), answers.of("recommend", {**asked, "origin": wanted})
    assert {*found} - {*plain} == {"ranking", "propensity"}
    assert all(found[name].tolist() == plain[name].tolist() for name in ("item_ids", "scores"))
    assert [bool(name) for name in found["ranking"]] == [bool(flag) for flag in wanted]
    # One draw is made for all whom the version does not know.
    known = [bool(flag) and user in model.users.ids for user, flag in zip(users, wanted, strict=True)]
    assert (found["propensity"] > 0).tolist() == known
    assert np.isnan(found["propensity"]).tolist() == [not one for one in known]
    if not case.startswith("mixture"):
        assert {*found["ranking"]} == {case, ""}
        assert (found["propensity"][known] == 1).all()
    scorer, rows = answers._ranker._scorer, np.array([answers._user_rows[user] for user in ("u1", "u40")])
    session = scorer.with_recent(rows[1:], Lists.of(np.array([3]), np.arange(3, 6)))
    for place, served in ((0, scorer.served_by(rows[:1])), (2, session.served_by(np.zeros(1, dtype=np.int64)))):
        told = served.names[served.choices[0]], served.chances[0]
        assert (found["ranking"][place], found["propensity"][place]) == told


@pytest.mark.parametrize("case", FACTORS)
def test_who_is_folded_in_from_all_that_he_has_done_gets_the_factors_of_the_version(case: str):
    model, answers = fitted(case)
    rows = model.history.user_rows(np.arange(20))
    histories = np.split(rows.others, np.cumsum(rows.lengths)[:-1])
    weights = np.split(rows.weights, np.cumsum(rows.lengths)[:-1])
    recent = [
        [model.items.ids[code] for code, weight in zip(own, counts, strict=True) for _ in range(round(weight))]
        for own, counts in zip(histories, weights, strict=True)
    ]
    known = answers.of("user_vectors", {"user_id": model.users.ids[:20]})["vector"].tolist()
    found = answers.of("user_vectors", {"user_id": [None] * 20, "recent_items": recent})["vector"].tolist()
    np.testing.assert_allclose(found, known, rtol=1e-3, atol=1e-4)
    assert answers.of("user_vectors", {"user_id": ["stranger"]})["vector"].tolist() == [None]


def test_the_items_of_a_user_add_up_to_the_predicted_preference():
    model, answers = fitted("als")
    scorer = answers._ranker._scorer._versioned
    items = np.arange(len(model.items), dtype=np.int32)
    for row, recent in ((3, [5, 5, 7]), (-1, [5, 9]), (0, [])):
        view = scorer.with_recent(np.array([row]), Lists.of(np.array([len(recent)]), np.array(recent)))
        own, parts = scorer._fold_in.shares(row, np.array(recent, dtype=np.int64), items)
        assert set(recent) <= set(own.tolist())
        np.testing.assert_allclose(parts.sum(axis=1), view.score(np.array([0]))[0], atol=1e-4)


def test_recent_items_count_like_a_batch_that_came_last():
    """Co-occurrence, repeats and the number of interactions are those of a model that has learned them."""
    model, answers = fitted("mixture+repeat")
    members = answers._ranker._scorer._versioned._proposals
    latest = model.history.latest_time
    done = [model.items.ids[code] for code in (4, 9, 4, 2)]
    later = OnlineModel.from_state(model.settings, model.state(), model.step)
    times = latest + np.arange(len(done)) * 1e-3
    for user in ("u1", "somebody"):
        for number, (item, time) in enumerate(zip(done, times.tolist(), strict=True)):
            step = later.step
            later.absorb(make_batch([(user, item, 1.0, time)]), StepId(step.generation, step.batch_id + 1 + number))
    rows = np.array([model.users.lookup(["u1"])[0], -1])
    codes = np.tile(model.items.lookup(done), 2)
    view = members.with_recent(rows, Lists.of(np.array([4, 4]), codes))
    similar, repeats = later.learner.members["cooccurrence"].scorer(), later.learner.members["repeat"].scorer()
    own = later.users.lookup(["u1", "somebody"])
    np.testing.assert_array_equal(view.members.cooccurrence._latest(np.arange(2)), similar._latest(own))
    # A session of its own: what the user did before is past.
    np.testing.assert_array_equal(view.members.sessions.after._latest(np.arange(2)), [[3, 5, 10, 0, 0]] * 2)
    for mine, learned in zip(view.members.repeat.repeats(np.arange(2)), repeats.repeats(own), strict=True):
        if isinstance(mine, np.ndarray):
            # All but the item's own rhythm, which the version does not learn.
            np.testing.assert_allclose(mine[:, :3], learned[:, :3], rtol=1e-4)
        else:
            np.testing.assert_array_equal(mine.keys, learned.keys)
            np.testing.assert_array_equal(mine.values, learned.values)


@pytest.mark.parametrize("case", CASES)
def test_items_have_neighbors_and_vectors_where_the_kind_has_them(case: str):
    model, answers = fitted(case)
    if case in ("trend", "sessions", "repeat", "content", "sequence"):
        with pytest.raises(RefusedError, match="this model compares no items: set model.kind to"):
            answers.of("similar_items", {"item_id": ["i6"]})
    else:
        found = answers.of("similar_items", {"item_id": [model.items.ids[0], "never seen"], "k": [3, None]})
        assert [len(own) for own in found["item_ids"]] == [3, 0]
    if case not in FACTORS:
        with pytest.raises(RefusedError, match="this model has no vectors: set model.kind to"):
            answers.of("item_vectors", {"item_id": ["i6"]})
        with pytest.raises(RefusedError, match="this model has no vectors"):
            answers.of("user_vectors", {"user_id": ["u1"]})
        return
    items = answers.of("item_vectors", {"item_id": [*model.items.ids, "never seen"]})["vector"].tolist()
    assert items.pop() is None
    user = answers.of("user_vectors", {"user_id": ["u1"]})["vector"].tolist()[0]
    if case == "als":
        products = np.array(items) @ np.array(user)
        np.testing.assert_allclose(products, scores_of(answers, "u1", model.items.ids), atol=1e-5)
    assert np.isnan(scores_of(answers, "u1", ["never seen"])).all()


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ({}, "the input has no column 'user_id'; it has none"),
        ({"who": ["u1"]}, "the input has no column 'user_id'; it has 'who'"),
        ({"k": [0]}, "column 'k', row 0: 0 is no length: give a whole number from 1 on"),
        ({"k": [-3]}, "column 'k', row 0: -3 is no length"),
        ({"k": [2.5]}, "column 'k', row 0: 2.5 is no length"),
        ({"k": ["many"]}, "column 'k', row 0: many is no length"),
        ({"k": [True]}, "column 'k', row 0: True is no length"),
        ({"k": [float("inf")]}, "column 'k', row 0: inf is no length"),
        ({"exclude_seen": ["no"]}, "column 'exclude_seen', row 0: no is neither true nor false"),
        ({"explain": [2]}, "column 'explain', row 0: 2 is neither true nor false"),
        ({"candidates": ["i6"]}, "column 'candidates', row 0: i6 is no list of ids"),
        ({"candidates": [[{"a": 1}]]}, "column 'candidates', row 0: {'a': 1} is no id: give text or a whole number"),
        ({"candidates": [["i"] * 1_000_000]}, "row 0: 1,000,000 ids are too many: give 100,000 at most"),
        ({"exclude_items": [5]}, "column 'exclude_items', row 0: 5 is no list of ids"),
        ({"recent_items": [{"i6": 1}]}, "column 'recent_items', row 0: {'i6': 1} is no list of ids"),
        ({"user_id": [{"deep": "x\n" * 500}]}, "column 'user_id', row 0: {'deep': 'x"),
        ({"user_id": [True]}, "column 'user_id', row 0: True is no id"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(columns: dict[str, list[Any]], line: str):
    _, answers = fitted("als")
    with pytest.raises(RefusedError) as caught:
        answers.of("recommend", columns if not columns or "who" in columns else {"user_id": ["u1"], **columns})
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 160


def test_odd_input_that_can_be_used_is_used():
    _, answers = fitted("mixture")
    lists, _ = recommend(answers, user_id=["u1", "u1", 1, 2.0, np.int64(3)], k=[3.0, None, np.nan, 1, 10**30])
    assert [len(own) for own in lists][:4] == [3, 6, 6, 1]
    assert lists[1][:3] == lists[0]
    assert recommend(answers, user_id=[]) == ([], [])
    for task in TASKS:
        assert all(len(column) == 0 for column in answers.of(task, {"user_id": [], "item_id": []}).values())
    excluded = recommend(answers, user_id=["u1"], exclude_items=[lists[0]])[0][0]
    assert excluded == recommend(answers, user_id=["u1"], k=[9])[0][0][3:]
    assert recommend(answers, user_id=["u1"], candidates=[np.array(lists[0], object)], exclude_items=[lists[0][:1]])[
        0
    ] == [lists[0][1:]]
    assert answers.of("recommend", {"user_id": [None, np.nan]})["user_id"] == [None, None]

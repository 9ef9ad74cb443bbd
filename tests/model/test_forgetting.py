"""Forgetting, for every kind of model: the rule, and that everything else goes on as if nothing had happened."""

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import Settings
from recsys.config.sections import Items
from recsys.contracts import InteractionBatch, StepId
from recsys.model.als.incremental_als import IncrementalAls
from recsys.model.counts.cooccurrence import CoOccurrence
from recsys.model.counts.repeat import Repeat
from recsys.model.evaluation.prequential import evaluate
from recsys.model.evaluation.rivals import Rivals
from recsys.model.interactions.keeping import Kept, KeptRows
from recsys.model.learner import Learner
from recsys.model.recommender import OnlineModel
from recsys.model.text.cold_start import ColdItems
from tests.model.als.test_incremental_als import assert_same_state, learn
from tests.model.helpers import DAY, make_batch, make_settings, scores_of
from tests.model.text.test_extended_versions import assert_declared, texts_of

COUNTING = ["trend", "cooccurrence", "repeat", "sessions"]
CASES: dict[str, dict[str, Any]] = {
    "als": {"kind": "als"},
    "ncf": {"kind": "ncf"},
    "ncf without a teacher": {"kind": "ncf", "neural": {"teacher": False, "optimizer": "adagrad"}},
    **{kind: {"kind": kind} for kind in [*COUNTING, "sequence"]},
    "mixture": {"kind": "mixture"},
    "mixture with networks": {"kind": "mixture", "mixture": {"members": ["als", "ncf", "sequence", *COUNTING]}},
}
SMALL_NETWORK = {"mlp_factors": 4, "layers": [8, 4], "replay_recent": 60, "replay_reservoir": 90, "held_out": 0.2}
DAYS = 3.0
GONE = ("forgotten_users", "forgotten_items", "forgotten_pairs")


def settings_of(case: str, days: float | None = DAYS, exclude_seen: bool = False, device: str = "cpu") -> Settings:
    model = CASES[case]
    return make_settings(
        device,
        model={"factors": 4, **model, "neural": SMALL_NETWORK | model.get("neural", {}), "forget_after_days": days},
        # So short that pairs fade while their users and items stay.
        decay={"half_life_days": 0.1},
        recommend={"k": 5, "exclude_seen": exclude_seen},
    )


def turning_batches(batches: int, events: int = 70, seed: int = 0) -> list[InteractionBatch]:
    """A batch a day, in which some ids leave and others come; a few events bring back what left long ago."""
    generator, made = np.random.default_rng(seed), []
    for day in range(batches):
        users, items = 6 * day + generator.integers(0, 18, events), 3 * day + generator.integers(0, 12, events)
        back = generator.random(events) < 0.03
        users[back], items[back] = generator.integers(0, 6 * day + 18, events)[back], 3 * day // 2
        times = (day + np.sort(generator.random(events))) * DAY
        rows = zip(users.tolist(), items.tolist(), times.tolist(), strict=True)
        made.append(make_batch([(f"u{user}", f"i{item}", 1.0, time) for user, item, time in rows]))
    return made


BATCHES = turning_batches(12)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class SlowModel:
    """The rule, on dictionaries: last event of each user and item, and all events of each pair and of each item."""

    def __init__(self, days: float, half_life_days: float) -> None:
        self.days, self.half_life = days, half_life_days * DAY
        self.users, self.items = dict[str, float](), dict[str, float]()
        self.pairs = dict[tuple[str, str], list[tuple[float, float]]]()
        self.events = dict[str, list[tuple[float, float]]]()
        self.now = -np.inf

    def popularity(self, half_life_days: float) -> list[float]:
        ages = {item: [(weight, (self.now - time) / DAY) for weight, time in own] for item, own in self.events.items()}
        return [sum(weight * 0.5 ** (age / half_life_days) for weight, age in own) for own in ages.values()]

    def learn(self, rows: list[tuple[str, str, float, float]]) -> None:
        period, latest = self.days * DAY / 8, max(time for *_, time in rows)
        if latest // period > self.now // period:
            self._forget(latest // period * period - self.days * DAY, rows)
        for user, item, weight, time in sorted(rows, key=lambda row: row[:2]):
            self.users[user] = max(time, self.users.get(user, -np.inf))
            self.items[item] = max(time, self.items.get(item, -np.inf))
            self.pairs.setdefault((user, item), []).append((weight, time))
            self.events.setdefault(item, []).append((weight, time))
        self.now = max(self.now, latest)

    def _forget(self, since: float, rows: list[tuple[str, str, float, float]]) -> None:
        for seen, place in ((self.users, 0), (self.items, 1)):
            coming = {row[place] for row in rows}
            for name in [name for name, last in seen.items() if last < since and name not in coming]:
                del seen[name]
        self.events = {item: self.events[item] for item in self.items}
        for pair, events in list(self.pairs.items()):
            weight = sum(weight * 0.5 ** ((self.now - time) / self.half_life) for weight, time in events)
            if pair[0] not in self.users or pair[1] not in self.items or 0 < abs(weight) < 2.0**-20:
                del self.pairs[pair]


EVENT = st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz"), st.sampled_from([0.0, 1.0, 3.0]))


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(-4, 12), st.lists(EVENT, min_size=1, max_size=5)), min_size=2, max_size=14),
    st.sampled_from([0.0625, 4.0]),
)
def test_the_rule_is_the_slow_one(
    batches: list[tuple[int, list[tuple[str, str, float]]]], half_life_days: float
) -> None:
    """Time goes on in steps of six hours, and sometimes back."""
    sections: dict[str, Any] = {"decay": {"half_life_days": half_life_days}, "robustness": {"events_per_pair": None}}
    model = OnlineModel(make_settings(model={"kind": "trend", "forget_after_days": 2.0}, **sections))
    slow, now = SlowModel(2.0, half_life_days), 1_000.0 * DAY
    for number, (step, events) in enumerate(batches):
        now += step * DAY / 4
        rows = [(user, item, weight, now) for user, item, weight in events]
        before = len(slow.users), len(slow.items), len(slow.pairs)
        figures = model.update(make_batch(rows), StepId(0, number))
        come = figures["new_users"], figures["new_items"]
        slow.learn(rows)
        assert model.users.ids == list(slow.users)
        assert model.items.ids == list(slow.items)
        keys = model.history.state()["keys"].astype(np.int64)
        users, items = [model.users.ids[key] for key in keys >> 32], [model.items.ids[key] for key in keys & 0xFFFFFFFF]
        assert list(zip(users, items, strict=True)) == list(slow.pairs)
        popularity = slow.popularity(model.settings.evaluation.popularity_half_life_days)
        assert model.popularity.scores() == pytest.approx(popularity)
        gone = [figures[name] for name in GONE]
        assert (before[0] - gone[0] + come[0], before[1] - gone[1] + come[1]) == (len(slow.users), len(slow.items))


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_live_recovery_and_rebuild_forget_the_same(case: str, exclude_seen: bool, torch_device: str) -> None:
    chosen = settings_of(case, exclude_seen=exclude_seen, device=torch_device)
    live, recovered, figures = OnlineModel(chosen), OnlineModel(chosen), []
    for number, batch in enumerate(BATCHES):
        step = StepId(0, number)
        figures.append(live.update(batch, step))
        recovered.update(batch, step)
        recovered = OnlineModel.from_state(chosen, recovered.state(), step)
    assert all(sum(one[name] for one in figures) > 20 for name in GONE)
    assert_same_state(recovered, live)
    rebuilt = OnlineModel(chosen)
    rebuilt.rebuild([(StepId(0, number), batch) for number, batch in enumerate(BATCHES)], StepId(1, len(BATCHES)))
    assert (rebuilt.users.ids, rebuilt.items.ids) == (live.users.ids, live.items.ids)
    parts = ("history.", "last_seen.", "popularity.")
    wanted = {name: array.tobytes() for name, array in live.state().items() if name.startswith(parts)}
    assert wanted == {name: array.tobytes() for name, array in rebuilt.state().items() if name.startswith(parts)}
    rebuilt.update(turning_batches(20)[19], StepId(1, len(BATCHES) + 1))


def test_what_forgets_nothing_is_as_what_cannot_forget(case: str) -> None:
    patient = learn(OnlineModel(settings_of(case, days=10_000.0)), BATCHES[:6])
    assert_same_state(patient, learn(OnlineModel(settings_of(case, days=None)), BATCHES[:6]))


def test_the_model_stays_small_where_ids_keep_changing(case: str) -> None:
    sizes: dict[float | None, list[int]] = {}
    for days in (DAYS, None):
        model, own = OnlineModel(settings_of(case, days)), sizes.setdefault(days, [])
        for number, batch in enumerate(turning_batches(36, events=40)):
            model.update(batch, StepId(0, number))
            # But for layers, whose size is fixed.
            growing = [array for name, array in model.state().items() if not {"gru", "output"} & {*name.split(".")}]
            own.append(sum(array.nbytes for array in growing))
            if days is not None:
                assert len(model.users) < 80
                assert len(model.items) < 60
                assert len(model.history) < 400
    assert max(sizes[DAYS][18:]) < 1.25 * max(sizes[DAYS][:18])
    assert sizes[None][-1] > 1.4 * sizes[None][17]


def test_an_id_that_returns_is_new_and_learns_again(case: str) -> None:
    def friends(day: float) -> list[tuple[str, str, float, float]]:
        return [("back", "old", 4.0, day * DAY), ("back", "other", 4.0, day * DAY)]

    crowd = [[(f"u{user}", f"i{(user + day) % 7}", 1.0, day * DAY) for user in range(12)] for day in range(9)]
    crowd[0] += friends(0)
    model = learn(OnlineModel(settings_of(case)), [make_batch(rows) for rows in crowd])
    assert model.users.lookup(["back", "u0"]).tolist() == [-1, 0]
    assert model.items.lookup(["old", "other"]).tolist() == [-1, -1]
    figures = model.update(make_batch(friends(9)), StepId(0, 9))
    assert (figures["new_users"], figures["new_items"]) == (1, 2)
    assert model.users.lookup(["back"]).tolist() == [12]
    assert model.items.lookup(["old", "other"]).tolist() == [7, 8]
    for number in range(10, 20):
        # An hour later each time, until a mixture has unlearned that nobody takes the same twice in a row.
        day = 9.5 + (number - 10) / 24
        fans = [(f"u{user}", item, 4.0, day * DAY) for user in range(12) for item in ("old", "other")]
        model.update(make_batch([*friends(day), *fans]), StepId(0, number))
    scores = model.learner.score(np.array([12]))[0]
    assert scores[7:9].min() > scores[:7].mean()


def test_everything_works_across_a_forgetting_and_the_champion_of_before_is_measured_rightly(case: str) -> None:
    chosen = settings_of(case, exclude_seen=True)
    model = learn(OnlineModel(chosen), BATCHES[:3])
    served = model.served()
    rivals, known = Rivals({"champion": served}), set(served.item_ids)
    measured = 0
    for number, batch in enumerate(BATCHES[3:8], start=3):
        step = StepId(0, number)
        figures = evaluate(batch, model, rivals, chosen, step)
        assert figures == evaluate(batch, model, Rivals({"champion": served}), chosen, step)
        scores = scores_of(rivals["champion"], ["nobody", *served.user_ids[:3]], model.items)
        assert scores.shape == (4, len(model.items))
        assert np.isfinite(scores).any(axis=0).tolist() == [item in known for item in model.items.ids]
        gone = model.update(batch, step)
        measured += gone["forgotten_items"] > 0
        lists = model.recommend([*model.users.ids[:5], "nobody"], 5)
        assert all(item in model.items.ids for own in lists for item, _ in own)
        assert all(lists)
        version = model.served()
        assert_declared(version)
        assert (version.user_ids, version.item_ids) == (model.users.ids, model.items.ids)
        model.shadow(step)
    assert measured > 2


def test_cold_items_follow_versions_across_a_forgetting() -> None:
    model, followed = OnlineModel(settings_of("als")), ColdItems(Items(min_events=1))
    for number, batch in enumerate(BATCHES[:8]):
        model.update(batch, StepId(0, number))
        served = model.served()
        texts = texts_of(served)
        extended, fresh = followed.extend(served, texts), ColdItems(Items(min_events=1)).extend(served, texts)
        assert extended.item_ids == fresh.item_ids
        for name, array in extended.arrays.items():
            assert array.tobytes() == fresh.arrays[name].tobytes(), name


def forgotten(case: str, **model_settings: Any) -> tuple[Learner, dict[str, np.ndarray], Kept, OnlineModel]:
    """A learner that has forgotten some users and items, its state before, and what stays."""
    chosen = settings_of(case, days=None)
    chosen = chosen.model_copy(update={"model": chosen.model.model_copy(update=model_settings)})
    model = learn(OnlineModel(chosen), turning_batches(4))
    before = {name: array.copy() for name, array in model.learner.state().items()}
    generator = np.random.default_rng(1)
    kept = Kept(*(KeptRows.of(generator.random(len(ids)) < 0.6) for ids in (model.users, model.items)))
    model.history.keep(kept, model.history.lasting(kept))
    model.learner.keep(kept, model.history)
    return model.learner, before, kept, model


def test_what_stays_keeps_what_was_learned_of_it(case: str) -> None:
    """Every array that runs along users or items, which are no other array's number, but for what holds codes."""
    learner, before, kept, _ = forgotten(case)
    holding_codes = {"recent", "neighbors", "strengths", "after", "before", "tied", "lengths", "unsolved"}
    lengths = {len(rows.renumbered): rows.codes for rows in (kept.users, kept.items)}
    assert len(lengths) == 2
    after, found = learner.state(), 0
    for name, array in before.items():
        parts = name.split(".")
        if len(array) in lengths and parts[-1] not in holding_codes and "buffer" not in parts:
            assert after[name].tobytes() == array[lengths[len(array)]].tobytes(), name
            found += 1
    assert found >= 2


def test_rows_are_solved_in_turn_from_where_the_turn_was() -> None:
    learner, before, kept, model = forgotten("als", budget=0.5)
    assert isinstance(learner, IncrementalAls)
    for side, rows in (("user", kept.users), ("item", kept.items)):
        cursor = int(before[f"{side}.counters"][1])
        after = int(learner.state()[f"{side}.counters"][1])
        assert after == next((new for new, old in enumerate(rows.codes) if old >= cursor), 0)
        factors = learner.state()[f"{side}.factors"].astype(np.float64)
        np.testing.assert_allclose(learner.state()[f"{side}.gram"], factors.T @ factors, rtol=1e-12, atol=1e-15)
    assert before["item.counters"][1] > 0
    assert before["user.counters"][1] > 0
    unsolved, total = learner.state()["user.unsolved"], model.history.by_user.total.values
    noted = before["user.unsolved"][kept.users.codes]
    assert (noted > total).any()
    assert (unsolved == np.minimum(noted, total)).all()


def test_the_network_adds_a_candidate_for_each_pair_that_is_left() -> None:
    model = learn(OnlineModel(settings_of("ncf", exclude_seen=True)), BATCHES)
    lengths = model.learner.state()["lengths"]
    assert lengths.any()
    assert (lengths == model.history.by_user.lists.lengths).all()


def test_last_items_and_followers_are_those_that_stay() -> None:
    learner, before, kept, _ = forgotten("cooccurrence")
    assert isinstance(learner, CoOccurrence)
    after, codes = learner.state(), kept.items.codes
    for new, old in enumerate(kept.users.codes):
        stay = [code for code in before["recent"][old].tolist() if code and code - 1 in codes]
        recent = after["recent"][new].tolist()
        assert [codes[code - 1] + 1 for code in recent[: len(stay)]] == stay
        assert not any(recent[len(stay) :])

    def followers(state: dict[str, np.ndarray], item: int) -> dict[int, float]:
        pairs = zip(state["neighbors"][item].tolist(), state["strengths"][item].tolist(), strict=True)
        return {code - 1: strength for code, strength in pairs if code or strength}

    for new, old in enumerate(codes):
        found = {int(codes[code]): strength for code, strength in followers(after, new).items()}
        assert found == {code: strength for code, strength in followers(before, int(old)).items() if code in codes}


def test_neighbors_in_sessions_are_those_that_stay() -> None:
    learner, before, kept, _ = forgotten("sessions")
    after, codes = learner.state(), kept.items.codes

    def counts(state: dict[str, np.ndarray], item: int) -> dict[int, tuple[float, float]]:
        columns = (state[name][item].tolist() for name in ("neighbors", "after", "before"))
        return {code - 1: (follows, leads) for code, follows, leads in zip(*columns, strict=True) if code or follows}

    for new, old in enumerate(codes.tolist()):
        found = {int(codes[code]): sides for code, sides in counts(after, new).items()}
        assert found == {code: sides for code, sides in counts(before, old).items() if code in codes}
    for new, old in enumerate(kept.users.codes.tolist()):
        tied = before["recent"][old][: before["tied"][old]]
        assert after["tied"][new] == np.isin(tied[tied > 0] - 1, codes).sum()


def test_own_items_and_their_rhythm_are_those_that_stay() -> None:
    learner, before, kept, _ = forgotten("repeat")
    assert isinstance(learner, Repeat)
    columns = ("counts", "lately", "first", "last")

    def entries(state: dict[str, np.ndarray]) -> list[list[tuple[float, ...]]]:
        rows = deque(zip(state["items"].tolist(), *(state[name].tolist() for name in columns), strict=True))
        return [[rows.popleft() for _ in range(length)] for length in state["lengths"].tolist()]

    old, new = entries(before), entries(dict(learner.state()))
    for place, code in enumerate(kept.users.codes):
        own = [(kept.items.codes[int(item)], *facts) for item, *facts in new[place]]
        assert own == [entry for entry in old[code] if entry[0] in kept.items.codes]
    assert sum(map(len, new)) < sum(len(old[code]) for code in kept.users.codes)


def test_examples_are_of_the_items_that_stay() -> None:
    learner, before, kept, _ = forgotten("sequence")
    after, codes = dict(learner.state()), kept.items.codes.tolist()
    expected = []
    for context, asked in zip(before["buffer.contexts"].tolist(), before["buffer.targets"].tolist(), strict=True):
        own = [[codes.index(code - 1) + 1 for code in side if code and code - 1 in codes] for side in (context, asked)]
        expected += [own] if all(own) else []
    pairs = zip(after["buffer.contexts"].tolist(), after["buffer.targets"].tolist(), strict=True)
    assert [[[code for code in side if code] for side in pair] for pair in pairs] == expected
    assert 0 < len(expected) < len(before["buffer.contexts"])
    rows = [name for name in before if name.split(".")[1:2] in (["residual"], ["bias"])]
    # The network's, their average and, for each, two moments of the optimizer.
    assert len(rows) - len([name for name in rows if name.endswith("step")]) == 8
    for name in (name for name in rows if not name.endswith("step")):
        assert after[name].tobytes() == before[name][codes].tobytes(), name

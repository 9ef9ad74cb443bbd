"""The sequence encoder: its examples, what it learns from the order of items, and what it forgets."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.model.evaluation.prequential import evaluate
from recsys.model.mixture.mixture import Mixture
from recsys.model.neural.sequence import SequenceEncoder
from recsys.model.neural.sequence_examples import SequenceExamples, examples_of, no_examples
from recsys.model.neural.sequence_network import SequenceNetwork, oldest_first, softmax_items
from recsys.model.recommender import OnlineModel
from recsys.serving import Lists
from tests.model.als.test_incremental_als import assert_same_state, learn
from tests.model.helpers import DAY, clustered_batches, make_batch, make_settings
from tests.serving.test_sequence import plain_user

PLAIN = ("als", "trend")
ITEMS = 30


def settings_of(*members: str, device: str = "cpu", **model: Any) -> Settings:
    """Of a mixture with these members, or of the encoder alone."""
    kind = {"kind": "mixture", "mixture": {"members": members}} if members else {"kind": "sequence"}
    return make_settings(device, model={**kind, **model}, recommend={"k": 5, "exclude_seen": False})


def walks(batches: int, users: int = 40) -> list[InteractionBatch]:
    """Users who go through the items one by one, each from a place of its own: after an item comes the next one."""
    starts = np.random.default_rng(0).integers(ITEMS, size=users).tolist()
    return [
        make_batch(
            [
                (f"u{user}", f"i{(start + 3 * number + step) % ITEMS}", 1.0, number * DAY + step)
                for user, start in enumerate(starts)
                for step in range(3)
            ]
        )
        for number in range(batches)
    ]


def encoder_of(model: OnlineModel) -> SequenceEncoder:
    learner = model.learner.members["sequence"] if isinstance(model.learner, Mixture) else model.learner
    assert isinstance(learner, SequenceEncoder)
    return learner


@given(seed=st.integers(0, 10_000), users=st.integers(0, 6))
def test_examples_are_what_users_had_and_what_came_next(seed: int, users: int) -> None:
    draw = np.random.default_rng(seed)
    latest = np.zeros((users, 20), np.int32)
    for row in latest:
        row[: draw.integers(0, 21)] = 1
        row[row > 0] = 1 + draw.permutation(60)[: (row > 0).sum()]
    own = [draw.permutation(60)[: draw.choice([0, 1, 2, 5, 40])].tolist() for _ in range(users)]
    batch = Lists.of(np.array([len(came) for came in own], np.int64), np.array([i for came in own for i in came]))
    before, found = latest.copy(), examples_of(latest, batch, draw)
    np.testing.assert_array_equal(latest, before)
    told, cut = [u for u in range(users) if own[u] and latest[u, 0]], [u for u in range(users) if len(own[u]) > 1]
    assert len(found) == len(told) + len(cut)
    targets = [[code - 1 for code in row if code] for row in found.targets.tolist()]
    assert all(len(set(asked)) == len(asked) for asked in targets)
    for place, user in enumerate(told):
        np.testing.assert_array_equal(found.contexts[place], latest[user])
        assert set(targets[place]) <= set(own[user])
        assert len(targets[place]) == min(len(own[user]), 20)
    for place, user in enumerate(cut, start=len(told)):
        context = [code - 1 for code in found.contexts[place].tolist() if code]
        fitting = []
        for head in range(1, len(own[user])):
            just, past = own[user][:head][::-1], [code - 1 for code in latest[user].tolist() if code]
            if context == [*just, *(item for item in past if item not in just)][:20]:
                fitting.append(own[user][head:])
        assert any(set(targets[place]) <= set(rest) and len(targets[place]) == min(len(rest), 20) for rest in fitting)


def contexts_of(seed: int, count: int) -> SequenceExamples:
    """Some examples of contexts of all lengths, each with one target."""
    draw = np.random.default_rng(seed)
    contexts = np.zeros((count, 20), np.int32)
    for row in contexts:
        length = draw.integers(1, 21)
        row[:length] = 1 + draw.permutation(60)[:length]
    return SequenceExamples(contexts, np.arange(1, count + 1, dtype=np.int32)[:, None])


@given(seed=st.integers(0, 10_000), count=st.integers(0, 40), size=st.integers(1, 12))
def test_every_example_comes_once_among_its_like(seed: int, count: int, size: int) -> None:
    examples = contexts_of(seed, count) if count else no_examples()
    groups = [examples.take(places) for places in examples.drawn(size, np.random.default_rng(seed))]
    assert sorted(len(group) for group in groups[:-1])[1:] == [size] * (len(groups) - 2) if len(groups) > 1 else True
    found = [
        (group.targets[place, 0], group.contexts[place].tolist()) for group in groups for place in range(len(group))
    ]
    own = zip(examples.targets[:, 0], examples.contexts.tolist(), strict=True)
    assert sorted(found) == sorted(own)
    ranges = sorted((int(group.lengths[-1]), int(group.lengths[0])) for group in groups)
    for group in groups:
        assert (np.diff(group.lengths) <= 0).all()
    assert all(before[1] <= after[0] for before, after in pairwise(ranges))


@given(seed=st.integers(0, 10_000), count=st.integers(1, 12))
def test_contexts_are_read_side_by_side_from_the_oldest_item_on(seed: int, count: int) -> None:
    examples = contexts_of(seed, count)
    (places,) = examples.drawn(count, np.random.default_rng(seed))
    examples = examples.take(places)
    read, together = oldest_first(examples)
    items = iter(read.tolist())
    found: list[list[int]] = [[] for _ in range(count)]
    for running in together.tolist():
        for own in found[:running]:
            own.append(next(items))
    assert next(items, None) is None
    assert found == [[code - 1 for code in row[::-1] if code] for row in examples.contexts.tolist()]


def test_a_sampled_softmax_stands_for_all_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.model.neural.sequence_network._SAMPLED", 50)
    examples = SequenceExamples(np.array([[5, 0], [1, 0]], np.int32), np.array([[3, 7, 0], [120, 0, 0]], np.int32))
    own, draw = [0, 2, 4, 6, 119], np.random.default_rng(0)
    logits = np.random.default_rng(1).normal(size=400)
    sums = []
    for _ in range(400):
        items, shifts = softmax_items(examples, 400, draw)
        assert {*own} <= {*items.tolist()}
        assert (np.diff(items) > 0).all()
        assert not shifts[np.isin(items, own)].any()
        sums.append(np.exp(logits[items] + shifts).sum())
    assert np.mean(sums) == pytest.approx(np.exp(logits).sum(), rel=0.02)
    monkeypatch.setattr("recsys.model.neural.sequence_network._SAMPLED", 400)
    items, shifts = softmax_items(examples, 400, draw)
    assert (items.tolist(), shifts.any()) == (list(range(400)), False)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 6))
def test_the_loss_is_the_plain_one(seed: int, count: int) -> None:
    draw, items = np.random.default_rng(seed), 70
    contexts = contexts_of(seed, count)
    targets = np.array([1 + draw.permutation(items)[:5] for _ in range(count)], np.int32)
    targets[:, draw.integers(1, 5) :] = 0
    examples = SequenceExamples(contexts.contexts, targets)
    (places,) = examples.drawn(count, draw)
    examples, factors = examples.take(places), torch.from_numpy(draw.normal(size=(items, 8)).astype(np.float32))
    networks = [SequenceNetwork(8, draw) for _ in range(2)]
    for network in networks:
        network.residual.data = torch.from_numpy(draw.normal(size=(items, 64)).astype(np.float32) / 8)
        network.bias.data = torch.from_numpy(draw.normal(size=(items, 1)).astype(np.float32))
    replayed = draw.random(count) < 0.5
    expected = 1e-5 * float((networks[0].residual.detach().double() ** 2).sum())
    for place in range(count):
        logs = []
        for network in networks:
            arrays = {"recent": examples.contexts, **network.arrays(factors)}
            user = plain_user(arrays, place)
            assert user is not None
            logits = arrays["vectors"].astype(np.float64) @ user + network.bias.detach().double().numpy()[:, 0]
            logs.append(logits - logits.max() - np.log(np.exp(logits - logits.max()).sum()))
        asked = [code - 1 for code in examples.targets[place].tolist() if code]
        hard, soft = -logs[0][asked].mean(), -(np.exp(logs[1]) * logs[0]).sum()
        expected += (0.5 * hard + 0.5 * soft if replayed[place] else hard) / count
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys.model.neural.sequence_network._DROPOUT", 0.0)
        found = networks[0].loss(examples, factors, draw, torch.Generator(), (networks[1], replayed))
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_it_learns_what_comes_after_what() -> None:
    model, batches = OnlineModel(settings_of()), walks(30)
    learn(model, batches[:29])
    figures = evaluate(batches[29], model, {}, model.settings, StepId(0, 29))
    # Of 30 items, 5 at random hold a sixth of the next three.
    assert figures["model/recall_at_5"] > 0.8


def test_a_mixture_ranks_better_by_a_planted_order() -> None:
    batches = walks(30)
    found = []
    for members in (PLAIN, (*PLAIN, "sequence")):
        model = learn(OnlineModel(settings_of(*members)), batches[:26])
        figures = []
        for number in range(26, 30):
            figures.append(evaluate(batches[number], model, {}, model.settings, StepId(0, number))["model/ndcg_at_5"])
            model.update(batches[number], StepId(0, number))
        found.append(np.mean(figures))
    assert found[1] > found[0] + 0.1


@pytest.mark.parametrize("members", [(), (*PLAIN, "sequence")])
def test_state_is_a_function_of_the_log(members: tuple[str, ...], torch_device: str) -> None:
    chosen, batches = settings_of(*members, device=torch_device), clustered_batches(6, 120)
    whole = learn(OnlineModel(chosen), batches)
    part = learn(OnlineModel(chosen), batches[:3])
    state = {name: array.copy() for name, array in part.state().items()}
    assert_same_state(learn(OnlineModel.from_state(chosen, state, part.step), batches[3:], first=3), whole)
    whole.refit(StepId(1, 6))
    again = learn(OnlineModel(chosen), batches)
    again.refit(StepId(1, 6))
    assert_same_state(again, whole)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.model.neural.sequence._KEPT", 100)
    model = learn(OnlineModel(settings_of()), clustered_batches(6, 120))
    state = encoder_of(model).state()
    assert len(state["buffer.contexts"]) == len(state["buffer.targets"]) == 100
    assert (state["buffer.contexts"][:, 0] > 0).all()
    assert (state["buffer.targets"][:, 0] > 0).all()


def test_the_vectors_of_items_begin_as_the_factors() -> None:
    model = OnlineModel(settings_of(*PLAIN, "sequence", factors=64))
    model.absorb(clustered_batches(1, 120)[0], StepId(0, 0))
    arrays, factors = encoder_of(model).served(model.history), model.als.item_factors.numpy()
    np.testing.assert_allclose(arrays["vectors"], factors, atol=1e-7)
    assert not arrays["bias"].any()

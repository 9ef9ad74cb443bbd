"""The compiled network over latest items, against that of torch and a plain one; who is told nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.serving.arrays import Lists
from recsys.serving.sequence import SequenceScorer

LATEST = 5


def arrays_of(seed: int, users: int, items: int, width: int) -> dict[str, np.ndarray]:
    """Random arrays of a version; every user's latest items are different ones."""
    draw = np.random.default_rng(seed)
    recent = np.zeros((users, LATEST), dtype=np.int32)
    for own in recent:
        some = draw.permutation(items)[: draw.integers(0, LATEST + 1)] + 1
        own[: len(some)] = some
    sizes = {"input": 3 * width, "state": 3 * width, "output": width}
    weights = {f"{layer}_weights": draw.normal(size=(height, width)) for layer, height in sizes.items()}
    biases = {f"{layer}_bias": draw.normal(size=height) for layer, height in sizes.items()}
    own = {"vectors": draw.normal(size=(items, width)), "bias": draw.normal(size=items), **weights, **biases}
    return {"recent": recent, **{name: array.astype(np.float32) for name, array in own.items()}}


def plain_user(arrays: dict[str, np.ndarray], row: int) -> np.ndarray | None:
    """The vector of a user, gate by gate in double precision; None without items."""
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    codes = [] if not 0 <= row < len(arrays["recent"]) else [code for code in arrays["recent"][row].tolist() if code]
    state = np.zeros(wide["vectors"].shape[1])
    for code in reversed(codes):
        reset, update, new = np.split(wide["input_weights"] @ wide["vectors"][code - 1] + wide["input_bias"], 3)
        past = np.split(wide["state_weights"] @ state + wide["state_bias"], 3)
        reset, update = (1 / (1 + np.exp(-gate)) for gate in (reset + past[0], update + past[1]))
        state = (1 - update) * np.tanh(new + reset * past[2]) + update * state
    return wide["output_weights"] @ state + wide["output_bias"] if codes else None


def torch_user(arrays: dict[str, np.ndarray], row: int) -> np.ndarray:
    """The same by the layers of torch."""
    width = arrays["vectors"].shape[1]
    gru, output = torch.nn.GRU(width, width, batch_first=True), torch.nn.Linear(width, width)
    pairs = {"input": ("weight_ih_l0", "bias_ih_l0"), "state": ("weight_hh_l0", "bias_hh_l0")}
    own = {
        name: arrays[f"{layer}_{what}"]
        for layer, names in pairs.items()
        for name, what in zip(names, ("weights", "bias"), strict=True)
    }
    gru.load_state_dict({name: torch.from_numpy(array) for name, array in own.items()})
    output.load_state_dict(
        {"weight": torch.from_numpy(arrays["output_weights"]), "bias": torch.from_numpy(arrays["output_bias"])}
    )
    codes = [code for code in arrays["recent"][row].tolist() if code][::-1]
    with torch.no_grad():
        states, _ = gru(torch.from_numpy(arrays["vectors"][np.array(codes) - 1])[None])
        found: np.ndarray = output(states[0, -1]).numpy()
    return found


def everything(rows: np.ndarray, items: int) -> Lists:
    return Lists.of(np.full(len(rows), items), np.tile(np.arange(items), len(rows)))


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), users=st.integers(1, 5), items=st.integers(1, 20), width=st.integers(1, 9))
def test_logits_are_those_of_the_plain_network(seed: int, users: int, items: int, width: int) -> None:
    arrays = arrays_of(seed, users, items, width)
    rows, scorer = np.arange(-1, users + 1), SequenceScorer(arrays)
    lists = everything(rows, items)
    features, scores = scorer.following(rows, lists).reshape(2, len(rows), items), scorer.score(rows)
    told = scorer.contributions(rows, lists)
    for place, row in enumerate(rows.tolist()):
        vector = plain_user(arrays, row)
        if vector is None:
            assert not features[:, place].any()
            assert not scores[place].any()
            continue
        match = arrays["vectors"].astype(np.float64) @ vector
        np.testing.assert_allclose(features[1, place], 0.5 * match, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(features[0, place], 0.5 * (match + arrays["bias"]), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(match, arrays["vectors"] @ torch_user(arrays, row), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(scorer.at(rows, lists), scores.ravel())
    np.testing.assert_allclose([sum(parts.values()) for parts in told], scores.ravel(), rtol=1e-5, atol=1e-5)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), items=st.integers(2, 20))
def test_recent_items_are_read_behind_the_latest_ones(seed: int, items: int) -> None:
    arrays = arrays_of(seed, 3, items, 4)
    rows, draw = np.array([-1, 0, 1, 2]), np.random.default_rng(seed)
    lists = [draw.permutation(items)[: draw.integers(0, 4)] for _ in rows]
    recent = Lists.of(np.array([len(own) for own in lists]), np.concatenate(lists))
    done = []
    for row, own in zip(rows.tolist(), lists, strict=True):
        just = [int(item) + 1 for item in own[::-1]]
        past = arrays["recent"][row].tolist() if row >= 0 else []
        latest = [*just, *(code for code in past if code and code not in just)][:LATEST]
        done.append(latest + [0] * (LATEST - len(latest)))
    plain = SequenceScorer(arrays | {"recent": np.array(done, dtype=np.int32)})
    scorer, places = SequenceScorer(arrays), np.arange(len(rows))
    before = scorer.score(rows)
    np.testing.assert_array_equal(scorer.with_recent(rows, recent).score(places), plain.score(places))
    np.testing.assert_array_equal(scorer.score(rows), before)


@pytest.mark.parametrize("rows", [np.zeros(0, np.int64), np.array([-1, 99])])
def test_nobody_and_unknown_users_are_told_nothing(rows: np.ndarray) -> None:
    scorer = SequenceScorer(arrays_of(1, 3, 6, 4))
    assert scorer.score(rows).shape == (len(rows), 6)
    assert not scorer.score(rows).any()
    assert not scorer.following(rows, everything(rows, 6)).any()

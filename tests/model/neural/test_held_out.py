"""Which pairs are held out, and what they are measured against."""

import numpy as np
import pytest
import torch

from recsys.contracts import StepId
from recsys.model.interactions.history import History
from recsys.model.interactions.keeping import Kept, KeptRows
from recsys.model.neural.held_out import HeldOut, is_held_out
from recsys.model.neural.replay_buffer import Pairs, history_of
from tests.model.helpers import make_settings


def slow_hash(user: int, item: int, seed: int) -> float:
    """Splitmix64 of a pair, as a number from 0 to 1."""
    key = ((user << 32 | item) + (seed + 1) * 0x9E3779B97F4A7C15) % 2**64
    for shift, multiplier in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        key = (key ^ key >> shift) * multiplier % 2**64
    return ((key ^ key >> 31) >> 11) / 2**53


def test_a_hash_decides_what_is_held_out() -> None:
    generator = np.random.default_rng(0)
    users, items = generator.integers(0, 2**31, (2, 20_000))
    chosen = is_held_out(users, items, 0.1, 3)
    expected = [slow_hash(user, item, 3) < 0.1 for user, item in zip(users.tolist(), items.tolist(), strict=True)]
    assert chosen.tolist() == expected
    assert chosen.mean() == pytest.approx(0.1, abs=0.01)
    other = is_held_out(users, items, 0.1, 4)
    assert (chosen & other).mean() == pytest.approx(0.01, abs=0.005)
    assert not is_held_out(users, items, 0.0, 3).any()


def test_pairs_are_learnable_or_measured_and_stand_before_items_their_users_never_had() -> None:
    held = HeldOut(make_settings(model={"neural": {"held_out": 0.4}}), torch.device("cpu"))
    held.grow(20, 30)
    users, items = np.divmod(np.arange(200), 10)
    pairs, every = Pairs(users, items, np.ones(200, dtype=np.float32)), set(zip(users, items, strict=True))
    parts = held.learnable(pairs), held.measured(pairs, np.random.default_rng(0))
    assert min(map(len, parts)) > 50
    assert sorted(pair for part in parts for pair in zip(part.users, part.items, strict=True)) == sorted(every)
    room = History(None)
    room.add_rows(20, 30)
    history = history_of(pairs, room)
    first, again, later = (held.against_negatives(parts[1], 5, history, 30, StepId(0, step)) for step in (1, 1, 2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[1], later[1])
    assert (first[0].tolist(), first[1][:, 0].tolist()) == (parts[1].users.tolist(), parts[1].items.tolist())
    assert first[1].shape == first[2].shape == (len(parts[1]), 6)
    assert first[2].all()
    assert (first[1][:, 1:] >= 10).all()


def test_a_pair_stays_on_its_side_when_others_are_forgotten() -> None:
    settings, device = make_settings(model={"neural": {"held_out": 0.5}}), torch.device("cpu")
    users, items = np.divmod(np.arange(12 * 9), 9)
    pairs = Pairs(users, items, np.ones(len(users), dtype=np.float32))
    held = HeldOut(settings, device)
    held.grow(12, 9)
    before = held.learnable(pairs)
    kept = Kept(KeptRows.of(np.arange(12) % 3 > 0), KeptRows.of(np.arange(9) != 4))
    held.keep(kept)
    held = HeldOut(settings, device, held.state())
    # A new user is none of the earlier ones, though it gets a code that one of them had.
    held.grow(12, 9)
    after = held.learnable(pairs)
    users, items = (
        np.append(kept.users.codes, [12, 13, 14, 15])[after.users],
        np.append(kept.items.codes, 9)[after.items],
    )
    assert not is_held_out(users, items, 0.5, 0).any()
    old = {(user, item) for user, item in zip(users.tolist(), items.tolist(), strict=True) if user < 12 and item < 9}
    stay = {(user, item) for user, item in zip(before.users.tolist(), before.items.tolist(), strict=True)}
    assert old == {(user, item) for user, item in stay if user % 3 and item != 4}

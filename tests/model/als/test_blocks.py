"""Blocks are solved to the bit as all rows at once are, and made as the history makes its rows."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.contracts import StepId
from recsys.model.als.blocks import Block, BlockStart, cut
from recsys.model.als.conjugate_gradient import Work
from recsys.model.als.conjugate_gradient_kernel import Vector
from recsys.model.als.incremental_als import IncrementalAls
from recsys.model.als.selection import Selection
from recsys.model.common.arrays import FloatArray, IntArray
from recsys.model.interactions.decay import SECONDS_PER_DAY
from recsys.model.interactions.history import History, Orientation
from recsys.model.interactions.timeline import DecayTimeline
from recsys.model.recommender import OnlineModel
from tests.model.helpers import clustered_batches, loss_of, make_settings

CAP = 12


@dataclass(frozen=True)
class InBlocks:
    """A `RowsElsewhere` that is not far away: the rows of a history, cut into blocks."""

    blocks: list[Block]
    bounds: IntArray
    sampled: Selection

    @property
    def totals(self) -> FloatArray:
        return self.sampled.totals

    def __len__(self) -> int:
        return len(self.sampled)

    def solve(self, penalties: FloatArray, work: Work, solution: Vector) -> int:
        unfinished = 0
        for block, begin, end in zip(self.blocks, self.bounds, self.bounds[1:], strict=False):
            asked = BlockStart(self.sampled.phases[begin:end], penalties[begin:end], solution[begin:end])
            solution[begin:end], ran_out = block.solve(asked, work, self.sampled.scale, CAP)
            unfinished += ran_out
        return unfinished


def in_blocks(side: Orientation, sampled: Selection, count: int) -> InBlocks:
    bounds = cut(side.lists.lengths, count)
    blocks = []
    for begin, end in zip(bounds, bounds[1:], strict=False):
        rows = np.arange(begin, end)
        blocks.append(Block(*side.lists.gather(rows), side.total.values[rows]))
    return InBlocks(blocks, bounds, sampled)


@pytest.mark.parametrize("blocks", [1, 7])
def test_blocks_give_the_bits_of_one_solver(blocks: int) -> None:
    model = OnlineModel(make_settings(model={"history_cap": CAP}, decay={"half_life_days": 3.0}))
    for number, batch in enumerate(clustered_batches(4, 300)):
        model.absorb(batch, StepId(0, number))
    step, history = StepId(1, 3), model.history
    assert isinstance(model.learner, IncrementalAls)
    elsewhere = IncrementalAls.from_state(model.settings, model.learner.state())
    by_user, by_item = elsewhere.every_row(history, step)
    assert (by_user.used < history.by_user.lists.lengths).any(), "some are sampled"
    elsewhere.refit_rows(in_blocks(history.by_user, by_user, blocks), in_blocks(history.by_item, by_item, blocks), step)
    model.refit(step)
    for name, array in model.learner.state().items():
        assert np.array_equal(elsewhere.state()[name], array), name
    loss, model.learner = loss_of(model), elsewhere
    assert loss_of(model) == loss


def test_rows_of_a_log_become_the_rows_of_its_history() -> None:
    """Weights are rounded and halved as batch by batch, also where the clock moves its reference."""
    rng, half_life = np.random.default_rng(0), 0.01
    history, parts, users, items = History(half_life), [], 9, 7
    history.add_rows(users, items)
    for number in range(6):
        times = (number + rng.random(40)) * SECONDS_PER_DAY / 2
        rows = rng.integers(users, size=40), rng.integers(items, size=40), rng.normal(size=40), times
        history.add(*rows)
        parts.append((np.full(40, number), *rows))
    batches, user, item, weights, times = map(np.concatenate, zip(*parts, strict=True))
    latest = np.array([part[4].max() for part in parts])
    timeline = DecayTimeline.of(half_life * SECONDS_PER_DAY, np.arange(6), latest)
    assert (timeline.state[1], timeline.scale) == (history.halvings, history.scale)
    assert history.halvings > 0
    amounts = timeline.stored(batches, weights, times, np.float32)
    for own, other, side in ((user, item, history.by_user), (item, user, history.by_item)):
        block, rows = Block.of(own, other, amounts, len(side)), np.arange(len(side))
        for found, expected in zip((block.lengths, block.others, block.weights), side.lists.gather(rows), strict=True):
            assert np.array_equal(found, expected)
        assert np.array_equal(block.totals, side.total.values)


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 12))
def test_blocks_cover_all_rows_and_none_is_empty(sizes: list[int], blocks: int) -> None:
    bounds = cut(np.array(sizes, dtype=np.int64), blocks)
    assert (bounds[0], bounds[-1]) == (0, len(sizes))
    assert (np.diff(bounds) > 0).all()
    assert len(bounds) - 1 <= blocks

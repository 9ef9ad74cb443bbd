"""Vectors of items are written down once with their batch, and come back with it."""

import numpy as np
import pytest

from recsys.contracts import ITEM_CONTENTS, Contents, StepId
from recsys.tables import contents, log
from recsys.tables.delta import Tables
from tests.tables.helpers import append_batches

SPACE, HOSTILE = "0123456789abcdef", "quote'\"`;-- \\ 🛒\n"


def of(**vectors: list[int]) -> Contents:
    return Contents([*vectors], np.array([*vectors.values()], np.int8))


def spelled(found: Contents) -> dict[str, list[int]]:
    return dict(zip(found.item_ids, found.vectors.tolist(), strict=True))


def test_a_batch_brings_what_was_written_before_a_crash(tables: Tables) -> None:
    first = of(**{HOSTILE: [1, -127], "b": [0, 3]})
    step = StepId(0, 4)
    assert spelled(contents.append(tables, first, step, "test", 4, SPACE)) == spelled(first)
    # The catalog has changed since, or lost everything.
    for later in (of(b=[9, 9], c=[5, 5]), Contents()):
        assert spelled(contents.append(tables, later, step, "test", 4, SPACE)) == spelled(first)
    assert spelled(contents.append(tables, Contents(), StepId(0, 5), "test", 5, SPACE)) == {}
    assert tables.count(ITEM_CONTENTS) == 2
    assert spelled(contents.of_batch(tables, step, "another space")) == {}


@pytest.mark.parametrize("after", [-1, 0])
def test_batches_of_the_log_come_with_their_vectors(tables: Tables, after: int) -> None:
    append_batches(tables, [[("u", "a", 1.0)], [("u", "b", 1.0)], [("u", "a", 1.0), ("v", "c", 1.0)]])
    for number, brought in ((0, of(a=[1, 1])), (2, of(c=[3, 3], a=[2, 2]))):
        contents.append(tables, brought, StepId(0, number), "test", number, SPACE)
    contents.append(tables, of(a=[7, 7]), StepId(1, -1), "rebuild", 1, SPACE)
    bounds = StepId(0, after), StepId(0, 2)
    found = dict(contents.joined(tables, log.batches(tables, *bounds), *bounds, SPACE))
    expected = {0: {"a": [1, 1]}, 1: {}, 2: {"a": [2, 2], "c": [3, 3]}}
    assert {step.batch_id: spelled(batch.contents) for step, batch in found.items()} == {
        number: brought for number, brought in expected.items() if number > after
    }
    assert spelled(log.joined([found[StepId(0, 2)], found[StepId(0, 1)]]).contents) == expected[2]


def test_of_two_batches_that_are_learned_as_one_the_first_has_the_last_word(tables: Tables) -> None:
    append_batches(tables, [[("u", "a", 1.0)], [("u", "a", 1.0)]])
    batches = [batch for _, batch in log.batches(tables)]
    for number in (0, 1):
        contents.append(tables, of(a=[number, 5]), StepId(0, number), "test", number, SPACE)
    bounds = StepId(0, -1), StepId(0, 1)
    told = [batch for _, batch in contents.joined(tables, log.batches(tables, *bounds), *bounds, SPACE)]
    assert spelled(log.joined(told[::-1]).contents) == {"a": [1, 5]}
    assert len(log.joined(batches)) == 2

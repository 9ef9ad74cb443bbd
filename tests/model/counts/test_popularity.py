"""Recency-weighted popularity."""

import numpy as np
import pytest

from recsys.model.counts.popularity import Popularity
from tests.model.helpers import DAY


def test_positive_weights_are_summed_and_halve_with_each_half_life() -> None:
    popularity = Popularity(half_life=7 * DAY)
    popularity.add(np.array([0, 1, 1]), np.array([4.0, 1.0, -5.0]), np.array([0.0, 0.0, 0.0]), count=2)
    popularity.add(np.array([2]), np.array([1.0]), np.array([14 * DAY]), count=3)
    assert popularity.scores().tolist() == [1.0, 0.25, 1.0]


def test_it_goes_on_from_its_state_and_over_many_half_lives() -> None:
    popularity = Popularity(half_life=DAY)
    popularity.add(np.array([0]), np.array([8.0]), np.array([0.0]), count=1)
    copy = Popularity(DAY, popularity.state)
    for each in (popularity, copy):
        each.add(np.array([1, 0]), np.array([2.0, 1.0]), np.array([900 * DAY, 899 * DAY]), count=2)
        assert each.scores() == pytest.approx([0.5, 2.0])
    assert copy.state["stored"].tobytes() == popularity.state["stored"].tobytes()


def test_an_empty_batch_is_fine() -> None:
    popularity = Popularity(7 * DAY)
    popularity.add(np.array([], dtype=np.int64), np.array([]), np.array([]), count=0)
    assert popularity.scores().tolist() == []


def test_the_half_life_is_in_the_unit_of_the_times() -> None:
    in_events = Popularity(half_life=500)
    in_events.add(np.array([0]), np.array([1.0]), np.array([1.0]), count=1)
    in_events.add(np.array([1]), np.array([1.0]), np.array([1001.0]), count=2)
    assert in_events.scores().tolist() == [0.25, 1.0]

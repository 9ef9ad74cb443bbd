"""Work beside the batches: nothing that fails there is lost, and two of a kind never overlap."""

import threading
import time

import pytest

from recsys.stream.background import Background


def test_what_fails_is_raised_once_by_the_next_who_asks() -> None:
    with Background() as background:
        background.begin("totals", lambda: 1 / 0)
        background.begin("plot", lambda: None)
        with pytest.raises(ZeroDivisionError):
            background.begin("totals", lambda: None)
        background.finish()
        background.begin("plot", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            until_raised(background)
        background.finish()


def until_raised(background: Background) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        background.look()


def test_a_batch_waits_for_no_other_kind_than_it_asks_for() -> None:
    may_end, done = threading.Event(), list[str]()
    with Background() as background:
        background.begin("totals", may_end.wait)
        background.begin("snapshot", lambda: done.append("snapshot"))
        background.look()
        background.finish("plot")
        assert done == []
        may_end.set()
        background.finish("snapshot")
        assert done == ["snapshot"]
    with Background() as background:
        background.begin("plot", lambda: done.append("plot"))
    assert done == ["snapshot", "plot"], "the end of the context waits"

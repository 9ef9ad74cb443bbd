"""Work beside the batches: nothing that fails there is lost, and two of a kind never overlap."""

import logging
import threading
from collections.abc import Iterator

import pytest

from recsys.contracts import StepId
from recsys.logs import FORMATTERS, log_step
from recsys.stream.background import Background


@pytest.fixture
def background() -> Iterator[Background]:
    with Background() as made:
        yield made


def test_what_fails_is_raised_once_by_the_next_who_asks(background: Background) -> None:
    background.begin("totals", lambda: 1 / 0)
    background.begin("plot", lambda: None)
    with pytest.raises(ZeroDivisionError):
        background.begin("totals", lambda: None)
    background.finish_all()
    background.begin("plot", lambda: 1 / 0)
    background.settle()
    with pytest.raises(ZeroDivisionError):
        background.look()
    background.finish_all()


def test_a_look_neither_waits_nor_takes_a_result_from_who_asks_for_it(background: Background) -> None:
    may_end = threading.Event()
    background.begin("version", may_end.wait)
    background.look()
    may_end.set()
    background.settle()
    background.look()
    assert background.finish("version") is True
    assert background.finish("version") is None, "once"


def test_a_batch_waits_for_no_other_kind_than_it_asks_for(background: Background) -> None:
    may_end, done = threading.Event(), list[str]()
    background.begin("totals", may_end.wait)
    background.begin("snapshot", lambda: done.append("snapshot"))
    background.finish("plot")
    background.finish("snapshot")
    assert done == ["snapshot"]
    may_end.set()
    with Background() as other:
        other.begin("plot", lambda: done.append("plot"))
    assert done == ["snapshot", "plot"], "the end of the context waits"


def test_two_of_a_kind_never_overlap(background: Background) -> None:
    running = threading.Lock()

    def alone() -> None:
        assert running.acquire(blocking=False)
        running.release()

    for _ in range(50):
        background.begin("totals", alone)
    background.finish_all()


def test_what_nobody_has_asked_for_is_logged_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with Background() as background:
        background.begin("totals", lambda: 1 / 0)
    assert "totals: division by zero" in caplog.text


def test_its_lines_carry_the_step_of_the_batch_that_began_it(background: Background) -> None:
    record = logging.LogRecord("recsys", logging.INFO, __file__, 1, "registered", None, None)
    with log_step(StepId(0, 17)):
        background.begin("version", lambda: FORMATTERS["text"]().format(record))
    assert str(background.finish("version")).endswith("INFO [0-17] registered")

"""What goes on beside the batches of a stream."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from types import TracebackType
from typing import Self

logger = logging.getLogger(__name__)

# Kinds of work that go on at the same time: snapshot, version, plot, totals.
AT_ONCE = 4


class Background:
    """Does work in threads, beside the batches; a context, which ends when all is done.

    Work of one kind is done in order, one at a time. What is lost with the process has to be done again later: nothing
    that a batch rests on belongs here, unless the batch finishes it first.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="background")
        self._begun: dict[str, Future[object]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._executor.shutdown()
        for name, task in self._begun.items():
            failure = task.exception()
            if failure is not None:  # Nobody has asked, because something else has failed, too.
                logger.error("%s: %s", name, failure, exc_info=failure)

    def begin(self, kind: str, task: Callable[[], object]) -> None:
        """Begin a task, once the last of its kind is done; raises what that one raised.

        The lines that it logs carry the step of the batch that begins it.
        """
        self.finish(kind)
        self._begun[kind] = self._executor.submit(copy_context().run, task)

    def finish(self, kind: str) -> object:
        """Wait for the task of a kind; returns what it returned or raises what it raised, once; None without a task."""
        return self._begun.pop(kind).result() if kind in self._begun else None

    def finish_all(self) -> None:
        """Wait for all tasks, and raise what they raised."""
        for kind in [*self._begun]:
            self.finish(kind)

    def settle(self) -> None:
        """Wait for all tasks, whatever becomes of them; who asks later is told."""
        wait(self._begun.values())

    def look(self) -> None:
        """Raise what tasks have raised, without waiting for those that go on."""
        for kind, task in [*self._begun.items()]:
            if task.done() and task.exception() is not None:
                self.finish(kind)

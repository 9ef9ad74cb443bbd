"""What goes on beside the batches of a stream."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

logger = logging.getLogger(__name__)


class Background:
    """Does work in one thread, beside the batches; a context, which ends when all is done.

    What is lost with the process has to be done again later: nothing that a batch rests on belongs here.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1)
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
        """Begin a task, once the last of its kind is done; raises what that one raised."""
        self.finish(kind)
        self._begun[kind] = self._executor.submit(task)

    def finish(self, *kinds: str) -> None:
        """Wait for the tasks of some kinds, or of all, and raise what they raised."""
        for kind in kinds or [*self._begun]:
            if kind in self._begun:
                self._begun.pop(kind).result()

    def look(self) -> None:
        """Raise what tasks have raised, without waiting for those that go on."""
        done = [kind for kind, task in self._begun.items() if task.done()]
        if done:
            self.finish(*done)

"""Answers requests in one thread, those that wait at the same time together."""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd

from recsys.errors import InputError
from recsys.registry.served import ServedVersion
from recsys.server.bodies import MOST_REQUESTS, AskedRow, columns_of


@dataclass(frozen=True)
class _Waiting:
    served: ServedVersion
    task: str
    asked: Sequence[AskedRow]
    answer: "asyncio.Future[pd.DataFrame]"


class Worker:
    """One thread that computes, while the server reads and writes other requests.

    Most of the time of a small request is the same for a hundred of them, so what has come in while the thread was busy
    is computed at once: rows do not depend on one another. Nobody waits for others to come. More threads would only
    make answers slower: what is not compiled takes Python's lock.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "answers")
        self._waiting = deque[_Waiting]()
        self._working: asyncio.Task[None] | None = None

    async def answer(self, served: ServedVersion, asked: Sequence[AskedRow], task: str) -> pd.DataFrame:
        """Columns of the answer of a task. A request that is given up before its turn is not computed."""
        waiting = _Waiting(served, task, asked, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await waiting.answer

    async def _work(self) -> None:
        while self._waiting:
            together = self._next()
            try:
                if together:
                    await self._compute(together)
            except InputError:
                # One of them cannot be answered; the others can.
                for one in together:
                    try:
                        await self._compute([one])
                    except Exception as error:
                        _fail([one], error)
            except Exception as error:
                _fail(together, error)

    def _next(self) -> list[_Waiting]:
        """The first request that waits, and others that its call can answer, too."""
        taken, left, rows = list[_Waiting](), deque[_Waiting](), 0
        for one in self._waiting:
            if one.answer.done():
                continue  # Given up.
            first = taken[0] if taken else one
            alike = one.served is first.served and one.task == first.task
            if alike and (not taken or rows + len(one.asked) <= MOST_REQUESTS):
                taken.append(one)
                rows += len(one.asked)
            else:
                left.append(one)
        self._waiting = left
        return taken

    async def _compute(self, together: list[_Waiting]) -> None:
        first, asked = together[0], [row for one in together for row in one.asked]
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._thread, first.served.answer, columns_of(asked), first.task)
        begin = 0
        for one in together:
            end = begin + len(one.asked)
            if not one.answer.done():
                one.answer.set_result(found.iloc[begin:end])
            begin = end


def _fail(together: list[_Waiting], error: Exception) -> None:
    for one in together:
        if not one.answer.done():
            one.answer.set_exception(error)

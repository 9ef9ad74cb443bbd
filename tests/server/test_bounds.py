"""Bounds on time: a body that never ends, an answer that never comes."""

import asyncio
import json

import pytest
from starlette.types import Message, Receive, Scope, Send

from recsys.config.operation import Serve
from recsys.server.bounds import Bounds
from recsys.server.figures import ServerFigures


async def reads_on(scope: Scope, receive: Receive, send: Send) -> None:
    while True:
        await receive()


async def begins_and_never_ends(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await asyncio.Event().wait()


async def drips() -> Message:
    await asyncio.sleep(0)
    return {"type": "http.request", "body": b"", "more_body": True}


def answered(app: Bounds) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app({"type": "http"}, drips, send))
    return sent


def test_a_body_that_never_ends_is_given_up() -> None:
    figures = ServerFigures()
    start, body = answered(Bounds(reads_on, Serve(timeout_seconds=0.01), figures))
    assert start["status"] == 504
    assert json.loads(body["body"]) == {"error": "not answered within 0.01 seconds"}
    count = figures.registry.get_sample_value(
        "recsys_serve_request_seconds_count", {"endpoint": "none", "status": "504"}
    )
    assert count == 1


def test_half_an_answer_is_not_followed_by_another_one() -> None:
    with pytest.raises(TimeoutError):
        answered(Bounds(begins_and_never_ends, Serve(timeout_seconds=0.01), ServerFigures()))

"""Bounds on the body and the time of every request, and its figures."""

import asyncio
import time
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.config.operation import Serve
from recsys.server.figures import ServerFigures


class Bounds:
    """The application within the bounds of the settings.

    Args:
        app: the application.
        settings: `serve.*`.
        figures: told of every answer.
    """

    def __init__(self, app: ASGIApp, settings: Serve, figures: ServerFigures) -> None:
        self._app, self._settings, self._figures = app, settings, figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, size, status = time.perf_counter(), 0, 0

        async def bounded_receive() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._settings.max_body_bytes:
                most = self._settings.max_body_bytes
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {most:,} bytes")
            return message

        async def noted_send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        seconds = self._settings.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._app(scope, bounded_receive, noted_send)
        except TimeoutError:
            if status:
                raise  # Half of an answer is out: the connection is closed.
            await error_line(HTTPStatus.GATEWAY_TIMEOUT, f"not answered within {seconds:g} seconds")(
                scope, receive, noted_send
            )
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._figures.answered(route, status, time.perf_counter() - began)


def error_line(status: int, line: str) -> JSONResponse:
    """An answer that says in one line what is wrong."""
    return JSONResponse({"error": " ".join(line.split())}, status)

"""The endpoints."""

import json
import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

import pandas as pd
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from recsys.config.operation import Serve
from recsys.errors import InputError
from recsys.server.bodies import (
    MOST_ITEMS,
    AskedList,
    AskedLists,
    AskedScores,
    AskedSimilars,
    GivenList,
    GivenLists,
    GivenScore,
    GivenScores,
    GivenSimilar,
    GivenSimilars,
)
from recsys.server.bounds import Bounds, error_line
from recsys.server.current import Answering, CurrentChampion
from recsys.server.figures import ServerFigures
from recsys.server.worker import Worker

_PROBLEMS_SHOWN = 3


def application(champion: CurrentChampion, settings: Serve, figures: ServerFigures) -> ASGIApp:
    """The server.

    Args:
        champion: what answers.
        settings: `serve.*`.
        figures: shown at `/metrics`.
    """
    # No page that loads its scripts from elsewhere; /openapi.json describes the endpoints.
    app = FastAPI(title="recsys", docs_url=None, redoc_url=None)
    _add_errors(app)
    _add_tasks(app, champion, figures)
    _add_operation(app, champion, figures)
    return Bounds(app, settings, figures)


def _add_tasks(app: FastAPI, champion: CurrentChampion, figures: ServerFigures) -> None:
    """What a version can do, one request or a list of them at a time."""
    worker = Worker()

    async def live(now: Answering, asked: Sequence[AskedList]) -> GivenLists:
        lists = _lists(await worker.answer(now.served, asked, "recommend"))
        figures.given("live", len(lists))
        return GivenLists(**_version(now), source="live", lists=lists)

    @app.post("/recommendations", response_model_exclude_unset=True)
    async def recommendations(asked: AskedLists) -> GivenLists:
        """Lists for users, computed now."""
        return await live(champion.now, asked)

    @app.get("/recommendations/{user_id:path}", response_model_exclude_unset=True)
    async def recommendation(user_id: str, k: Annotated[int | None, Query(ge=1, le=MOST_ITEMS)] = None) -> GivenLists:
        """The list of a user: of the table, if the version that answers has made it, else computed now."""
        now = champion.now
        stored = now.lists.of(user_id, k)
        if stored is None:
            return await live(now, [AskedList(user_id=user_id, k=k)])
        figures.given("table", 1)
        items, scores = stored
        list_id = now.lists.list_id(user_id)
        named = {} if list_id is None else {"list_id": list_id}
        given = GivenList(user_id=user_id, item_ids=items, scores=scores, **named)
        return GivenLists(**_version(now), source="table", lists=[given])

    @app.post("/similar")
    async def similar(asked: AskedSimilars) -> GivenSimilars:
        """The items most like others."""
        now = champion.now
        found = await worker.answer(now.served, asked, "similar_items")
        columns = zip(found["item_id"], found["item_ids"], found["scores"], strict=True)
        lists = [GivenSimilar(item_id=item, item_ids=items, scores=scores) for item, items, scores in columns]
        return GivenSimilars(**_version(now), lists=lists)

    @app.post("/scores")
    async def scores(asked: AskedScores) -> GivenScores:
        """The scores of pairs of users and items."""
        now = champion.now
        found = await worker.answer(now.served, asked, "score")
        columns = zip(found["user_id"], found["item_id"], found["score"], strict=True)
        given = [
            GivenScore(user_id=user, item_id=item, score=None if math.isnan(score) else score)
            for user, item, score in columns
        ]
        return GivenScores(**_version(now), scores=given)


def _version(now: Answering) -> dict[str, Any]:
    return {"model": now.served.version.name, "version": now.served.version.version}


def _lists(found: pd.DataFrame) -> list[GivenList]:
    told = found["explanations"] if "explanations" in found else [""] * len(found)
    columns = zip(found["user_id"], found["item_ids"], found["scores"], told, strict=True)
    return [
        GivenList(user_id=user, item_ids=items, scores=scores, **({"explanation": json.loads(text)} if text else {}))
        for user, items, scores, text in columns
    ]


def _add_operation(app: FastAPI, champion: CurrentChampion, figures: ServerFigures) -> None:
    """What tells of the server."""
    figures.version.set_function(lambda: int(champion.now.served.version.version))
    figures.up_to_date.set_function(lambda: champion.problem is None)
    figures.stored_lists.set_function(lambda: len(champion.now.lists))

    @app.get("/healthz")
    async def healthz() -> dict[str, Any]:
        """What answers. A server that answers is healthy, even where the registry does not."""
        now = champion.now
        return {
            "healthy": True,
            **_version(now),
            "stored_lists": len(now.lists),
            "registry": champion.problem or "ok",
            "table": champion.table_problem or "ok",
        }

    @app.get("/metrics")
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(figures.registry), media_type=CONTENT_TYPE_LATEST)


def _add_errors(app: FastAPI) -> None:
    """One line for whatever cannot be answered."""

    @app.exception_handler(RequestValidationError)
    async def not_valid(request: Request, error: RequestValidationError) -> Response:
        problems = error.errors()
        lines = [_described(problem) for problem in problems[:_PROBLEMS_SHOWN]]
        more = [f"and {len(problems) - len(lines)} more"] if len(problems) > len(lines) else []
        return error_line(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join([*lines, *more]))

    @app.exception_handler(InputError)
    async def refused(request: Request, error: InputError) -> Response:
        return error_line(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        line = error.detail
        if error.status_code == HTTPStatus.NOT_FOUND:
            line = "there is no such page: POST /recommendations, /similar or /scores, GET /healthz or /metrics"
        return error_line(error.status_code, line)

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        # Starlette raises it again, so that it is logged with its traceback.
        return error_line(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of the server; its log says more")


def _described(problem: dict[str, Any]) -> str:
    """A problem of pydantic's in the words of `recsys.serving.inputs`."""
    _, *place = problem["loc"]
    if problem["type"] == "json_invalid":
        return f"the body is no JSON: {problem['ctx']['error']} at character {place[0]}"
    message = problem["msg"].removeprefix("Value error, ")
    rows = [str(part) for part in place if isinstance(part, int)]
    names = [part for part in place if isinstance(part, str)]
    where = [f"'{names[0]:.60}'"] if names else []
    where += [f"row {rows[0]}"] if rows else []
    return f"{', '.join(where) or problem['loc'][0]}: {message[0].lower()}{message[1:]}"

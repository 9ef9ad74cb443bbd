"""The endpoints."""

import asyncio
import json
import math
from collections.abc import Iterator, Sequence
from functools import partial
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
from recsys.exposure import Origin
from recsys.server.bodies import (
    MOST_ITEMS,
    AskedList,
    AskedLists,
    AskedScore,
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
from recsys.server.current import Answering, CurrentVersions, Moment
from recsys.server.figures import ServerFigures
from recsys.server.worker import Worker

_PROBLEMS_SHOWN = 3
_Row = dict[str, Any]


def application(current: CurrentVersions, settings: Serve, figures: ServerFigures) -> ASGIApp:
    """The server.

    Args:
        current: what answers.
        settings: `serve.*`.
        figures: shown at `/metrics`.
    """
    # No page that loads its scripts from elsewhere; /openapi.json describes the endpoints.
    app = FastAPI(title="recsys", docs_url=None, redoc_url=None)
    _add_errors(app)
    _add_tasks(app, current, figures)
    _add_operation(app, current, figures)
    return Bounds(app, settings, figures)


def _add_tasks(app: FastAPI, current: CurrentVersions, figures: ServerFigures) -> None:
    """What a version can do, one request or a list of them at a time."""
    worker = Worker()

    async def of_users(now: Moment, asked: Sequence[AskedList] | Sequence[AskedScore], task: str) -> list[_Row]:
        """Rows of the answer in the order of the requests, each computed by the version of its user's arm."""
        arms = now.arms_of([one.user_id for one in asked])

        async def of_arm(arm: str | None) -> Iterator[_Row]:
            own = [one for one, its in zip(asked, arms, strict=True) if its == arm]
            answering = now.of_arm[arm]
            try:
                return iter(_rows(await worker.answer(answering.served, own, task), answering, arm))
            except InputError:
                if len(own) < len(asked):
                    # What is refused is named by its row: by that in the whole request.
                    await worker.answer(answering.served, asked, task)
                raise

        distinct = list(dict.fromkeys(arms))
        found = dict(zip(distinct, await asyncio.gather(*map(of_arm, distinct)), strict=True))
        return [next(found[arm]) for arm in arms]

    async def live(now: Moment, asked: Sequence[AskedList]) -> GivenLists:
        lists = [_list(row) for row in await of_users(now, asked, "recommend")]
        figures.given("live", len(lists))
        return GivenLists(source="live", lists=lists)

    @app.post("/recommendations", response_model_exclude_unset=True)
    async def recommendations(asked: AskedLists) -> GivenLists:
        """Lists for users, computed now."""
        return await live(current.now, asked)

    @app.get("/recommendations/{user_id:path}", response_model_exclude_unset=True)
    async def recommendation(user_id: str, k: Annotated[int | None, Query(ge=1, le=MOST_ITEMS)] = None) -> GivenLists:
        """The list of a user: of the table, if the version that answers has made it, else computed now."""
        now = current.now
        (arm,) = now.arms_of([user_id])
        answering = now.of_arm[arm]
        stored = answering.lists.of(user_id, k)
        if stored is None:
            return await live(now, [AskedList(user_id=user_id, k=k)])
        figures.given("table", 1)
        items, scores = stored
        list_id = answering.lists.list_id(user_id)
        named = _name(answering, arm) | ({} if list_id is None else {"list_id": list_id})
        return GivenLists(source="table", lists=[GivenList(user_id=user_id, item_ids=items, scores=scores, **named)])

    @app.post("/similar")
    async def similar(asked: AskedSimilars) -> GivenSimilars:
        """The items most like others."""
        champion = current.now.champion
        found = await worker.answer(champion.served, asked, "similar_items")
        return GivenSimilars(lists=[GivenSimilar(**row) for row in _rows(found, champion)])

    @app.post("/scores", response_model_exclude_unset=True)
    async def scores(asked: AskedScores) -> GivenScores:
        """The scores of pairs of users and items."""
        rows = await of_users(current.now, asked, "score")
        return GivenScores(
            scores=[GivenScore(**{**row, "score": None if math.isnan(row["score"]) else row["score"]}) for row in rows]
        )


def _rows(found: pd.DataFrame, answering: Answering, arm: str | None = None) -> list[_Row]:
    """Rows of an answer, with what has answered."""
    name, columns = _name(answering, arm), found.columns.tolist()
    rows = zip(*(found[column] for column in columns), strict=True)
    return [{**name, **dict(zip(columns, row, strict=True))} for row in rows]


def _name(answering: Answering, arm: str | None) -> dict[str, str]:
    """What has answered, as answers name it."""
    return answering.name | ({} if arm is None else {"arm": arm})


def _list(row: _Row) -> GivenList:
    told = row.pop("explanations", "")
    # A version of an earlier release does not say how it has ranked.
    ranking, propensity = row.pop("ranking", ""), row.pop("propensity", math.nan)
    given = GivenList(**row, **({"explanation": json.loads(told)} if told else {}))
    if math.isnan(propensity):
        return given
    # The same list for the same user has the same id, however often it is asked for.
    made = json.dumps([given.user_id, given.item_ids])
    origin = Origin(given.model, given.version, ranking, propensity)
    return given.model_copy(update={"list_id": origin.list_id(made)})


def _add_operation(app: FastAPI, current: CurrentVersions, figures: ServerFigures) -> None:
    """What tells of the server."""

    def number(arm: str | None) -> int:
        return int(current.now.of_arm[arm].served.version.version)

    for arm in current.now.of_arm:
        figures.version.labels(arm or "").set_function(partial(number, arm))
    figures.up_to_date.set_function(lambda: current.problem is None)
    figures.stored_lists.set_function(lambda: current.now.stored_lists)

    @app.get("/healthz")
    async def healthz() -> dict[str, Any]:
        """What answers. A server that answers is healthy, even where the registry does not."""
        return {"healthy": True, **current.health()}

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

"""The catalogue of named queries: what can be asked, and asking it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Body, Depends, Request
from starlette.responses import Response

from tracestore.query.catalogue import catalogue
from tracestore.serve.asking import Asker, asker
from tracestore.serve.named import described_query, query_parameters
from tracestore.serve.negotiation import json_response, rows_response
from tracestore.serve.problems import ProblemError, responses
from tracestore.serve.schemas import QueriesAnswer

Ask = Annotated[Asker, Depends(asker)]
Value = str | int | float | bool | None
PREFIX: Final = "/api/queries"


def make_router() -> APIRouter:
    """Make the router: two operations for each query, so that OpenAPI knows every parameter and column."""
    router = APIRouter(prefix=PREFIX, tags=["queries"])
    router.add_api_route("", list_queries, methods=["GET"], response_model=QueriesAnswer, responses=responses())
    for name in catalogue():
        router.add_api_route(f"/{name}", _by_string(name), methods=["GET"], responses=responses(406, 422), name=name)
        router.add_api_route(f"/{name}", _by_body(name), methods=["POST"], responses=responses(406, 413, 422), name=f"{name} (POST)")
    router.add_api_route("/{name}", unknown, methods=["GET", "POST"], include_in_schema=False)
    return router


async def list_queries() -> Response:
    """List the named queries with their parameters, columns and units."""
    return json_response({"queries": [described_query(found.header) for found in catalogue().values()]})


async def unknown(name: str) -> Response:
    """Say that there is no such query."""
    raise ProblemError(404, "unknown-query", f"There is no query of this name; {PREFIX} lists them.")


def _by_string(name: str) -> Callable[..., Response]:
    def run(request: Request, ask: Ask) -> Response:
        result = ask.named(name, query_parameters(request))
        return rows_response(request, result.table, truncated=result.truncated)

    return run


def _by_body(name: str) -> Callable[..., Response]:
    def run(request: Request, ask: Ask, params: Annotated[dict[str, Value], Body()]) -> Response:
        result = ask.named(name, params)
        return rows_response(request, result.table, truncated=result.truncated)

    return run

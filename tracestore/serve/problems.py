"""Errors as problem+json (RFC 9457). A problem never holds a prompt, a parameter's value, a secret or a stack trace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from tracestore.errors import BadInputError, QueryError, QueryTimeoutError, ResourceError, StoreError, TracestoreError

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 2


class ProblemError(Exception):
    """What is told to a client: an HTTP status, a name of the kind of problem, a sentence, headers."""

    def __init__(self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, kind)
        self.status, self.kind, self.detail, self.headers = status, kind, detail, headers or {}

    def response(self) -> Response:
        """Give it as a response."""
        body = {"type": f"urn:tracestore:{self.kind}", "title": self.kind.replace("-", " "), "status": self.status, "detail": self.detail}
        return Response(json.dumps(body, ensure_ascii=False), self.status, dict(self.headers), MEDIA_TYPE)


SCHEMA: Final[Mapping[str, Any]] = {
    "title": "Problem",
    "description": "RFC 9457",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "names the kind of problem"},
        "title": {"type": "string"},
        "status": {"type": "integer", "description": "the HTTP status"},
        "detail": {"type": "string", "description": "what happened and what to do"},
    },
}

_MEANINGS: Final = {
    400: "The request cannot be read, or names a host that is not served.",
    401: "A bearer token is needed, or the one given is not right.",
    403: "This server was started without it.",
    404: "There is no such thing in this store.",
    405: "The address is there, but not for this method.",
    406: "None of the media types asked for can be given.",
    413: "The body is too large.",
    415: "The body must be JSON.",
    422: "A parameter is missing or not allowed.",
    429: "Too many requests wait already; try again.",
    503: "The store cannot answer now; try again.",
    504: "The query took longer than it may.",
}
ANYWHERE: Final = (400, 401, 429, 503, 504)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the problems that an operation can answer with, those of every operation included."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _MEANINGS[status], "content": content} for status in sorted({*ANYWHERE, *statuses})}


def problem_of(error: TracestoreError) -> ProblemError:
    """Translate one of our own errors."""
    if isinstance(error, QueryTimeoutError):
        return ProblemError(504, "timeout", str(error))
    if isinstance(error, QueryError):
        return ProblemError(422, "bad-query", str(error))
    if isinstance(error, BadInputError):
        return ProblemError(422, "bad-input", str(error))
    if isinstance(error, StoreError | ResourceError):
        detail = "The store cannot answer now; the server's log says why." if not error.retryable else str(error)
        return ProblemError(503, "store-unavailable", detail, {"Retry-After": str(RETRY_AFTER_S)})
    return ProblemError(500, "failure", f"{type(error).__name__}: the server's log says more.")


def not_found(what: str) -> ProblemError:
    """Say that the store has no such thing."""
    return ProblemError(404, "not-found", f"The store has no {what} of this id, or it is not complete yet.")


def install(app: FastAPI) -> None:
    """Turn everything that is raised into a problem."""

    @app.exception_handler(ProblemError)
    async def _problem(request: Request, error: ProblemError) -> Response:
        return error.response()

    @app.exception_handler(TracestoreError)
    async def _ours(request: Request, error: TracestoreError) -> Response:
        return problem_of(error).response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        # where and what kind, never the value that was given
        told = sorted({f"{'.'.join(str(part) for part in e['loc'] if isinstance(part, str))}: {e['msg']}" for e in error.errors()})
        return ProblemError(422, "bad-request", "; ".join(told[:5])).response()

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        kinds = {404: "not-found", 405: "method-not-allowed"}
        detail = {404: "There is nothing at this address.", 405: "This address does not take this method."}
        return ProblemError(
            error.status_code,
            kinds.get(error.status_code, "bad-request"),
            detail.get(error.status_code, "The request cannot be read."),
            error.headers or {},
        ).response()

"""Is the server alive, can it answer, and its numbers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import PlainTextResponse, Response

from tracestore.serve.asking import Asker, asker
from tracestore.serve.metrics import MEDIA_TYPE
from tracestore.serve.problems import responses
from tracestore.store.base import Limits

router = APIRouter(tags=["server"])


@router.get("/healthz", response_class=PlainTextResponse, responses=responses())
async def alive() -> str:
    """Say that the process answers."""
    return "ok"


@router.get("/readyz", response_class=PlainTextResponse, responses=responses())
def ready(ask: Annotated[Asker, Depends(asker)]) -> str:
    """Say that the store answers; 503 while it does not."""
    ask.run("MATCH (t:Trace) RETURN count(t) AS traces", {}, Limits(timeout_s=5.0))
    return "ready"


@router.get(
    "/metrics",
    response_class=Response,
    responses={**responses(), 200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Give the server's metrics."""
    return Response(request.app.state.metrics.text(), media_type=MEDIA_TYPE)

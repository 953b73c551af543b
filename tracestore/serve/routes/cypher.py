"""Ad-hoc Cypher: one statement that reads, where the server was started with it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from tracestore.serve.asking import Asker, asker, sound
from tracestore.serve.negotiation import rows_response
from tracestore.serve.problems import ProblemError, responses

router = APIRouter(prefix="/api/cypher", tags=["queries"])


class Statement(BaseModel):
    """What to run."""

    model_config = ConfigDict(extra="forbid")

    statement: str = Field(description="One Cypher statement that only reads.", min_length=1, max_length=100_000)
    params: dict[str, Any] = Field(default_factory=dict, description="Its parameters.")
    limit: int | None = Field(default=None, ge=1, le=1_000_000, description="Rows at most; the server has a limit of its own.")


@router.post("", responses=responses(403, 406, 413, 422))
def cypher(request: Request, body: Statement, ask: Annotated[Asker, Depends(asker)]) -> Response:
    """Run one statement that only reads; 403 unless the server was started with --allow-cypher."""
    if not ask.settings.allow_cypher:
        raise ProblemError(403, "cypher-off", "This server runs named queries only; it must be started with --allow-cypher.")
    rows = min(body.limit or ask.settings.max_rows, ask.settings.max_rows)
    result = ask.graph.run_cypher(sound(body.statement), sound(body.params), max_rows=rows, timeout_s=ask.remaining_s)
    return rows_response(request, result.table, truncated=result.truncated)

"""Traces: the list, and one with its items, tokens, spans and outputs."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from tracestore.query.rows import plain
from tracestore.query.traces import read_summary
from tracestore.serve.asking import Asker, asker, sound
from tracestore.serve.named import only_declared, query_parameters
from tracestore.serve.negotiation import json_response, rows_response
from tracestore.serve.problems import ProblemError, not_found, responses
from tracestore.serve.schemas import TraceAnswer

router = APIRouter(prefix="/api/traces", tags=["traces"])

LISTING: Final = "list_traces"
PAGING: Final = ("offset", "older_than", "after_id", "k")
"""Parameters of the query that the cursor takes care of."""


@router.get("", responses=responses(406, 422))
def list_traces(
    request: Request,
    ask: Annotated[Asker, Depends(asker)],
    limit: Annotated[int, Query(ge=1, le=1000, description="Rows of a page.")] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="What the page before gave as `next`.")] = None,
) -> Response:
    """List traces, newest first, one page at a time; traces that arrive meanwhile do not shift the pages."""
    given = query_parameters(request, beside=("limit", "cursor"))
    refuse_paging(given)
    size = min(limit, ask.settings.max_rows)
    result = ask.named(LISTING, {**given, **_position(cursor)}, limit=size + 1)
    table = result.table.slice(0, size)
    full = result.truncated or result.table.num_rows > size
    following = _cursor(table.slice(size - 1).to_pylist()[0]) if full else None
    return rows_response(request, table, truncated=full, more={"next": following})


@router.get("/{trace_id}", response_model=TraceAnswer, responses=responses(404, 422), dependencies=[Depends(only_declared)])
def one_trace(trace_id: str, ask: Annotated[Asker, Depends(asker)]) -> Response:
    """Give a trace: its header, the items that asked for it, tokens, spans, and outputs (without their head vectors)."""
    found = read_summary(ask, sound(trace_id), ask.everything)
    if found is None:
        raise not_found("trace")
    outputs = [{name: value for name, value in row.items() if name != "head_vector"} for row in found.outputs]
    parts = {"trace": found.trace, "items": found.items, "tokens": found.tokens, "spans": found.spans, "outputs": outputs}
    return json_response(plain(parts))


def refuse_paging(given: Mapping[str, object]) -> None:
    """Refuse the query's own parameters of paging. Raises ProblemError 422."""
    if unknown := sorted(set(given) & set(PAGING)):
        raise ProblemError(422, "bad-request", f"Only filters are taken here, not {', '.join(unknown)}; a list is paged with `cursor`.")


def _cursor(row: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(f"{row['created_at']}:{row['trace_id']}".encode()).decode().rstrip("=")


def _position(cursor: str | None) -> dict[str, object]:
    if cursor is None:
        return {}
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        made, separator, trace_id = text.partition(":")
        if separator and made.removeprefix("-").isdecimal():
            return {"older_than": made, "after_id": trace_id}
    except (binascii.Error, ValueError):
        pass
    raise ProblemError(422, "bad-cursor", "This cursor was not made by this list; begin again without one.")

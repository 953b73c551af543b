"""Exports: the archive's traces in the formats of `tracestore export`, streamed, where the server was started with an archive.

Which traces: those that the store shows and the filters of `list_traces` let through. What is in them comes from the archive.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response, StreamingResponse

from tracestore.export.streaming import LINE_FORMATS, STREAMED, TABLE_FORMATS, Selection, stream_export, stream_table
from tracestore.export.tables import TABLES
from tracestore.serve.asking import Asker, asker
from tracestore.serve.named import only_declared, query_parameters
from tracestore.serve.negotiation import NDJSON
from tracestore.serve.problems import ProblemError, responses
from tracestore.serve.routes.traces import LISTING, refuse_paging
from tracestore.serve.settings import EXPORT_PREFIX

router = APIRouter(prefix=EXPORT_PREFIX, tags=["export"], dependencies=[Depends(only_declared)])

TAR: Final = "application/x-tar"
PARQUET: Final = "application/vnd.apache.parquet"
CSV: Final = "text/csv"
OWN: Final = ("level", "archived_since")
"""Parameters of an export beside the filters of traces."""

_PAGE: Final = 500
_BEGUN: Final = 1 << 16

Ask = Annotated[Asker, Depends(asker)]
LevelWanted = Annotated[
    Literal["summary", "mechanism"], Query(description="For tables: with State, Head, Mlp and their edges or without. Others have all.")
]
Since = Annotated[
    int | None, Query(ge=0, lt=2**63, description="Only what was archived at this time or later, milliseconds since 1970: for increments.")
]


def _binary(*kinds: str) -> dict[int | str, dict[str, Any]]:
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    return {
        **responses(403, 406, 422),
        200: {"description": "The export, as it is made; cut off where a limit ends it.", "content": content},
    }


@router.get("/{form}", response_class=Response, responses=_binary(TAR, NDJSON))
def export(
    request: Request,
    ask: Ask,
    form: Annotated[str, Path(json_schema_extra={"enum": list(STREAMED)})],
    level: LevelWanted = "summary",
    archived_since: Since = None,
) -> Response:
    """Export traces: lines of JSON (`ndjson`, `span-annotations`), or a tar of files (all others), one for each table, trace or output."""
    if form not in STREAMED:
        raise ProblemError(422, "bad-request", f"This can be exported as {', '.join(STREAMED)}.")
    pieces = stream_export(form, _selection(request, ask, level, archived_since))
    lines = form in LINE_FORMATS
    return _streamed(pieces, NDJSON if lines else TAR, f"{form}.ndjson" if lines else f"{form}.tar")


@router.get("/{form}/{table}", response_class=Response, responses=_binary(PARQUET, CSV))
def export_table(
    request: Request,
    ask: Ask,
    form: Annotated[str, Path(json_schema_extra={"enum": list(TABLE_FORMATS)})],
    table: Annotated[str, Path(json_schema_extra={"enum": list(TABLES)})],
    level: LevelWanted = "summary",
    archived_since: Since = None,
) -> Response:
    """Export one table of the star schema as a Parquet or CSV file; its uids are those of the export of all tables."""
    if form not in TABLE_FORMATS or table not in TABLES:
        raise ProblemError(422, "bad-request", f"There are {', '.join(TABLE_FORMATS)}, and the tables {', '.join(TABLES)}.")
    pieces = stream_table(form, table, _selection(request, ask, level, archived_since))
    return _streamed(pieces, PARQUET if form == "parquet" else CSV, f"{table}.{form}")


def _selection(request: Request, ask: Asker, level: Literal["summary", "mechanism"], since: int | None) -> Selection:
    if ask.archive is None:
        raise ProblemError(403, "export-off", "This server has no archive to export from; it must be started with --archive.")
    filters = query_parameters(request, beside=OWN)
    refuse_paging(filters)
    return Selection(ask.archive, level, since, frozenset(_ids(ask, filters)))


def _ids(ask: Asker, filters: dict[str, str]) -> Iterator[str]:
    """Name the wanted traces, page by page: the list has their texts, which need not all be in memory."""
    position: dict[str, object] = {}
    left = ask.settings.max_export_traces
    while True:
        rows = ask.named(LISTING, {**filters, **position}, limit=_PAGE).table.select(["trace_id", "created_at"]).to_pylist()
        left -= len(rows)
        if left < 0:
            raise ProblemError(422, "too-much", f"An export may have {ask.settings.max_export_traces} traces; narrow it by filters.")
        yield from (row["trace_id"] for row in rows)
        if not rows:
            return
        position = {"older_than": rows[-1]["created_at"], "after_id": rows[-1]["trace_id"]}


def _streamed(pieces: Iterator[bytes], kind: str, name: str) -> Response:
    begun: list[bytes] = []
    while sum(map(len, begun)) < _BEGUN and (piece := next(pieces, None)) is not None:
        begun.append(piece)  # what is wrong so early becomes a problem, not a stream that breaks off
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(chain(begun, pieces), media_type=kind, headers=headers)

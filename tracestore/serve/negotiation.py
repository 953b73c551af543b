"""Rows in the form that a client accepts: JSON, NDJSON or an Arrow stream. The last two are written piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tracestore.query.rows import plain
from tracestore.serve.problems import ProblemError

if TYPE_CHECKING:
    import pyarrow as pa

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
ARROW: Final = "application/vnd.apache.arrow.stream"
TRUNCATED: Final = "Tracestore-Truncated"
"""Header of NDJSON and Arrow answers: `true` when a limit cut the rows off."""

_ROWS_A_PIECE: Final = 1_000


def choose(request: Request, offers: tuple[str, ...] = (JSON, NDJSON, ARROW)) -> str:
    """Give the media type that the client likes best; among equals the first offer. Raises ProblemError 406."""
    wishes = [_wish(part) for part in ",".join(request.headers.getlist("accept")).split(",") if part.strip()]
    if not wishes:
        return offers[0]
    best, liking = offers[0], 0.0
    for offer in offers:
        matching = [(len(pattern.replace("*", "")), quality) for pattern, quality in wishes if _matches(pattern, offer)]
        quality = max(matching)[1] if matching else 0.0  # the most specific pattern decides
        if quality > liking:
            best, liking = offer, quality
    if liking == 0.0:
        raise ProblemError(406, "not-acceptable", f"This can be given as {', '.join(offers)}.")
    return best


def rows_response(request: Request, table: pa.Table, *, truncated: bool, more: Mapping[str, Any] | None = None) -> Response:
    """Answer with a table's rows. `more` are members beside `rows` in JSON (a `next` becomes a Link header in the other forms)."""
    kind = choose(request)
    if kind == JSON:
        return json_response({"rows": plain(table.to_pylist()), "truncated": truncated, **(more or {})})
    headers = {TRUNCATED: str(truncated).lower(), "Vary": "Accept"}
    if more and more.get("next"):
        headers["Link"] = _link(request, more["next"])
    return StreamingResponse(_ndjson(table) if kind == NDJSON else _arrow(table), media_type=kind, headers=headers)


def json_response(value: object, status: int = 200) -> Response:
    """Answer with JSON; the value is plain already."""
    body = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(body, status, {"Vary": "Accept"}, JSON)


def _link(request: Request, cursor: str) -> str:
    url = request.url.include_query_params(cursor=cursor)
    return f'<{url.path}?{url.query}>; rel="next"'


def _wish(part: str) -> tuple[str, float]:
    pattern, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = min(1.0, max(0.0, float(value)))
            except ValueError:
                quality = 0.0
    return pattern, quality


def _matches(pattern: str, offer: str) -> bool:
    return pattern in ("*/*", "*", offer) or (pattern.endswith("/*") and offer.startswith(pattern[:-1]))


def _ndjson(table: pa.Table) -> Iterator[bytes]:
    for batch in table.to_batches(max_chunksize=_ROWS_A_PIECE):
        yield "".join(json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n" for row in batch.to_pylist()).encode()


def _arrow(table: pa.Table) -> Iterator[bytes]:
    import io

    import pyarrow as pa

    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=_ROWS_A_PIECE):
            writer.write_batch(batch)
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()

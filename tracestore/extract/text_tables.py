"""The tables of a trace that need no attribution: Item, Token, Span; and what follows from token scores: Span INFLUENCES, EMITS.

1. Node numbers: 0 is the Trace; then the Item, the Tokens by position, the Spans, and whatever the outputs need.
2. A span's influence is the sum over its tokens up to the explained position (their signed scores add up, so do the absolute sums).
3. An Output emits the token after its position if that is the token it explains; a span that is explained as one sum, all of its tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tracestore import schema
from tracestore.extract.attribution import Bools, Floats
from tracestore.extract.spans import TokenSpan
from tracestore.extract.tokenise import Tokenised
from tracestore.model import Item, Origin

ITEM_LOCAL: Final = 1
FIRST_TOKEN_LOCAL: Final = 2
_SUMMED: Final = ("score", "direct_value", "direct_address", "total_value", "total_address", "direct", "total", "removal", "share")


@dataclass(frozen=True, slots=True)
class TextRecord:
    """A finished text: tokens, where each came from, the tokens' texts, which are attention sinks, and the spans."""

    tokens: Tokenised
    texts: tuple[str, ...]
    origins: tuple[Origin, ...]
    sinks: tuple[bool, ...]
    spans: tuple[TokenSpan, ...]

    @property
    def first_span_local(self) -> int:
        """Node number of the first Span."""
        return FIRST_TOKEN_LOCAL + len(self.tokens)

    @property
    def first_output_local(self) -> int:
        """Node number from which the outputs' nodes are counted."""
        return self.first_span_local + len(self.spans)


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Build a table of the schema from rows that name every column."""
    wanted = schema.arrow_schema(name)

    def value(row: Mapping[str, Any], field: pa.Field[pa.DataType]) -> Any:
        return row.get(field.name) if field.nullable else row[field.name]

    return pa.table({field.name: pa.array([value(row, field) for row in rows], type=field.type) for field in wanted}, schema=wanted)


def text_tables(
    record: TextRecord, model_id: str, item: Item, item_id: str, correct: bool | None, explained: Mapping[int, Mapping[str, float]]
) -> dict[str, pa.Table]:
    """Build the Item, Token and Span tables; `explained` are the properties of spans (by index) that were explained."""
    tables = {"Item": table("Item", [item_row(item, item_id, correct)]), "Token": table("Token", _token_rows(record, model_id))}
    if record.spans:
        tables["Span"] = table("Span", _span_rows(record, explained))
    return tables


def item_row(item: Item, item_id: str, correct: bool | None, *, local: int = ITEM_LOCAL) -> dict[str, Any]:
    """Give an Item node's properties; also for a further input line that asks for an archived trace (with its own `local`)."""
    names = ("dataset", "split", "variant", "session_id", "turn", "expected", "rationale", "otel_trace_id", "otel_span_id")
    own = {name: getattr(item, name) for name in names}
    return {"local": local, "item_id": item_id, "tags": list(item.tags), "correct": correct, **own}


def _token_rows(record: TextRecord, model_id: str) -> list[dict[str, Any]]:
    return [
        {
            "local": FIRST_TOKEN_LOCAL + pos,
            "model_id": model_id,
            "pos": pos,
            "token_id": token,
            "text": record.texts[pos],
            "char_from": record.tokens.offsets[pos][0],
            "char_to": record.tokens.offsets[pos][1],
            "origin": record.origins[pos],
            "sink": record.sinks[pos],
        }
        for pos, token in enumerate(record.tokens.token_ids)
    ]


def _span_rows(record: TextRecord, explained: Mapping[int, Mapping[str, float]]) -> list[dict[str, Any]]:
    return [
        {
            "local": record.first_span_local + index,
            "kind": span.kind,
            "ref": span.ref,
            "ordinal": span.ordinal,
            "first_pos": span.first_pos,
            "last_pos": span.last_pos,
            "text": span.text,
            **explained.get(index, {}),
        }
        for index, span in enumerate(record.spans)
    ]


def span_influences(record: TextRecord, token_influences: pa.Table) -> pa.Table:
    """Sum one Output's INFLUENCES of tokens into those of spans: every span that begins at or before its position.

    A span that holds explained tokens itself counts with its tokens up to the explained position alone. Ranks are among the Output's
    spans, by the same sums without attention sinks; a span of sinks alone comes last.
    """
    name = schema.edge_table("INFLUENCES", "Span", "Output")
    count = token_influences.num_rows  # positions 0 to the Output's own
    spans = [(index, span.first_pos, min(span.last_pos + 1, count)) for index, span in enumerate(record.spans) if span.first_pos < count]
    if not spans:
        return schema.arrow_schema(name).empty_table()
    index, first, stop = (np.asarray(column, dtype=np.int64) for column in zip(*spans, strict=True))
    columns: dict[str, Any] = {
        "src": record.first_span_local + index,
        "dst": np.full(len(index), token_influences["dst"][0].as_py()),
    }
    open_tokens = ~np.asarray(record.sinks[:count], dtype=bool)

    def inside(values: Floats | Bools) -> Floats:
        before: Floats = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        found: Floats = before[stop] - before[first]
        return found

    for key in _SUMMED:
        columns[key] = inside(token_influences[key].to_numpy())
    only_sinks = inside(open_tokens) == 0
    without_sinks = {key: inside(np.where(open_tokens, token_influences[key].to_numpy(), 0.0)) for key in ("drive", "direct", "total")}
    columns["drive"] = without_sinks["drive"]
    for key, size in without_sinks.items():
        order = np.lexsort((index, -size, only_sinks))
        columns[f"rank_{key}"] = np.empty(len(order), dtype=np.int64)
        columns[f"rank_{key}"][order] = np.arange(1, len(order) + 1)
    wanted = schema.arrow_schema(name)
    return pa.table({field.name: pa.array(columns[field.name], type=field.type) for field in wanted}, schema=wanted)


def emits(output: int, tokens: range) -> pa.Table:
    """Join an Output to the tokens at positions `tokens` of the text that it explains."""
    rows = [{"src": output, "dst": FIRST_TOKEN_LOCAL + pos} for pos in tokens]
    return table(schema.edge_table("EMITS", "Output", "Token"), rows)

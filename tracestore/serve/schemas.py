"""Answers that are not plain rows, as OpenAPI shows them. Properties of nodes follow the schema, so they are not spelt again here."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tracestore import schema

_COLUMN_TYPES: dict[str, dict[str, Any]] = {
    "int": {"type": "integer", "format": "int64"},
    "float": {"type": ["number", "null"]},
    "string": {"type": "string"},
    "bool": {"type": "boolean"},
    "strings": {"type": "array", "items": {"type": "string"}},
    "floats": {"type": "array", "items": {"type": ["number", "null"]}},
    "ref": {"type": "integer", "format": "int64"},
}


def node_schema(label: str, *, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Describe a node of the store: its properties, and `uid`."""
    columns = [c for c in schema.table_columns(label, store=True) if c.name not in leave_out]
    properties: dict[str, Any] = {"uid": {"type": "integer", "format": "int64", "description": "its key in this store"}}
    for column in columns:
        kind = _COLUMN_TYPES[column.kind]
        described = {"anyOf": [kind, {"type": "null"}]} if column.nullable else dict(kind)
        properties[column.name] = {**described, "description": column.doc}
    return {"type": "object", "required": list(properties), "properties": properties}


def _rows_of(label: str, **options: Any) -> dict[str, Any]:
    return {"type": "array", "items": node_schema(label, **options)}


class TraceAnswer(BaseModel):
    """A trace with what belongs to it."""

    trace: dict[str, Any] = Field(json_schema_extra=node_schema("Trace"))
    items: list[dict[str, Any]] = Field(json_schema_extra=_rows_of("Item"))
    tokens: list[dict[str, Any]] = Field(json_schema_extra=_rows_of("Token"), description="by position")
    spans: list[dict[str, Any]] = Field(json_schema_extra=_rows_of("Span"))
    outputs: list[dict[str, Any]] = Field(json_schema_extra=_rows_of("Output", leave_out=("head_vector",)), description="by position")


class OutputAnswer(BaseModel):
    """An output with every property."""

    model_config = ConfigDict(json_schema_extra=node_schema("Output"))


class Node(BaseModel):
    """A node, in the fields of Grafana's node graph panel and our own."""

    id: str = Field(description="emb@3, L5.pre@3, L5.mid@3, L5.h2@3, L5.mlp@3 or out@9")
    title: str
    subtitle: str
    mainstat: float | None = Field(description="relevance, logits")
    kind: str = Field(description="Token, State, Head, Mlp or Output")
    layer: int | None
    head: int | None
    pos: int
    site: str | None


class Edge(BaseModel):
    """An edge, in the fields of Grafana's node graph panel and our own."""

    id: str
    source: str
    target: str
    mainstat: float | None = Field(description="signed weight, logits")
    secondarystat: str
    type: str = Field(description="EMBEDS, VALUE, KEY, QUERY, WRITES, READS, RESIDUAL or UNEMBEDS")
    attention: float | None = Field(description="attention probability of a VALUE edge, 0 to 1")


class GraphAnswer(BaseModel):
    """The mechanism of an output, cut to a number of edges."""

    nodes: list[Node]
    edges: list[Edge] = Field(description="largest |weight| first")
    edges_stored: int = Field(description="edges of the output (of the node, with `expand`) in the store")
    attention_share: float = Field(description="share of the stored attention edges' |weight| that is given here, 0 to 1")
    truncated: bool


class QueriesAnswer(BaseModel):
    """The catalogue."""

    queries: list[dict[str, Any]]

"""Named queries over HTTP: parameters from a query string, and their description for OpenAPI, both from the query's header."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from fastapi import Request

from tracestore.errors import QueryError
from tracestore.query.header import ColumnType, Header
from tracestore.query.parameters import Parameter
from tracestore.serve.negotiation import ARROW, JSON, NDJSON

_TYPES: Final[dict[str, dict[str, Any]]] = {
    "int": {"type": "integer", "format": "int64"},
    "float": {"type": "number"},
    "string": {"type": "string"},
    "bool": {"type": "boolean"},
}


def query_parameters(request: Request, *, beside: Collection[str] = ()) -> dict[str, str]:
    """Read the parameters in the query string, those named in `beside` left out. Raises QueryError when one is given twice."""
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in given:
            raise QueryError("A parameter is given twice.")
        given[name] = value
    return {name: value for name, value in given.items() if name not in beside}


def only_declared(request: Request) -> None:
    """Refuse parameters that the route's description does not have: a misspelt limit would be no limit. Raises QueryError."""
    if not request.query_params:
        return  # the description takes a while to make, once, and a first visit need not wait for it
    operation = request.app.openapi()["paths"][request.scope["route"].path][request.method.lower()]
    names = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"}
    if not names.issuperset(request.query_params):
        known = ", ".join(sorted(names)) or "no parameters"
        raise QueryError(f"There is a parameter that is not known here: this address takes {known}.")


def parameter_schema(parameter: Parameter) -> dict[str, Any]:
    """Describe a parameter's values as JSON schema."""
    schema = dict(_TYPES[parameter.type])
    if parameter.choices:
        schema["enum"] = list(parameter.choices)
    if parameter.low is not None:
        schema["minimum"] = parameter.low
    if parameter.high is not None:
        schema["maximum"] = parameter.high
    if parameter.default is not None:
        schema["default"] = parameter.default
    return schema


def described_parameters(header: Header, *, leave_out: Collection[str] = ()) -> list[dict[str, Any]]:
    """Describe a query's parameters as those of an HTTP operation."""
    return [
        {"name": p.name, "in": "query", "required": p.required, "description": p.doc, "schema": parameter_schema(p)}
        for p in header.parameters
        if p.name not in leave_out
    ]


def described_body(header: Header) -> dict[str, Any]:
    """Describe the same parameters as members of a JSON object."""
    properties = {p.name: {**parameter_schema(p), "description": p.doc} for p in header.parameters}
    required = [p.name for p in header.parameters if p.required]
    schema = {"type": "object", "properties": properties, "additionalProperties": False, **({"required": required} if required else {})}
    return {"required": True, "content": {JSON: {"schema": schema}}}


def described_rows(header: Header | None, more: dict[str, Any] | None = None) -> dict[str, Any]:
    """Describe the answer of a query in its three forms; `more` are members beside the rows."""
    item: dict[str, Any] = {"type": "object"}
    if header is not None:
        item |= {
            "required": [c.name for c in header.columns],
            "properties": {c.name: {**_column_schema(c.type, nullable=c.nullable), "description": c.doc} for c in header.columns},
        }
    rows = {"type": "array", "items": item}
    truncated = {"type": "boolean", "description": "did a limit cut the rows off"}
    schema = {
        "type": "object",
        "required": ["rows", "truncated", *(more or {})],
        "properties": {"rows": rows, "truncated": truncated, **(more or {})},
    }
    return {
        "description": f"{header.question if header else 'The rows.'} NDJSON and Arrow are given where the client accepts them.",
        "content": {
            JSON: {"schema": schema},
            NDJSON: {"schema": {"type": "string", "description": "one JSON object a line"}},
            ARROW: {"schema": {"type": "string", "format": "binary", "description": "Arrow IPC stream"}},
        },
    }


def _column_schema(kind: ColumnType, *, nullable: bool) -> dict[str, Any]:
    schema = dict(_TYPES[kind])
    if nullable or kind == "float":  # JSON has no NaN
        schema["type"] = [schema["type"], "null"]
    return schema


def described_query(header: Header) -> dict[str, Any]:
    """Describe a query to people and programs: question, parameters, columns with units, what it seeks on."""
    return {
        "name": header.name,
        "question": header.question,
        "parameters": [
            {
                "name": p.name,
                "type": p.type,
                "required": p.required,
                "default": p.default,
                "choices": list(p.choices),
                "minimum": p.low,
                "maximum": p.high,
                "doc": p.doc,
            }
            for p in header.parameters
        ],
        "one_of": [list(group) for group in header.needs],
        "columns": [{"name": c.name, "type": c.type, "nullable": c.nullable, "doc": c.doc} for c in header.columns],
        "order": [f"{'-' if key.descending else ''}{key.column}" for key in header.order],
        "seeks": header.seeks,
        "merge": header.merge,
    }

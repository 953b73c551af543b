"""DDL of the embedded engine, derived from `schema.py`; and the engine's own bookkeeping tables.

StoreMigration  what was applied, with checksum
StoreCounter    high-water marks: `trace_no` (never reused), `work`
StoreTrace      one per trace id: READY or EVICTED, its trace_no and its row counts; the primary key makes a second READY impossible
StoreWork       what must be cleaned when it is found on opening: uid ranges that are not visible yet, or no longer
"""

from __future__ import annotations

from typing import Final

from tracestore import schema

_TYPES: Final[dict[schema.Kind, str]] = {
    "int": "INT64",
    "float": "FLOAT",
    "string": "STRING",
    "bool": "BOOL",
    "strings": "STRING[]",
    "floats": "FLOAT[]",
    "ref": "INT64",
}

BOOKKEEPING: Final[tuple[str, ...]] = (
    "CREATE NODE TABLE IF NOT EXISTS StoreMigration (version INT64 PRIMARY KEY, name STRING, checksum STRING, applied_at INT64);",
    "CREATE NODE TABLE IF NOT EXISTS StoreCounter (name STRING PRIMARY KEY, value INT64);",
    "CREATE NODE TABLE IF NOT EXISTS StoreTrace (trace_id STRING PRIMARY KEY, trace_no INT64, status STRING, row_counts STRING);",
    "CREATE NODE TABLE IF NOT EXISTS StoreWork (id INT64 PRIMARY KEY, kind STRING, first_no INT64, last_no INT64, output_uid INT64);",
)


def _columns(columns: tuple[schema.Column, ...]) -> list[str]:
    return [f"{column.name} {_TYPES[column.kind]}" for column in columns]


def _statement(kind: str, name: str, columns: list[str]) -> str:
    lines = ",\n  ".join(columns)
    return f"CREATE {kind} TABLE IF NOT EXISTS {name} (\n  {lines}\n);"


def _node_table(node: schema.Node) -> str:
    columns = ["uid INT64 PRIMARY KEY", "trace_no INT64", *_columns(node.columns)]
    return _statement("NODE", node.label, columns)


def _edge_table(edge: schema.Edge) -> str:
    columns = [f"FROM {source} TO {target}" for source, target in edge.pairs] + _columns(edge.columns)
    return _statement("REL", edge.type, columns)


def schema_script() -> str:
    """Give the text of the first migration: every table of `schema.py`, then the bookkeeping."""
    head = f"// Made from schema.py (schema version {schema.SCHEMA_VERSION}). Applied once; never edited afterwards.\n"
    parts = [_node_table(node) for node in schema.NODES] + [_edge_table(edge) for edge in schema.EDGES]
    return head + "\n" + "\n\n".join([*parts, *BOOKKEEPING]) + "\n"

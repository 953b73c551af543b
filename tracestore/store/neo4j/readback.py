"""Read everything of one Output back as the tables of an archive: what was written is what is found.

A generation that is replaced meanwhile is noticed and read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tracestore import schema
from tracestore.errors import BadInputError, StoreUnavailableError
from tracestore.store.neo4j.database import Database
from tracestore.store.staging import uid_range

if TYPE_CHECKING:
    import pyarrow as pa

_ATTEMPTS: Final = 5
_LOCAL: Final = (1 << schema.UID_BITS) - 1
_WHOLE_TRACE: Final = ("Trace", "Item", "Token", "Span")


def _place(database: Database, output_id: str) -> int:
    query = "MATCH (o:Output {output_id: $id})-[:OF]->(t:Trace) WHERE t.ready_id IS NOT NULL RETURN o.uid"
    found = database.rows(query, {"id": output_id}, "a look for an output")
    if not found:
        raise BadInputError(f"the store has no complete trace with the output {output_id}; check the id with: tracestore query list_traces")
    return int(found[0][0])


def _condition(label: str, variable: str) -> str:
    """Tell which nodes of a label belong to the output: those of its trace, itself, or those that name it."""
    if label == "Output":
        return f"{variable}.uid = $output"
    if label in _WHOLE_TRACE:
        return f"{variable}.uid >= $low AND {variable}.uid < $high"
    return f"{variable}.output_uid = $output"


def _table(name: str, found: list[list[Any]]) -> pa.Table:
    """Turn rows (uids, then properties) into the archive's form."""
    import pyarrow as pa

    target = schema.arrow_schema(name)
    keys = {"local"} if name in schema.NODE_BY_LABEL else {"src", "dst"}  # a Composition has properties called src and dst
    keys |= {column.name for column in schema.table_columns(name) if column.kind == "ref"}
    columns = []
    for index, field in enumerate(target):
        values = [row[index] for row in found]
        columns.append(pa.array([value & _LOCAL for value in values] if field.name in keys else values, field.type))
    return pa.table(columns, schema=target)


def _queries() -> dict[str, str]:
    queries = {}
    for node in schema.NODES:
        names = ", ".join(["n.uid", *(f"n.{column.name}" for column in schema.table_columns(node.label))])
        queries[node.label] = f"MATCH (n:{node.label}) WHERE {_condition(node.label, 'n')} RETURN {names} ORDER BY n.uid"
    for name, (edge, source, target) in schema.EDGE_TABLES.items():
        if edge.archived:
            names = ", ".join(["a.uid", "b.uid", *(f"r.{column.name}" for column in edge.columns)])
            condition = f"{_condition(source, 'a')} AND {_condition(target, 'b')}"
            queries[name] = f"MATCH (a:{source})-[r:{edge.type}]->(b:{target}) WHERE {condition} RETURN {names} ORDER BY a.uid, b.uid"
    return queries


def read_output(database: Database, output_id: str) -> Mapping[str, pa.Table]:
    """Read one Output. Tables without rows are left out. Raises BadInputError when no READY trace has it."""
    for _ in range(_ATTEMPTS):
        uid = _place(database, output_id)
        low, high = uid_range(uid >> schema.UID_BITS)
        params = {"output": uid, "low": low, "high": high}
        tables = {}
        for name, query in _queries().items():
            if found := database.rows(query, params, "reading an output back"):
                tables[name] = _table(name, found)
        if _place(database, output_id) == uid:
            return tables
    raise StoreUnavailableError(f"the trace of {output_id} is being replaced again and again; try later")

"""Read everything of one Output back as the tables of an archive: what was written is what is found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tracestore import schema
from tracestore.errors import BadInputError, StoreUnavailableError
from tracestore.store.base import Limits
from tracestore.store.ladybug.reading import Reader
from tracestore.store.staging import uid_range

if TYPE_CHECKING:
    import pyarrow as pa

_LIMITS: Final = Limits(timeout_s=600.0, max_rows=None)
_ATTEMPTS: Final = 5
_OF_TRACE: Final = ("Item", "Token", "Span")


def _place(reader: Reader, output_id: str) -> tuple[int, int]:
    """Give the number of the READY trace and the uid of the output."""
    query = (
        "MATCH (r:StoreTrace {trace_id: $trace}) MATCH (o:Output) "
        "WHERE r.status = 'READY' AND o.trace_no = r.trace_no AND o.output_id = $output RETURN r.trace_no AS number, o.uid AS uid"
    )
    found = reader.run(query, {"trace": output_id.split(":", 1)[0], "output": output_id}, _LIMITS).table.to_pylist()
    if not found:
        raise BadInputError(f"the store has no complete trace with the output {output_id}; check the id with: tracestore query list_traces")
    return int(found[0]["number"]), int(found[0]["uid"])


def _condition(label: str, variable: str) -> str:
    """Tell which nodes of a label belong to the output: those of its trace, itself, or those that name it."""
    if label == "Output":
        return f"{variable}.uid = $output"
    if label == "Trace" or label in _OF_TRACE:
        return f"{variable}.uid >= $low AND {variable}.uid < $high"
    return f"{variable}.uid >= $low AND {variable}.uid < $high AND {variable}.output_uid = $output"


def _local(table: pa.Table, name: str) -> pa.Table:
    """Turn (uid, properties) or (src, dst, properties) of a store into the archive's form."""
    import numpy as np
    import pyarrow as pa

    target = schema.arrow_schema(name)
    keys = ("local",) if name in schema.NODE_BY_LABEL else ("src", "dst")  # Composition has properties of these names
    refs = {column.name for column in schema.table_columns(name) if column.kind == "ref"}.union(keys)
    mask = np.int64((1 << schema.UID_BITS) - 1)
    columns: list[Any] = []
    for field in target:
        column = table.column(field.name)
        values = pa.array(column.to_numpy() & mask) if field.name in refs else column.cast(field.type)
        columns.append(values)
    return pa.table(dict(zip(target.names, columns, strict=True)), schema=target)


def _read(reader: Reader, trace_no: int, uid: int) -> dict[str, pa.Table]:
    low, high = uid_range(trace_no)
    params = {"low": low, "high": high, "output": uid}

    def run(query: str) -> pa.Table:
        used = {name: value for name, value in params.items() if f"${name}" in query}
        return reader.run(query, used, _LIMITS).table

    tables = {}
    for node in schema.NODES:
        names = ", ".join(["n.uid AS local", *(f"n.{c.name} AS {c.name}" for c in schema.table_columns(node.label))])
        tables[node.label] = _local(
            run(f"MATCH (n:{node.label}) WHERE {_condition(node.label, 'n')} RETURN {names} ORDER BY n.uid"), node.label
        )
    for name, (edge, source, target) in schema.EDGE_TABLES.items():
        if edge.archived:
            names = ", ".join(["a.uid AS src", "b.uid AS dst", *(f"r.{c.name} AS {c.name}" for c in edge.columns)])
            query = (
                f"MATCH (a:{source})-[r:{edge.type}]->(b:{target}) "
                f"WHERE {_condition(source, 'a')} AND {_condition(target, 'b')} RETURN {names} ORDER BY a.uid, b.uid"
            )
            tables[name] = _local(run(query), name)
    return {name: table for name, table in tables.items() if table.num_rows}


def read_output(reader: Reader, output_id: str) -> Mapping[str, pa.Table]:
    """Read one Output; begin again when its trace was replaced meanwhile. Tables without rows are left out."""
    for _ in range(_ATTEMPTS):
        place = _place(reader, output_id)
        tables = _read(reader, *place)
        if _place(reader, output_id) == place:
            return tables
    raise StoreUnavailableError(f"the trace of {output_id} is being replaced again and again; try later")

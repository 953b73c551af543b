"""A database that was made by `neo4j-admin database import`: the bookkeeping that it must bring, and what its first opening completes.

The import tool cannot make a list without elements, so a file has nothing there. A counter named `import` marks such a database; whoever
opens it for writing first turns those nulls into lists and removes the mark, before the first migration is recorded. Until then no
reader is let in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from tracestore import schema
from tracestore.store.neo4j.database import Database

if TYPE_CHECKING:
    import pyarrow as pa

RECORD_HEADER: Final = "trace_id:string,trace_no:long,status:string,row_counts:string"
COUNTER_HEADER: Final = "name:string,value:long"
_MARK: Final = "import"
_BATCH: Final = 10_000


def record_rows(traces: Sequence[tuple[str, int, Mapping[str, int]]]) -> pa.Table:
    """Give StoreTrace rows for traces (id, number, rows by table) that are READY."""
    import pyarrow as pa

    ids, numbers, counts = zip(*traces, strict=True)
    return pa.table(
        {
            "trace_id": pa.array(ids, pa.string()),
            "trace_no": pa.array(numbers, pa.int64()),
            "status": pa.array(["READY"] * len(traces), pa.string()),
            "row_counts": pa.array([json.dumps(dict(found), sort_keys=True) for found in counts], pa.string()),
        }
    )


def counter_rows(highest_no: int) -> pa.Table:
    """Give StoreCounter rows: the highest number given out, and the mark of an import."""
    import pyarrow as pa

    return pa.table({"name": ["trace_no", _MARK], "value": [highest_no, 1]})


def complete_import(database: Database) -> bool:
    """Complete a database that was imported and never opened; tell whether it was one. Safe to repeat after a crash."""
    if not database.rows("MATCH (c:StoreCounter {name: $name}) RETURN 1", {"name": _MARK}):
        return False
    for node in schema.NODES:
        for column in schema.table_columns(node.label):
            if column.kind in ("strings", "floats") and not column.nullable:
                database.schema(
                    f"MATCH (n:{node.label}) WHERE n.{column.name} IS NULL "
                    f"CALL (n) {{ SET n.{column.name} = [] }} IN TRANSACTIONS OF {_BATCH} ROWS"
                )
    database.schema(f"MATCH (c:StoreCounter {{name: '{_MARK}'}}) DELETE c")
    return True

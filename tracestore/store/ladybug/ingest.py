"""COPY of staged tables, and proof that they arrived.

1. COPY nodes, then the smaller tables of edges, in one transaction that holds nothing else; compare the count in each reply.
2. COPY each larger table of edges as a statement of its own: 64 bytes an edge in the file instead of 84. A small one would not gain what
   its checkpoint costs.
3. After the commits, count again by query.

What a crash in between leaves is not visible yet, and noted as work (`ledger.py`): it is deleted on the next opening.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tracestore import schema
from tracestore.errors import ShortCountError
from tracestore.store.ladybug.handle import Handle, rows
from tracestore.store.staging import Staged, uid_range

if TYPE_CHECKING:
    import ladybug
    import pyarrow as pa

OWN_STATEMENT_ROWS = 50_000
"""Rows, of the table itself or of the nodes at one of its ends, from which a table of edges is copied on its own."""

_COPIED: Final = re.compile(r"(\d+) tuples? ha(?:s|ve) been copied")


def _copy(connection: ladybug.Connection, statement: str, table: pa.Table, name: str) -> None:
    """COPY one table and compare the count in the reply. Raises ShortCountError."""
    reply = str(rows(connection, statement, {"rows": table})[0][0])
    match = _COPIED.search(reply)
    if match is None or int(match[1]) != table.num_rows:
        raise ShortCountError(f"{table.num_rows} rows of {name} were sent and {match[1] if match else 'none'} arrived; load again")


def _copy_edges(connection: ladybug.Connection, name: str, table: pa.Table, progress: Callable[[int], None] | None) -> None:
    edge, source, target = schema.EDGE_TABLES[name]
    pair = f" (from='{source}', to='{target}')" if len(edge.pairs) > 1 else ""
    _copy(connection, f"COPY {edge.type} FROM $rows{pair}", table, name)
    if progress is not None:
        progress(table.num_rows)


def _is_large(staged: Staged, name: str) -> bool:
    _, source, target = schema.EDGE_TABLES[name]
    ends = (staged.nodes[label].num_rows for label in (source, target) if label in staged.nodes)
    return max(staged.edges[name].num_rows, *ends, 0) >= OWN_STATEMENT_ROWS


def copy_staged(handle: Handle, staged: Staged, progress: Callable[[int], None] | None = None) -> None:
    """Write everything: in one transaction that contains COPY only, and larger tables of edges one by one after it."""
    large = [name for name in staged.edges if _is_large(staged, name)]
    with handle.transaction() as connection:
        for label, table in staged.nodes.items():
            _copy(connection, f"COPY {label} FROM $rows", table, label)
        for name, table in staged.edges.items():
            if name not in large:
                _copy_edges(connection, name, table, progress)
    for name in large:
        with handle.single_statement() as connection:
            _copy_edges(connection, name, staged.edges[name], progress)


def check_arrived(handle: Handle, staged: Staged, first_no: int, last_no: int) -> None:
    """Count what the store holds of a range of fresh traces. Raises ShortCountError."""
    low, high = uid_range(first_no, last_no)
    for name, table in {**staged.nodes, **staged.edges}.items():
        if name in schema.NODE_BY_LABEL:
            query = f"MATCH (n:{name}) WHERE n.uid >= $low AND n.uid < $high RETURN count(*)"
        else:
            edge, source, target = schema.EDGE_TABLES[name]
            query = f"MATCH (n:{source})-[r:{edge.type}]->(:{target}) WHERE n.uid >= $low AND n.uid < $high RETURN count(r)"
        found = int(handle.rows(query, {"low": low, "high": high})[0][0])
        if found != table.num_rows:
            raise ShortCountError(f"{table.num_rows} rows of {name} were sent and the store holds {found}; load again")

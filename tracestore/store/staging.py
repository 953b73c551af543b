"""From the tables of a bundle to the tables of a store, for engines of any kind.

1. Keep the rows of the traces that are wanted; turn each local number into `trace_no << 32 | local`.
2. Add the columns that only stores have; make OF edges from the nodes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tracestore import schema
from tracestore.store.base import LoadLevel, TraceBundle


def uid_range(first_no: int, last_no: int | None = None) -> tuple[int, int]:
    """Give the uids of a trace, or of the traces `first_no` to `last_no`, end excluded."""
    last_no = first_no if last_no is None else last_no
    return first_no << schema.UID_BITS, (last_no + 1) << schema.UID_BITS


def node_columns(label: str) -> tuple[str, ...]:
    """Name the columns of a node table in a store: uid, trace_no, then the label's properties."""
    return ("uid", "trace_no", *(c.name for c in schema.table_columns(label, store=True)))


@dataclass(frozen=True, slots=True)
class Staged:
    """Tables ready for COPY, nodes first; columns as in the DDL."""

    nodes: Mapping[str, pa.Table]
    edges: Mapping[str, pa.Table]

    @property
    def node_count(self) -> int:
        """Count the nodes."""
        return sum(table.num_rows for table in self.nodes.values())

    @property
    def edge_count(self) -> int:
        """Count the relationships, OF included."""
        return sum(table.num_rows for table in self.edges.values())

    def row_counts(self, trace_no: int) -> dict[str, int]:
        """Count the rows of one trace by table."""
        low, high = uid_range(trace_no)
        counts = {}
        for name, table in {**self.nodes, **self.edges}.items():
            key = table.column(0)
            inside = pc.and_(pc.greater_equal(key, pa.scalar(low, pa.int64())), pc.less(key, pa.scalar(high, pa.int64())))
            if count := int(np.count_nonzero(inside.to_numpy())):
                counts[name] = count
        return counts


def counts_by_trace(staged: Staged) -> dict[int, dict[str, int]]:
    """Count the rows of every trace (by its number) and table, in one pass over each table."""
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    for name, table in {**staged.nodes, **staged.edges}.items():
        numbers, found = np.unique(table.column(0).to_numpy() >> schema.UID_BITS, return_counts=True)
        for number, count in zip(numbers.tolist(), found.tolist(), strict=True):
            counts[number][name] = count
    return counts


class Stager:
    """Turns the tables of a bundle into those of the store. `trace_nos`: ordinal in the bundle -> number in the store."""

    def __init__(self, bundle: TraceBundle, trace_nos: Mapping[int, int]) -> None:
        self._bundle = bundle
        self._everything = len(trace_nos) == len(bundle.trace_ids)
        self._base = np.full(len(bundle.trace_ids), -1, dtype=np.int64)
        for ordinal, number in trace_nos.items():
            self._base[ordinal] = number << schema.UID_BITS

    def _rows(self, name: str) -> tuple[pa.Table, Any] | None:
        """Give the wanted rows of a table and the uid of local number 0 for each."""
        table = self._bundle.tables.get(name)
        if table is None or table.num_rows == 0:
            return None
        base = self._base[table.column("trace").to_numpy()]
        if not self._everything:
            keep = base >= 0
            table, base = table.filter(pa.array(keep)), base[keep]
        return (table, base) if table.num_rows else None

    def nodes(self, label: str, mechanism: pa.Array[Any] | pa.ChunkedArray[Any] | None = None) -> pa.Table | None:
        """Make the node table of a label. `mechanism`: uids of the Outputs whose mechanism comes along (for Output)."""
        found = self._rows(label)
        if found is None:
            return None
        table, base = found
        uid = base + table.column("local").to_numpy()
        columns: dict[str, Any] = {"uid": pa.array(uid), "trace_no": pa.array(base >> schema.UID_BITS)}
        for column in schema.table_columns(label, store=True):
            if not column.store_only:
                value = table.column(column.name)
                columns[column.name] = pa.array(base + value.to_numpy()) if column.kind == "ref" else value
        if label == "Trace":
            columns["ready_id"] = pa.nulls(len(uid), pa.string())
            columns["status"] = pa.array(["LOADING"] * len(uid), pa.string())
        elif label == "Output":
            columns["mechanism"] = pc.is_in(columns["uid"], pa.array([], pa.int64()) if mechanism is None else mechanism)
        return pa.table({name: columns[name] for name in node_columns(label)}).combine_chunks()

    def edges(self, name: str) -> pa.Table | None:
        """Make the table of one relationship type between two labels."""
        found = self._rows(name)
        if found is None:
            return None
        table, base = found
        columns: dict[str, Any] = {key: pa.array(base + table.column(key).to_numpy()) for key in ("src", "dst")}
        columns.update({column.name: table.column(column.name) for column in schema.table_columns(name)})
        return pa.table(columns).combine_chunks()


def of_edges(node: schema.Node, table: pa.Table) -> pa.Table:
    """Make the OF edges of a label's nodes: to the node that a column names, or to the trace's own node (local 0)."""
    if node.of_column is not None:
        return pa.table({"src": table.column("uid"), "dst": table.column(node.of_column)}).combine_chunks()
    own = table.column("trace_no").to_numpy() << schema.UID_BITS
    return pa.table({"src": table.column("uid"), "dst": pa.array(own)}).combine_chunks()


def stage(bundle: TraceBundle, trace_nos: Mapping[int, int], level: LoadLevel) -> Staged:
    """Prepare whole traces at a level."""
    stager = Stager(bundle, trace_nos)
    wanted = [node for node in schema.NODES if level == "mechanism" or node.level == "summary"]
    nodes: dict[str, pa.Table] = {}
    edges: dict[str, pa.Table] = {}
    states = stager.nodes("State") if level == "mechanism" else None
    explained = pc.unique(states.column("output_uid")) if states is not None else None
    for node in wanted:
        table = states if node.label == "State" else stager.nodes(node.label, explained)
        if table is not None:
            nodes[node.label] = table
            if node.of is not None:
                edges[schema.edge_table("OF", node.label, node.of)] = of_edges(node, table)
    for name, (edge, _, _) in schema.EDGE_TABLES.items():
        if edge.archived and (level == "mechanism" or edge.level == "summary"):
            made = stager.edges(name)
            if made is not None:
                edges[name] = made
    return Staged(nodes, edges)


def stage_mechanism(bundle: TraceBundle, ordinal: int, trace_no: int, output_uid: int) -> Staged:
    """Prepare the State, Head and Mlp nodes of one Output and every edge that touches them."""
    stager = Stager(bundle, {ordinal: trace_no})
    nodes: dict[str, pa.Table] = {}
    for node in schema.NODES:
        if node.level == "mechanism":
            table = stager.nodes(node.label)
            if table is not None:
                mine = table.filter(pc.equal(table.column("output_uid"), pa.scalar(output_uid, pa.int64())))
                if mine.num_rows:
                    nodes[node.label] = mine.combine_chunks()
    uids = pa.concat_arrays([table.column("uid").combine_chunks() for table in nodes.values()]) if nodes else pa.array([], pa.int64())
    edges: dict[str, pa.Table] = {}
    for name, (edge, source, _) in schema.EDGE_TABLES.items():
        if edge.level == "mechanism":
            made = stager.edges(name)
            if made is not None:
                end = "src" if schema.NODE_BY_LABEL[source].level == "mechanism" else "dst"
                made = made.filter(pc.is_in(made.column(end), uids))
                if made.num_rows:
                    edges[name] = made.combine_chunks()
    return Staged(nodes, edges)

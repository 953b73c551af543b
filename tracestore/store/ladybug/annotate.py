"""Append rows to visible traces: Item nodes of further input lines, knockouts and what they hang on.

Few rows at a time, so CREATE in one small transaction: all of them or none, and no COPY beside it. A row that is there already is skipped:
a node by its uid, a relationship by its ends and all its properties.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from tracestore import schema
from tracestore.errors import IntegrityError
from tracestore.schema import UID_BITS
from tracestore.store.base import LoadReport, TraceBundle
from tracestore.store.ladybug import ledger
from tracestore.store.ladybug.handle import Handle, rows
from tracestore.store.record import Record
from tracestore.store.staging import Stager

if TYPE_CHECKING:
    import ladybug
    import pyarrow as pa


def _create_node(connection: ladybug.Connection, node: schema.Node, row: dict[str, Any]) -> int:
    """Create one node with its OF edge; give how many edges were made."""
    properties = ", ".join(f"{name}: ${name}" for name in row)
    if node.of is None:
        rows(connection, f"CREATE (:{node.label} {{{properties}}})", row)
        return 0
    owner = row["trace_no"] << UID_BITS if node.of_column is None else row[node.of_column]
    query = f"MATCH (owner:{node.of} {{uid: $owner}}) CREATE (n:{node.label} {{{properties}}})-[:OF]->(owner) RETURN count(*)"
    if rows(connection, query, {**row, "owner": owner}) != [[1]]:
        raise IntegrityError(f"an annotation's {node.label} belongs to a {node.of} that its trace does not have; verify the archive")
    return 1


def _create_edge(connection: ladybug.Connection, name: str, row: dict[str, Any]) -> None:
    edge, source, target = schema.EDGE_TABLES[name]
    properties = ", ".join(f"{key}: ${key}" for key in row if key not in ("src", "dst"))
    query = (
        f"MATCH (a:{source} {{uid: $src}}) MATCH (b:{target} {{uid: $dst}}) "
        f"CREATE (a)-[:{edge.type}{f' {{{properties}}}' if properties else ''}]->(b) RETURN count(*)"
    )
    if rows(connection, query, row) != [[1]]:
        raise IntegrityError(f"an annotation's {edge.type} refers to a node that its trace does not have; verify the archive")


def _new_nodes(handle: Handle, label: str, table: pa.Table) -> list[dict[str, Any]]:
    uids = table.column("uid").to_pylist()
    there = {row[0] for row in handle.rows(f"MATCH (n:{label}) WHERE n.uid IN $uids RETURN n.uid", {"uids": uids})}
    fresh = {row["uid"]: row for row in table.to_pylist() if row["uid"] not in there}
    return list(fresh.values())


def _new_edges(handle: Handle, name: str, table: pa.Table) -> list[dict[str, Any]]:
    edge, source, target = schema.EDGE_TABLES[name]
    names = [column.name for column in edge.columns]
    returned = ", ".join(["a.uid", "b.uid", *(f"r.{column}" for column in names)])
    query = f"MATCH (a:{source})-[r:{edge.type}]->(b:{target}) WHERE a.uid IN $uids RETURN {returned}"
    there = {tuple(row) for row in handle.rows(query, {"uids": list(set(table.column("src").to_pylist()))})}
    fresh = {tuple(row[key] for key in ("src", "dst", *names)): row for row in table.to_pylist()}
    return [row for key, row in fresh.items() if key not in there]


def annotate_traces(handle: Handle, bundle: TraceBundle) -> LoadReport:
    """Append the rows of a bundle to those of its traces that are READY."""
    started = time.perf_counter()
    known = ledger.records(handle, bundle.trace_ids)
    ready = {
        ordinal: known[name].trace_no for ordinal, name in enumerate(bundle.trace_ids) if name in known and known[name].status == "READY"
    }
    stager = Stager(bundle, ready)
    names = list(bundle.tables)
    staged_nodes = [(node, table) for node in schema.NODES if node.label in names and (table := stager.nodes(node.label)) is not None]
    nodes = [(node, row) for node, table in staged_nodes for row in _new_nodes(handle, node.label, table)]
    staged_edges = [(name, table) for name in schema.EDGE_TABLES if name in names and (table := stager.edges(name)) is not None]
    edges = [(name, row) for name, table in staged_edges for row in _new_edges(handle, name, table)]
    counts: dict[int, Counter[str]] = {number: Counter() for number in ready.values()}
    made = len(edges)
    if nodes or edges:
        with handle.transaction() as connection:
            for node, row in nodes:
                owned = _create_node(connection, node, row)
                made += owned
                counts[row["trace_no"]][node.label] += 1
                if node.of is not None:
                    counts[row["trace_no"]][schema.edge_table("OF", node.label, node.of)] += owned
            for name, row in edges:
                _create_edge(connection, name, row)
                counts[row["src"] >> UID_BITS][name] += 1
            for ordinal, number in ready.items():
                record = known[bundle.trace_ids[ordinal]]
                if counts[number]:
                    total = dict(Counter(record.row_counts) + counts[number])
                    ledger.write_record(connection, Record(record.trace_id, number, "READY", total))
    touched = {ordinal for ordinal, number in ready.items() if counts[number]}
    loaded = tuple(name for ordinal, name in enumerate(bundle.trace_ids) if ordinal in touched)
    skipped = tuple(name for ordinal, name in enumerate(bundle.trace_ids) if ordinal not in touched)
    return LoadReport(loaded, skipped, len(nodes), made, time.perf_counter() - started)

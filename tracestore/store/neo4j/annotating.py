"""Append rows to visible traces: Item nodes of further input lines, knockouts and what they hang on.

Few rows at a time, so one transaction that first locks the traces' records: all rows or none, and nobody else annotates, replaces or
evicts these traces meanwhile. A row that is there already is skipped: a node by its uid, a relationship by its ends and all its
properties; so a repeated transaction adds nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from tracestore import schema
from tracestore.errors import IntegrityError
from tracestore.schema import UID_BITS
from tracestore.store.base import LoadReport, TraceBundle
from tracestore.store.neo4j.database import Database, rows
from tracestore.store.neo4j.ledger import write_records
from tracestore.store.neo4j.writing import edge_statement, node_statement, to_rows
from tracestore.store.record import Record
from tracestore.store.staging import Stager, node_columns

if TYPE_CHECKING:
    import neo4j
    import pyarrow as pa


def _locked_records(transaction: neo4j.Transaction, trace_ids: tuple[str, ...]) -> dict[str, Record]:
    query = (
        "MATCH (t:StoreTrace) WHERE t.trace_id IN $ids AND t.status = 'READY' SET t.touched = timestamp() "
        "WITH t WHERE t.status = 'READY' RETURN t.trace_id, t.trace_no, t.status, t.row_counts"
    )
    found = rows(transaction, query, {"ids": list(trace_ids)})
    return {row[0]: Record.of(row) for row in found}


def _add_nodes(transaction: neo4j.Transaction, node: schema.Node, table: pa.Table) -> list[int]:
    """Create the nodes that are not there, with their OF edges; give the trace_no of each."""
    wanted = {row[0]: row for row in to_rows(table)}
    query = f"MATCH (n:{node.label}) WHERE n.uid IN $uids RETURN n.uid"
    there = {row[0] for row in rows(transaction, query, {"uids": list(wanted)})}
    fresh = [row for uid, row in wanted.items() if uid not in there]
    transaction.run(node_statement(node.label), {"rows": fresh}).consume()
    if node.of is not None:
        column = None if node.of_column is None else node_columns(node.label).index(node.of_column)
        ends = [(row[0], (row[1] << UID_BITS) if column is None else row[column]) for row in fresh]
        _create_edges(transaction, schema.edge_table("OF", node.label, node.of), ends)
    return [int(row[1]) for row in fresh]


def _create_edges(transaction: neo4j.Transaction, name: str, made: list[tuple[Any, ...]]) -> None:
    counters = transaction.run(edge_statement(name), {"rows": made}).consume().counters
    if counters.relationships_created != len(made):
        raise IntegrityError(f"an annotation's {name} refers to a node that its trace does not have; verify the archive")


def _add_edges(transaction: neo4j.Transaction, name: str, table: pa.Table) -> list[int]:
    """Create the relationships that are not there; give the trace_no of each."""
    edge, source, target = schema.EDGE_TABLES[name]
    wanted = dict.fromkeys(to_rows(table))
    returned = ", ".join(["a.uid", "b.uid", *(f"r.{column.name}" for column in edge.columns)])
    query = f"MATCH (a:{source})-[r:{edge.type}]->(b:{target}) WHERE a.uid IN $uids RETURN {returned}"
    there = {tuple(row) for row in rows(transaction, query, {"uids": sorted({row[0] for row in wanted})})}
    fresh = [row for row in wanted if row not in there]
    _create_edges(transaction, name, fresh)
    return [int(row[0]) >> UID_BITS for row in fresh]


def annotate_traces(database: Database, bundle: TraceBundle) -> LoadReport:
    """Append the rows of a bundle to those of its traces that are READY."""
    started = time.perf_counter()

    def work(transaction: neo4j.Transaction) -> tuple[set[str], int, int]:
        known = _locked_records(transaction, bundle.trace_ids)
        numbers = {ordinal: known[name].trace_no for ordinal, name in enumerate(bundle.trace_ids) if name in known}
        stager = Stager(bundle, numbers)
        added: dict[int, Counter[str]] = {number: Counter() for number in numbers.values()}
        nodes = edges = 0
        for node in schema.NODES:
            if node.label in bundle.tables and (table := stager.nodes(node.label)) is not None:
                for number in _add_nodes(transaction, node, table):
                    added[number][node.label] += 1
                    nodes += 1
                    if node.of is not None:
                        added[number][schema.edge_table("OF", node.label, node.of)] += 1
                        edges += 1
        for name in schema.EDGE_TABLES:
            if name in bundle.tables and (table := stager.edges(name)) is not None:
                for number in _add_edges(transaction, name, table):
                    added[number][name] += 1
                    edges += 1
        changed = [record for record in known.values() if added[record.trace_no]]
        totals = [Record(r.trace_id, r.trace_no, r.status, dict(Counter(r.row_counts) + added[r.trace_no])) for r in changed]
        write_records(transaction, totals)
        return {record.trace_id for record in changed}, nodes, edges

    touched, nodes, edges = database.write(work, "an annotation")
    loaded = tuple(name for name in bundle.trace_ids if name in touched)
    skipped = tuple(name for name in bundle.trace_ids if name not in touched)
    return LoadReport(loaded, skipped, nodes, edges, time.perf_counter() - started)

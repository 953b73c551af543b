"""A store's whole graph, and the one that an archive's traces must give, as sets of rows that can be compared.

A row of a node table is (trace id, local, properties), one of an edge table (trace id, source, target, properties); lists are tuples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from tracestore import schema
from tracestore.model import Trace
from tracestore.store.base import Limits, Store, TraceBundle

Graph = dict[str, set[tuple[Any, ...]]]
EVERYTHING = Limits(timeout_s=120.0, max_rows=None)
MASK = (1 << schema.UID_BITS) - 1
APPENDED = 1 << 31


def bundle_of(traces: Iterable[Trace]) -> TraceBundle:
    """Put traces into the tables of one package."""
    chosen = list(traces)
    tables: dict[str, pa.Table] = {}
    for name in schema.ARCHIVE_TABLES:
        parts = [(number, trace.table(name)) for number, trace in enumerate(chosen) if trace.table(name).num_rows]
        numbered = [part.add_column(0, "trace", pa.array([number] * part.num_rows, pa.int64())) for number, part in parts]
        if numbered:
            tables[name] = pa.concat_tables(numbered).cast(schema.package_schema(name)).combine_chunks()
    return TraceBundle(tuple(trace.trace_id for trace in chosen), tables)


def ask(store: Store, query: str, **params: Any) -> list[dict[str, Any]]:
    """Run a query; rows as dicts."""
    rows: list[dict[str, Any]] = store.run(query, params, EVERYTHING).table.to_pylist()
    return rows


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def stored_graph(store: Store) -> Graph:
    """Read everything that belongs to READY traces. Rows of other traces are found under the key `orphans`."""
    ready = {
        row["no"]: row["id"] for row in ask(store, "MATCH (t:Trace) WHERE t.ready_id IS NOT NULL RETURN t.trace_no AS no, t.ready_id AS id")
    }
    graph: Graph = {"orphans": set()}
    for label in schema.NODE_BY_LABEL:
        columns = schema.table_columns(label, store=True)
        names = ", ".join(["n.uid AS uid", "n.trace_no AS trace_no", *(f"n.{c.name} AS p_{c.name}" for c in columns)])
        graph[label] = set()
        for row in ask(store, f"MATCH (n:{label}) RETURN {names}"):
            assert row["uid"] >> schema.UID_BITS == row["trace_no"]
            values = [_plain(row[f"p_{c.name}"]) & MASK if c.kind == "ref" else _plain(row[f"p_{c.name}"]) for c in columns]
            if row["trace_no"] in ready:
                graph[label].add((ready[row["trace_no"]], row["uid"] & MASK, *values))
            else:
                graph["orphans"].add((label, row["uid"]))
    for name, (edge, source, target) in schema.EDGE_TABLES.items():
        names = ", ".join(["a.uid AS src", "b.uid AS dst", *(f"r.{c.name} AS p_{c.name}" for c in edge.columns)])
        graph[name] = set()
        rows = ask(store, f"MATCH (a:{source})-[r:{edge.type}]->(b:{target}) RETURN {names}")
        for row in rows:
            number = row["src"] >> schema.UID_BITS
            assert row["dst"] >> schema.UID_BITS == number
            if number in ready:
                properties = [_plain(row[f"p_{c.name}"]) for c in edge.columns]
                found = (ready[number], row["src"] & MASK, row["dst"] & MASK, *properties)
                assert found not in graph[name], f"twice in the store: {name} {found}"
                graph[name].add(found)
            else:
                graph["orphans"].add((name, row["src"], row["dst"]))
    return graph


def _of_rows(trace: Trace) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for node in schema.NODES:
        if node.of is not None:
            name = schema.edge_table("OF", node.label, node.of)
            for row in trace.table(node.label).to_pylist():
                yield name, (trace.trace_id, row["local"], 0 if node.of_column is None else row[node.of_column])


def expected_graph(traces: Iterable[Trace], mechanism: Iterable[str] | None = None) -> Graph:
    """Say what a store must hold. `mechanism`: ids of the outputs whose mechanism is there (None: every output that has one)."""
    graph: Graph = {"orphans": set(), **{name: set() for name in (*schema.NODE_BY_LABEL, *schema.EDGE_TABLES)}}
    chosen = None if mechanism is None else frozenset(mechanism)
    for trace in traces:
        ids = {row["local"]: row["output_id"] for row in trace.table("Output").to_pylist()}
        has_states = set(trace.table("State").column("output_uid").to_pylist())
        shown = {local for local, name in ids.items() if local in has_states and (chosen is None or name in chosen)}
        inner: set[int] = set()
        for label in ("State", "Head", "Mlp"):
            inner.update(row["local"] for row in trace.table(label).to_pylist() if row["output_uid"] in shown)
        for label, node in schema.NODE_BY_LABEL.items():
            for row in trace.table(label).to_pylist():
                if node.level == "summary" or row["local"] in inner:
                    extra = {"ready_id": trace.trace_id, "status": "READY", "mechanism": row["local"] in shown}
                    values = [_plain({**row, **extra}[c.name]) for c in schema.table_columns(label, store=True)]
                    graph[label].add((trace.trace_id, row["local"], *values))
        for name, (edge, source, _) in schema.EDGE_TABLES.items():
            if edge.archived:
                end = "src" if schema.NODE_BY_LABEL[source].level == "mechanism" else "dst"
                for row in trace.table(name).to_pylist():
                    if edge.level == "summary" or row[end] in inner:
                        graph[name].add((trace.trace_id, row["src"], row["dst"], *(_plain(row[c.name]) for c in edge.columns)))
        for name, found in _of_rows(trace):
            graph[name].add(found)
    return graph


def without_appended(graph: Graph) -> Graph:
    """Leave out Items of further input lines and their OF edges."""
    cut = {"Item", "OF.Item.Trace"}
    return {name: {row for row in rows if row[1] < APPENDED} if name in cut else rows for name, rows in graph.items()}


def differences(found: Graph, expected: Graph) -> list[str]:
    """Say in a sentence each which tables differ, with an example."""
    sentences = []
    for name in sorted(set(found) | set(expected)):
        missing, extra = expected.get(name, set()) - found.get(name, set()), found.get(name, set()) - expected.get(name, set())
        if missing or extra:
            example = str(next(iter(missing or extra)))[:200]
            sentences.append(f"{name}: {len(missing)} rows are missing, {len(extra)} are too many, such as {example}")
    return sentences

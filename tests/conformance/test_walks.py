"""Repeated edges and walks: parallel edges count once each, and a pattern with two edges of one type must say that they differ.

One MATCH of the embedded engine may use an edge twice (it finds walks), one of Neo4j's may not (it finds trails): the same statement has
different rows on a loop. With an inequality both have the rows of the networkx multigraph.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.conformance.engines import ENGINES
from tests.support.store_graph import ask, bundle_of
from tests.support.synthetic import make_trace
from tracestore import schema
from tracestore.model import Trace
from tracestore.query import catalogue
from tracestore.store.base import Store

Pair = tuple[int, int]
TABLE = "SUPPORTS.Span.Span"
COUNT = "MATCH (a:Span)-[x:SUPPORTS]->(b:Span) RETURN a.ordinal AS a, b.ordinal AS b, count(x) AS n"
TWICE = (
    "MATCH (a:Span)-[x:SUPPORTS]->(b:Span)-[y:SUPPORTS]->(c:Span){} RETURN a.ordinal AS a, b.ordinal AS b, c.ordinal AS c, count(*) AS n"
)
FORK = "MATCH (a:Span)-[x:SUPPORTS]->(c:Span)<-[y:SUPPORTS]-(b:Span){} RETURN a.ordinal AS a, b.ordinal AS b, c.ordinal AS c, count(*) AS n"
DIFFERENT = " WHERE id(x) <> id(y)"


def make(edges: list[Pair], spans: int = 3) -> Trace:
    """Make a trace whose SUPPORTS edges are these, ends being the ordinals of its spans; equal pairs have equal properties."""
    trace = make_trace(3, n_tokens=5, mechanism=False)
    locals_ = [(1 << 20) + number for number in range(spans)]
    rows = [{"local": local, "kind": "step", "ordinal": n, "first_pos": 0, "last_pos": 1} for n, local in enumerate(locals_)]
    values = {column.name: 1 if column.kind == "int" else 0.5 for column in schema.table_columns(TABLE)}
    supports = [{"src": locals_[a], "dst": locals_[b], **values} for a, b in edges]
    tables = {name: table for name, table in trace.tables.items() if "Span" not in name}
    tables["Span"] = pa.Table.from_pylist(rows, schema=schema.arrow_schema("Span"))
    tables[TABLE] = pa.Table.from_pylist(supports, schema=schema.arrow_schema(TABLE))
    return replace(trace, tables=tables)


def counted(rows: list[dict[str, Any]]) -> dict[tuple[int, ...], int]:
    return {tuple(row[name] for name in ("a", "b", "c") if name in row): row["n"] for row in rows}


def pairs_of_edges(edges: list[Pair], *, fork: bool, walks: bool) -> dict[tuple[int, ...], int]:
    """Count what a pattern of two edges finds; with `walks` one edge may be both."""
    graph: nx.MultiDiGraph[int] = nx.MultiDiGraph(edges)
    found: dict[tuple[int, ...], int] = {}
    listed = list(graph.edges(keys=True))
    for first in listed:
        for second in listed:
            joined = first[1] == (second[1] if fork else second[0])
            if joined and (walks or first != second):
                ends = (first[0], second[0], first[1]) if fork else (first[0], first[1], second[1])
                found[ends] = found.get(ends, 0) + 1
    return found


PHASES = (Phase.explicit, Phase.generate)  # shrinking would fill a store hundreds of times


@pytest.mark.parametrize("engine", sorted(ENGINES))
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=PHASES)
@given(edges=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=6))
def test_repeated_edges_and_loops_count_as_in_a_multigraph(engine: str, edges: list[Pair]) -> None:
    with tempfile.TemporaryDirectory() as folder, ENGINES[engine](Path(folder)) as store:
        store.load(bundle_of([make(edges)]))
        check(store, edges)


def check(store: Store, edges: list[Pair]) -> None:
    assert counted(ask(store, COUNT)) == {pair: edges.count(pair) for pair in edges}
    for statement, fork in ((TWICE, False), (FORK, True)):
        trails = pairs_of_edges(edges, fork=fork, walks=False)
        assert counted(ask(store, statement.format(DIFFERENT))) == trails
        own = pairs_of_edges(edges, fork=fork, walks=store.capabilities.dialect == "ladybug")
        assert counted(ask(store, statement.format(""))) == own  # when this changes, so can the rule below


def test_a_loop_and_a_doubled_edge(tmp_path: Path) -> None:
    """The case by hand: 0 -> 1 twice, 1 -> 1."""
    edges = [(0, 1), (0, 1), (1, 1)]
    assert pairs_of_edges(edges, fork=False, walks=False) == {(0, 1, 1): 2}
    assert pairs_of_edges(edges, fork=False, walks=True) == {(0, 1, 1): 2, (1, 1, 1): 1}
    with ENGINES["ladybug"](tmp_path) as store:
        store.load(bundle_of([make(edges)]))
        check(store, edges)


def patterns(cypher: str) -> Iterator[str]:
    """Yield each MATCH clause up to the next clause; what stands in EXISTS and COUNT is a clause of its own."""
    yield from re.findall(r"\bMATCH\b(.*?)(?=\bMATCH\b|\bWITH\b|\bRETURN\b|\bUNWIND\b|\bCALL\b|\Z)", cypher, flags=re.DOTALL)


_STEP = re.compile(r"(\()(\w*)(?::`?(\w+))?[^()]*\)|(<?)-\[\w*\s*:([A-Z_|]+)[^\]]*\]-(>?)")


def edges_of(clause: str, labels: dict[str, str]) -> list[tuple[str, str, str]]:
    """Give (type, source label, target label) of every edge pattern; "" for a label that nobody says."""
    found: list[tuple[str, str, str]] = []
    left, waiting = "", None
    for node, name, label, back, kinds, _ in _STEP.findall(clause):
        if not node:
            waiting = (kinds.split("|"), bool(back))
            continue
        right = label or labels.get(name, "")
        if waiting is not None:
            ends = (right, left) if waiting[1] else (left, right)
            found += [(kind, *ends) for kind in waiting[0]]
        left, waiting = right, None
    return found


def may_be_one_edge(clause: str, labels: dict[str, str]) -> bool:
    """Could two edge patterns of one clause be the same edge?"""

    def same(one: str, other: str) -> bool:
        return not one or not other or one == other

    edges = edges_of(clause, labels)
    return any(a[0] == b[0] and same(a[1], b[1]) and same(a[2], b[2]) for number, a in enumerate(edges) for b in edges[number + 1 :])


@pytest.mark.parametrize("dialect", [None, *sorted(ENGINES)])
def test_no_query_matches_two_edges_of_one_type_without_saying_that_they_differ(dialect: str | None) -> None:
    assert may_be_one_edge("(a:Span)-[x:SUPPORTS]->(b)<-[:SUPPORTS|EMITS]-(c:Span)", {})
    assert not may_be_one_edge("(h)-[:OF]->(o:Output)-[:OF]->(t:Trace)<-[:OF]-(i:Item)", {"h": "HeadSummary"})
    for name, found in catalogue(dialect).items():
        labels = dict(re.findall(r"\((\w+):`?(\w+)", found.cypher))
        for clause in patterns(found.cypher):
            assert not may_be_one_edge(clause, labels) or "<>" in clause, f"{name}: {clause}"

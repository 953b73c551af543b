"""On Neo4j every query begins at an index: no scan of a label or of all nodes, no cartesian product.

Asserted by EXPLAIN, with statistics of a store that is not tiny, for every entry of the catalogue by itself: its header's `seeks` names
what it begins from (`Output.output_id`, `HeadSummary.(model_id, layer, head)`), so each of these is given in turn. A query may scan only
where `seeks` says so: from the start ("nothing; scans ...", "then scans ..."), or when nothing is given that could be sought.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.neo4j_server import TestServer
from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_traces
from tracestore.query import CatalogueEntry, catalogue, entry
from tracestore.query.parameters import Parameter
from tracestore.schema import EDGE_TABLES, NODE_BY_LABEL
from tracestore.store.neo4j.connection import make_driver
from tracestore.store.neo4j.writing import edge_statement

OUTPUT = f"{'0' * 32}:3:17"
SAMPLES: dict[str, object] = {"output_id": OUTPUT, "trace_id": "0" * 32, "text": " the", "output_uid": 4_294_967_300}
BESIDE: dict[str, object] = {"model_id": "m", "dataset": "facts", "correct": True, "origin": "generated"}
"""Filters that must not turn a seek into a scan."""

_NAMED = re.compile(r"([A-Z]\w+)\.(?:(\w+)|\(([^)]*)\))")
FORBIDDEN = ("AllNodesScan", "NodeByLabelScan", "UnionNodeByLabelsScan", "CartesianProduct", "RelationshipTypeScan", "AllRelationshipsScan")


@pytest.fixture(scope="module")
def filled(neo4j_server: TestServer) -> TestServer:
    with neo4j_server.open_empty() as store:
        store.load(bundle_of(make_traces(12, n_outputs=3, n_tokens=12, steps=2, paths=True)), level="mechanism")
        many_heads = make_traces(30, first_seed=100, n_tokens=4, n_layers=8, n_heads=8, mechanism=False, paths=True)
        store.load(bundle_of(many_heads), level="summary")
    neo4j_server.run("CALL db.prepareForReplanning(30)")
    return neo4j_server


def operators(server: TestServer, statement: str, params: dict[str, Any]) -> list[str]:
    """Name the operators of a plan."""

    def walk(plan: dict[str, Any]) -> Iterator[str]:
        yield str(plan["operatorType"]).partition("@")[0]
        for child in plan.get("children", []):
            yield from walk(child)

    with make_driver(server.uri, server.credentials) as driver, driver.session(database=server.credentials.database) as session:
        plan = session.run(f"EXPLAIN {statement}", params).consume().plan
    assert plan is not None
    return list(walk(plan))


def sample(parameter: Parameter) -> object:
    """Give some value that a parameter takes."""
    if parameter.name in SAMPLES:
        return SAMPLES[parameter.name]
    if parameter.choices:
        return parameter.choices[0]
    return {"int": 17, "float": 0.5, "string": "x", "bool": True}[parameter.type]


def sought(found: CatalogueEntry) -> list[tuple[str, ...]]:
    """Give the parameters that the header says the query begins from, each group to be given together."""
    said = found.header.seeks.partition("the embedded engine")[0]
    parameters = {p.name for p in found.header.parameters}
    groups = []
    for label, name, names in _NAMED.findall(said):
        assert label in NODE_BY_LABEL, label
        group = tuple(names.split(", ")) if names else (f"{label.lower()}_uid" if name == "uid" else name,)
        assert set(group) <= parameters, f"{found.name} says that it seeks on {group}, which it does not take"
        groups.append(group)
    if "unless a token is given" in said:
        groups += [("token_id",), ("text",)]
    if "the given Output" in said:
        groups += [("output_id",), ("output_uid",)]
    return groups


def given(found: CatalogueEntry, group: tuple[str, ...], more: dict[str, object]) -> dict[str, object]:
    """Give a group's parameters, those that the query demands anyway, and filters that it knows."""
    known = {p.name: p for p in found.header.parameters}
    values = {name: sample(p) for name, p in known.items() if name in group or p.required}
    return {name: value for name, value in more.items() if name in known} | values


def scans(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(FORBIDDEN)]


@pytest.mark.parametrize("query", sorted(catalogue("neo4j")))
def test_a_query_begins_at_an_index_or_says_that_it_scans(filled: TestServer, query: str) -> None:
    found = entry(query, "neo4j")
    groups = sought(found)
    for group in groups:
        for more in ({}, BESIDE):
            names = operators(filled, *found.statement(found.bind(given(found, group, more))))
            assert any("IndexSeek" in name for name in names), (group, names)
            if "then scans" not in found.header.seeks:
                assert not scans(names), (group, names)
    if not found.header.needs:
        names = operators(filled, *found.statement(found.bind(given(found, (), {}))))
        assert not scans(names) or "scans" in found.header.seeks, names
    assert groups or "scans" in found.header.seeks


@pytest.mark.parametrize("query", sorted(catalogue("neo4j")))
def test_whoever_names_one_output_or_trace_is_not_made_to_wait_for_a_scan(query: str) -> None:
    """A parameter that names one thing is among those that the query begins from."""
    found = entry(query, "neo4j")
    named = {name for group in sought(found) for name in group}
    for parameter in found.header.parameters:
        assert parameter.name not in ("output_id", "output_uid", "trace_id") or parameter.name in named, parameter.name


def test_the_loader_finds_both_ends_by_index(filled: TestServer) -> None:
    for table, (_, source, target) in EDGE_TABLES.items():
        names = operators(filled, edge_statement(table), {"rows": [[1, 2, *[0.0] * 12]]})
        assert sum(name.startswith("NodeUniqueIndexSeek") for name in names) == 2, (table, names)
        assert not [name for name in names if "Scan" in name], (table, names)
        assert {source, target} <= set(NODE_BY_LABEL)

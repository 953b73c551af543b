"""On Neo4j every query begins at an index: no scan of a label or of all nodes, no cartesian product.

Asserted by EXPLAIN, with statistics of a store that is not tiny. A query may scan only where its header's `seeks` says so: from the
start ("nothing; scans ..."), or when nothing is given that could be sought ("without them scans ...").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.neo4j_server import TestServer
from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_traces
from tracestore.query import catalogue, entry
from tracestore.schema import EDGE_TABLES, NODE_BY_LABEL
from tracestore.store.neo4j.connection import make_driver
from tracestore.store.neo4j.writing import edge_statement

OUTPUT = f"{'0' * 32}:3:17"
SOUGHT: dict[str, list[dict[str, object]]] = {
    "drivers": [{"output_id": OUTPUT}, {"output_uid": 4_294_967_300}],
    "driver_heads": [{"output_id": OUTPUT}, {"output_uid": 4_294_967_300}],
    "drivers_across": [{"token_id": 17}, {"text": " the"}, {"text": " the", "model_id": "m", "dataset": "facts"}],
    "outputs_driven_by": [{"token_id": 17}, {"text": " the"}, {"text": " the", "correct": True, "dataset": "facts"}],
    "list_outputs": [{"trace_id": "0" * 32}, {"token_id": 17}, {"text": " the"}],
    "heads_across": [{"token_id": 17}, {"text": " the"}],
    "correct_or_wrong": [{"token_id": 17}, {"text": " the"}],
    "correct_or_wrong_tokens": [{"token_id": 17}, {"text": " the"}],
    "check_conservation": [{"trace_id": "0" * 32}, {"output_id": OUTPUT}],
    "conservation_summary": [{"trace_id": "0" * 32}, {"output_id": OUTPUT}],
    "disagreement": [{"trace_id": "0" * 32}, {"output_id": OUTPUT}],
    "unverified": [{"trace_id": "0" * 32}, {"output_id": OUTPUT}],
    "span_drivers": [{"output_id": OUTPUT}, {"output_uid": 4_294_967_300}],
    "thought_chain": [{"output_id": OUTPUT}, {"output_uid": 4_294_967_300}],
    "step_graph": [{"trace_id": "0" * 32}],
    "context_or_prompt": [{"trace_id": "0" * 32}],
    "check_closure": [{"trace_id": "0" * 32}, {"output_id": OUTPUT}],
}
FORBIDDEN = ("AllNodesScan", "NodeByLabelScan", "UnionNodeByLabelsScan", "CartesianProduct", "RelationshipTypeScan", "AllRelationshipsScan")


@pytest.fixture(scope="module")
def filled(neo4j_server: TestServer) -> TestServer:
    with neo4j_server.open_empty() as store:
        store.load(bundle_of(make_traces(12, n_outputs=3, n_tokens=12, steps=2)), level="mechanism")
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


def assert_seeks(names: list[str]) -> None:
    assert not [name for name in names if name.startswith(FORBIDDEN)], names
    assert any("IndexSeek" in name for name in names), names


@pytest.mark.parametrize("query", sorted(SOUGHT))
def test_a_query_begins_at_an_index(filled: TestServer, query: str) -> None:
    for given in SOUGHT[query]:
        found = entry(query, "neo4j")
        assert_seeks(operators(filled, *found.statement(found.bind(given))))


def test_every_other_query_says_that_it_scans() -> None:
    for name, found in catalogue("neo4j").items():
        if name not in SOUGHT:
            assert "scans" in found.header.seeks, name


def test_the_loader_finds_both_ends_by_index(filled: TestServer) -> None:
    for table, (_, source, target) in EDGE_TABLES.items():
        names = operators(filled, edge_statement(table), {"rows": [[1, 2, *[0.0] * 12]]})
        assert sum(name.startswith("NodeUniqueIndexSeek") for name in names) == 2, (table, names)
        assert not [name for name in names if "Scan" in name], (table, names)
        assert {source, target} <= set(NODE_BY_LABEL)

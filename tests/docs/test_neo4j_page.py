"""What the Neo4j page gives to paste is answered by a real server, passes the fence, and begins at an index."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.neo4j_server import TestServer
from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_trace
from tracestore.model import Trace
from tracestore.query import run_cypher
from tracestore.store.neo4j.store import Neo4jStore

PAGE = Path(__file__).resolve().parents[2] / "docs" / "neo4j.md"
QUERIES = re.findall(r"^```cypher\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
TRACE = make_trace(1, text="The capital of France is", n_outputs=2, target_text=" Paris")


@pytest.fixture(scope="module")
def store(neo4j_server: TestServer) -> Iterator[Neo4jStore]:
    with neo4j_server.open_empty() as opened:
        opened.load(bundle_of([TRACE]), level="mechanism")
        yield opened


def output_of(trace: Trace) -> str:
    return trace.outputs[-1].output_id


def test_there_are_queries_to_paste() -> None:
    assert len(QUERIES) >= 6


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: " ".join(query.split())[:60])
def test_a_query_to_paste_is_answered(store: Neo4jStore, query: str) -> None:
    params = {"output_id": output_of(TRACE)} if "$output_id" in query else {}
    assert run_cypher(store, query, params).table.num_rows > 0


def test_every_option_that_the_page_names_is_there() -> None:
    page = PAGE.read_text(encoding="utf-8")
    reference = (PAGE.parent / "cli.md").read_text(encoding="utf-8")
    for command in re.findall(r"^    tracestore (.*?)(?:  +#.*)?$", page, flags=re.MULTILINE):
        words = command.split()
        name = " ".join(words[:2]) if words[0] == "store" else words[0]
        section = reference.partition(f"## `tracestore {name}`")[2].partition("\n## ")[0]
        assert section, name
        for option in re.findall(r"--[a-z-]+", command):
            assert f"`{option}" in section or f", {option}" in section or f"{option}`" in section, (name, option)

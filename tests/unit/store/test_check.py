"""The check finds what was broken on purpose, and only that."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_traces
from tracestore import schema
from tracestore.store import open_engine
from tracestore.store.ladybug.store import LadybugStore

BREAKS = {
    "a lost relationship": ("MATCH (:State)-[r:VALUE]->(:Head) WITH r LIMIT 1 DELETE r", r"rows of VALUE\.State\.Head, \d+ were recorded"),
    "a lost node": ("MATCH (t:Token) WITH t ORDER BY t.uid LIMIT 1 DETACH DELETE t", r"rows of Token, \d+ were recorded"),
    "a lost OF edge": ("MATCH (:Token)-[r:OF]->(:Trace) WITH r LIMIT 1 DELETE r", r"rows of OF\.Token\.Trace, \d+ were recorded"),
    "an orphan": ("CREATE (:Token {uid: 429496729600000, trace_no: 100000})", "trace_no 100000 belong to no READY trace"),
    "a changed weight": (
        "MATCH (:Head)-[r:WRITES]->(:State) WITH r LIMIT 1 SET r.weight = r.weight + 0.5",
        r"(State|Head) \d+: .* differ by 0\.5",
    ),
    "a changed relevance": (
        "MATCH (m:Mlp) WITH m LIMIT 1 SET m.relevance = m.relevance - 2",
        r"Mlp \d+: sum\(in\) .* differ by 2 logits",
    ),
    "a changed score": (
        "MATCH (:Token)-[r:INFLUENCES]->(:Output) WITH r LIMIT 1 SET r.score = r.score + 1",
        r"Output \d+: sum\(score\) \+ bias",
    ),
    "a relevance that is no number": ("MATCH (h:Head) WITH h LIMIT 1 SET h.bias = CAST('nan' AS FLOAT)", r"Head \d+: .* differ by nan"),
    "two READY": (
        "MATCH (t:Trace) WHERE t.trace_no = 2 MATCH (o:Trace) WHERE o.trace_no = 1 SET t.ready_id = o.ready_id",
        "is READY 2 times",
    ),
    "an invisible trace": ("MATCH (t:Trace) WHERE t.trace_no = 2 SET t.ready_id = NULL", "is recorded as READY and not visible"),
    "a wrong status": ("MATCH (t:Trace) WHERE t.trace_no = 2 SET t.status = 'RETIRED'", "is visible with status RETIRED"),
    "a tie between traces": (
        "MATCH (o:Output) WHERE o.trace_no = 1 MATCH (t:Token) WHERE t.trace_no = 2 AND t.pos = 0 CREATE (o)-[:EMITS]->(t)",
        r"relationships of EMITS\.Output\.Token join two traces",
    ),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a store that is sound."""
    path = tmp_path_factory.mktemp("sound") / "graph.lbug"
    with open_engine(str(path)) as store:
        store.load(bundle_of(make_traces(2, n_tokens=6)), level="mechanism")
        report = store.check()
        assert report.problems == ()
        assert report.checked["traces"] == 2
        assert report.checked["conservation"] == sum(store.status().nodes[label] for label in ("State", "Head", "Mlp", "Output"))
    return path.read_bytes()


@pytest.mark.parametrize("name", BREAKS)
def test_each_break_is_found(tmp_path: Path, sound: bytes, name: str) -> None:
    statement, words = BREAKS[name]
    path = tmp_path / "graph.lbug"
    path.write_bytes(sound)
    store = open_engine(str(path))
    assert isinstance(store, LadybugStore)
    with store:
        store._handle.change(statement)
        problems = "\n".join(store.check().problems)
    assert re.search(words, problems), problems


def test_status_counts_labels_types_and_bytes(tmp_path: Path) -> None:
    traces = make_traces(2, n_tokens=6, n_outputs=2)
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        store.load(bundle_of(traces), level="mechanism")
        status = store.status()
        assert status.nodes == {label: sum(t.table(label).num_rows for t in traces) for label in schema.NODE_BY_LABEL}
        for edge in schema.EDGES:
            if edge.archived:
                names = [schema.edge_table(edge.type, *pair) for pair in edge.pairs]
                assert status.edges[edge.type] == sum(t.table(name).num_rows for t in traces for name in names)
        owned = [node.label for node in schema.NODES if node.of is not None]
        assert status.edges["OF"] == sum(status.nodes[label] for label in owned)
        assert (status.engine, status.engine_version, status.schema_version) == ("ladybug", "0.22.0", schema.SCHEMA_VERSION)
        assert status.bytes >= (tmp_path / "graph.lbug").stat().st_size > 0

"""The Neo4j store on a real server: what was written is what is found, visible when complete, once, and removable."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from tests.support.neo4j_server import TestServer
from tests.support.store_counts import content_of, counts_of
from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_trace, make_traces
from tracestore import schema
from tracestore.errors import BadInputError, QueryError, StoreError
from tracestore.model import Trace
from tracestore.store import open_engine
from tracestore.store.base import Limits
from tracestore.store.neo4j.store import Neo4jStore
from tracestore.store.neo4j.writers import LoadSettings


@pytest.fixture
def store(neo4j_server: TestServer) -> Iterator[Neo4jStore]:
    with neo4j_server.open_empty() as opened:
        yield opened


def of_output(trace: Trace, output: int) -> dict[str, pa.Table]:
    """Cut what belongs to one Output out of a trace, in the order in which a store gives it back."""
    mine = {row["local"] for label in schema.NODE_BY_LABEL for row in trace.table(label).to_pylist() if row.get("output_uid") == output}
    shared = {row["local"] for label in ("Trace", "Item", "Token", "Span") for row in trace.table(label).to_pylist()}
    known = mine | shared | {output}
    cut = {}
    for name in schema.ARCHIVE_TABLES:
        rows = trace.table(name).to_pylist()
        if name in schema.NODE_BY_LABEL:
            kept = sorted((row for row in rows if row["local"] in known), key=lambda row: row["local"])
        else:
            kept = sorted((row for row in rows if row["src"] in known and row["dst"] in known), key=lambda row: (row["src"], row["dst"]))
        if kept:
            cut[name] = pa.Table.from_pylist(kept, schema=schema.arrow_schema(name))
    return cut


def test_what_was_written_is_what_is_found(store: Neo4jStore) -> None:
    traces = make_traces(2, n_outputs=2, extras=True)
    bundle = bundle_of(traces)
    report = store.load(bundle, level="mechanism")
    assert report.loaded == bundle.trace_ids
    nodes, edges = counts_of(traces, level="mechanism")
    assert (report.nodes, report.edges) == (sum(nodes.values()), sum(edges.values()))
    status = store.status()
    assert {label: count for label, count in status.nodes.items() if count} == nodes
    assert {name: count for name, count in status.edges.items() if count} == edges
    for trace in traces:
        for output in trace.outputs[-1:]:
            found, written = store.read_output(output.output_id), of_output(trace, output.row["local"])
            assert set(found) == set(written)
            for name, table in written.items():
                assert sorted(map(repr, found[name].to_pylist())) == sorted(map(repr, table.to_pylist())), name
                assert found[name].schema == table.schema


def test_conservation_is_checked_in_cypher_and_a_broken_flow_is_named(store: Neo4jStore, neo4j_server: TestServer) -> None:
    store.load(bundle_of(make_traces(2, n_outputs=2)), level="mechanism")
    report = store.check()
    assert report.problems == ()
    assert report.checked["conservation"] == sum(store.status().nodes[label] for label in ("State", "Head", "Mlp", "Output"))
    uid = neo4j_server.run("MATCH (h:Head)-[r:WRITES]->() WITH h, r LIMIT 1 SET r.weight = r.weight + 0.5 RETURN h.uid")[0][0]
    problems = store.check().problems
    assert any(problem.startswith(f"Head {uid}: what leaves and relevance differ by 0.5") for problem in problems)
    assert len(problems) == 2  # and the State that it writes to


def test_check_names_what_is_missing(store: Neo4jStore, neo4j_server: TestServer) -> None:
    (trace,) = make_traces(1)
    store.load(bundle_of([trace]))
    neo4j_server.run("MATCH (:Token)-[r:INFLUENCES]->(:Output) WITH r LIMIT 1 DELETE r")
    neo4j_server.run("CREATE (:Token {uid: 99999999999999, trace_no: 23283})")
    neo4j_server.run("DROP INDEX output_output_id")
    problems = store.check().problems
    tokens = len(trace.table("INFLUENCES.Token.Output"))
    assert any("the constraint or index output_output_id is missing" in problem for problem in problems)
    assert any(f"{tokens - 1} rows of INFLUENCES.Token.Output, {tokens} were recorded" in problem for problem in problems)
    assert any("1 rows with trace_no 23283 belong to no READY trace" in problem for problem in problems)
    neo4j_server.run("CREATE INDEX output_output_id IF NOT EXISTS FOR (n:Output) ON (n.output_id)")
    neo4j_server.run("CALL db.awaitIndexes(30)")


def test_a_second_load_adds_nothing_and_replace_leaves_one_generation(store: Neo4jStore, neo4j_server: TestServer) -> None:
    traces = make_traces(3)
    bundle = bundle_of(traces)
    store.load(bundle)
    before = content_of(store)
    again = store.load(bundle)
    assert (again.loaded, again.skipped, again.nodes, again.edges) == ((), bundle.trace_ids, 0, 0)
    assert content_of(store) == before
    highest = neo4j_server.run("MATCH (t:Trace) RETURN max(t.trace_no)")[0][0]
    replaced = store.load(bundle, replace=True)
    assert replaced.loaded == bundle.trace_ids
    assert content_of(store) == before
    assert neo4j_server.run("MATCH (n) WHERE n.uid IS NOT NULL RETURN min(n.trace_no)")[0][0] > highest  # never used again
    assert store.check().problems == ()
    left = "MATCH (n) WHERE n:StoreClaim OR n:StoreLease OR n:StoreBatch RETURN count(n)"
    assert neo4j_server.run(left) == [[0]]


def test_several_writers_on_disjoint_traces_make_the_same_graph(neo4j_server: TestServer) -> None:
    traces = make_traces(5, n_outputs=2)
    seen: list[int] = []
    with neo4j_server.open_empty(settings=LoadSettings(batch_rows=150, writers=3)) as store:
        report = store.load(bundle_of(traces), level="mechanism", progress=seen.append)
        nodes, edges = counts_of(traces, level="mechanism")
        assert (report.nodes, report.edges) == (sum(nodes.values()), sum(edges.values()))
        assert sum(seen) == report.edges
        assert len(seen) > 9
        assert store.check().problems == ()
        assert {name: count for name, count in store.status().edges.items() if count} == edges


def test_batches_shrink_when_the_server_lacks_memory(neo4j_server: TestServer) -> None:
    if neo4j_server.local is None:
        pytest.skip("the memory of a transaction is small on our own server only")
    traces = make_traces(24, n_outputs=8, n_tokens=16)
    with neo4j_server.open_empty(settings=LoadSettings(batch_rows=1_000_000)) as store:
        seen: list[int] = []
        report = store.load(bundle_of(traces), level="summary", progress=seen.append)
        assert len(seen) > 1  # all of it was sent at once, and refused
        nodes, edges = counts_of(traces, level="summary")
        assert (report.nodes, report.edges) == (sum(nodes.values()), sum(edges.values()))
        assert store.status().nodes["Output"] == 24 * 8
        assert store.evict([trace.trace_id for trace in traces]) == 24  # neither do deletions fit at once
        assert sum(store.status().nodes.values()) == 0


def test_an_evicted_trace_stays_away_until_it_is_asked_for(store: Neo4jStore) -> None:
    traces = make_traces(2)
    first, second = (trace.trace_id for trace in traces)
    store.load(bundle_of(traces))
    assert store.evict([first, "never-loaded"]) == 1
    assert store.ready() == {second}
    assert store.evicted() == {first, "never-loaded"}
    nodes, _ = counts_of(traces[1:], level="summary")
    assert {label: count for label, count in store.status().nodes.items() if count} == nodes
    assert store.status().traces == {"READY": 1, "LOADING": 0, "RETIRED": 0, "EVICTED": 2}
    assert store.load(bundle_of(traces)).skipped == (first, second)
    assert store.load(bundle_of(traces[:1]), replace=True).loaded == (first,)
    assert store.ready() == {first, second}
    assert store.evicted() == {"never-loaded"}


def test_attach_adds_the_mechanism_of_one_output(store: Neo4jStore) -> None:
    (trace,) = make_traces(1, n_outputs=2)
    bundle = bundle_of([trace])
    one, other = (output.output_id for output in trace.outputs)
    store.load(bundle)
    assert "State" not in store.read_output(one)
    report = store.attach(bundle, one)
    assert report.loaded == (trace.trace_id,)
    written = of_output(trace, trace.outputs[0].row["local"])
    found = store.read_output(one)
    assert {name: table.num_rows for name, table in found.items()} == {name: table.num_rows for name, table in written.items()}
    assert "State" not in store.read_output(other)
    assert store.attach(bundle, one).skipped == (trace.trace_id,)
    assert store.check().problems == ()
    with pytest.raises(BadInputError, match="does not hold the output"):
        store.attach(bundle, "no:1:2")
    with pytest.raises(BadInputError, match="no complete trace"):
        store.read_output("no:1:2")


def test_annotate_appends_once(store: Neo4jStore) -> None:
    (trace,) = make_traces(1, items=[{"item_id": "first"}])
    store.load(bundle_of([trace]))
    item = pa.Table.from_pylist(
        [{"local": (1 << 31) | 5, "item_id": "later", "tags": ["x", "y"], "correct": True}], schema=schema.arrow_schema("Item")
    )
    knockout = {"kind": "column", "effect": -1.5, "effect_logp": -0.25, "created_at": 7}
    edge = {"src": trace.table("Token")["local"][2].as_py(), "dst": trace.outputs[0].row["local"], **knockout}
    knocked = pa.Table.from_pylist([edge], schema=schema.arrow_schema("KNOCKOUT.Token.Output"))
    extra = bundle_of([Trace(trace.trace_id, {"Item": item, "KNOCKOUT.Token.Output": knocked})])
    report = store.annotate(extra)
    assert (report.loaded, report.nodes, report.edges) == ((trace.trace_id,), 1, 2)
    again = store.annotate(extra)
    assert (again.skipped, again.nodes, again.edges) == ((trace.trace_id,), 0, 0)
    query = "MATCH (i:Item)-[:OF]->(t:Trace) RETURN i.item_id AS id, i.tags AS tags, t.trace_id AS trace ORDER BY id"
    assert store.run(query, {}, Limits()).table.to_pylist() == [
        {"id": "first", "tags": [], "trace": trace.trace_id},
        {"id": "later", "tags": ["x", "y"], "trace": trace.trace_id},
    ]
    assert store.run("MATCH ()-[k:KNOCKOUT]->() RETURN k.effect AS e", {}, Limits()).table["e"].to_pylist() == [-1.5]
    assert store.check().problems == ()


def test_run_reads_only_and_within_its_limits(store: Neo4jStore) -> None:
    store.load(bundle_of([make_trace(1, n_tokens=9)]))
    result = store.run("MATCH (t:Token) RETURN t.pos AS pos ORDER BY pos", {}, Limits(max_rows=4))
    assert (result.table["pos"].to_pylist(), result.truncated) == ([0, 1, 2, 3], True)
    result = store.run("MATCH (t:Token) RETURN t.pos AS pos ORDER BY pos", {}, Limits(max_rows=9))
    assert (result.table.num_rows, result.truncated) == (9, False)
    empty = store.run("MATCH (t:Token) WHERE t.pos > $p RETURN t.pos AS pos, t.text AS text", {"p": 100}, Limits())
    assert empty.table.column_names == ["pos", "text"]
    assert empty.table.num_rows == 0
    with pytest.raises(QueryError, match="queries only read"):
        store.run("CREATE (:Token {pos: 1})", {}, Limits())
    with pytest.raises(QueryError, match=r"longer than 0\.3 s"):
        store.run("UNWIND range(1, 3000000000) AS a WITH a WHERE a < 0 RETURN count(a)", {}, Limits(timeout_s=0.3))
    with pytest.raises(QueryError, match="refused the query") as refused:
        store.run("MATCH (t:Token RETURN $secret", {"secret": "hush-hush"}, Limits())
    assert "hush-hush" not in str(refused.value)
    with pytest.raises(QueryError, match="was not given"):
        store.run("RETURN $missing", {}, Limits())


def test_a_reader_cannot_write_and_a_rebuild_drops_what_was_not_loaded_again(
    neo4j_server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tracestore.store import rebuild_engine

    for name, value in neo4j_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TRACESTORE_ALLOW_PLAIN", "1")
    traces = make_traces(3)
    neo4j_server.empty()
    with open_engine(neo4j_server.uri) as store:
        store.load(bundle_of(traces))
        store.evict([traces[2].trace_id])
    with open_engine(neo4j_server.uri, read_only=True) as reader:
        assert len(reader.ready()) == 2
        with pytest.raises(StoreError, match="reading only"):
            reader.load(bundle_of(traces))
    with rebuild_engine(neo4j_server.uri) as store:
        assert store.ready() == frozenset()
        report = store.load(bundle_of([traces[0], traces[2]]))
        assert (report.loaded, report.skipped) == ((traces[0].trace_id,), (traces[2].trace_id,))
    with open_engine(neo4j_server.uri) as store:
        assert store.ready() == {traces[0].trace_id}
        assert store.check().problems == ()
        nodes, _ = counts_of(traces[:1], level="summary")
        assert {label: count for label, count in store.status().nodes.items() if count} == nodes

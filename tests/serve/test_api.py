"""What the HTTP interface answers, on every engine, compared with the traces' own tables."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_trace
from tracestore import schema
from tracestore.api import GraphStore
from tracestore.model import Trace


def got(client: TestClient, path: str, **params: Any) -> Any:
    answer = client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def pages(client: TestClient, **params: Any) -> list[list[str]]:
    found, cursor = [], None
    while True:
        page = got(client, "/api/traces", **params, **({"cursor": cursor} if cursor else {}))
        found.append([row["trace_id"] for row in page["rows"]])
        cursor = page["next"]
        assert page["truncated"] is (cursor is not None)
        if cursor is None:
            return found


def test_pages_of_traces_join_to_the_whole(client: TestClient, served_traces: list[Trace]) -> None:
    expected = [t.trace_id for t in sorted(served_traces, key=lambda t: (-t.header["created_at"], t.trace_id))]
    assert pages(client, limit=2) == [expected[:2], expected[2:4], expected[4:]]  # the first two were made at the same time
    assert pages(client, limit=1) == [[name] for name in expected]
    assert pages(client, limit=5) == [expected]


def test_a_trace_that_arrives_does_not_shift_the_pages(client: TestClient, graph: GraphStore, served_traces: list[Trace]) -> None:
    first = got(client, "/api/traces", limit=2)
    newer = make_trace(9, n_tokens=3, mechanism=False)
    graph.engine.load(bundle_of([newer]))
    try:
        assert got(client, "/api/traces", limit=1)["rows"][0]["trace_id"] == newer.trace_id
        second = got(client, "/api/traces", limit=10, cursor=first["next"])
        names = [row["trace_id"] for row in first["rows"] + second["rows"]]
        assert sorted(names) == sorted(t.trace_id for t in served_traces)
    finally:
        graph.delete([newer.trace_id])


def test_the_list_is_filtered(client: TestClient, served_traces: list[Trace]) -> None:
    assert [row["trace_id"] for row in got(client, "/api/traces", dataset="facts")["rows"]][-1] == served_traces[0].trace_id
    assert [row["trace_id"] for row in got(client, "/api/traces", model_id="other")["rows"]] == [served_traces[1].trace_id]
    assert client.get("/api/traces", params={"colour": "red"}).status_code == 422
    assert client.get("/api/traces", params={"offset": "3"}).status_code == 422
    assert client.get("/api/traces", params={"cursor": "bm9wZQ"}).json()["type"] == "urn:tracestore:bad-cursor"


def test_a_trace_is_what_was_loaded(client: TestClient, served_traces: list[Trace]) -> None:
    for trace in served_traces:
        answer = got(client, f"/api/traces/{trace.trace_id}")
        for part, table in (("tokens", "Token"), ("items", "Item"), ("spans", "Span"), ("outputs", "Output")):
            expected = sorted(trace.table(table).to_pylist(), key=lambda row: row["local"])
            assert len(answer[part]) == len(expected)
            for row, wanted in zip(answer[part], expected, strict=True):
                names = {c.name for c in schema.table_columns(table) if c.kind != "ref"} - {"head_vector"}
                assert {name: row[name] for name in names} == {name: wanted[name] for name in names}
        assert answer["trace"]["text"] == trace.text
        assert "head_vector" not in json.dumps(answer)


def test_an_output_has_the_relevance_of_every_head(client: TestClient, served_traces: list[Trace]) -> None:
    output = served_traces[1].outputs[1]
    answer = got(client, f"/api/outputs/{output.output_id}")
    assert answer["head_vector"] == pytest.approx(output.row["head_vector"])
    assert len(answer["head_vector"]) == 3 * 3


def test_drivers_add_up_in_every_form(client: TestClient, served_traces: list[Trace]) -> None:
    output = served_traces[0].outputs[2]
    path = f"/api/outputs/{output.output_id}/drivers"
    rows = got(client, path)["rows"]
    assert [row["rank_drive"] for row in rows] == list(range(1, len(rows) + 1))
    assert sum(row["score"] for row in rows) + output.row["bias"] == pytest.approx(output.row["explained"], abs=1e-4)
    lines = client.get(path, headers={"Accept": "application/x-ndjson"})
    assert [json.loads(line) for line in lines.text.splitlines()] == rows
    stream = client.get(path, headers={"Accept": "application/vnd.apache.arrow.stream, application/json;q=0.5"})
    assert pa.ipc.open_stream(stream.content).read_all().to_pylist() == rows
    assert stream.headers["Tracestore-Truncated"] == "false"
    some = got(client, path, limit=2, by="score", sink=False)
    assert some["truncated"] is True
    assert some["rows"] == sorted((r for r in rows if not r["sink"]), key=lambda r: -abs(r["score"]))[:2]


@pytest.mark.parametrize("part", ["", "/drivers", "/heads", "/paths", "/graph"])
def test_a_parameter_that_is_not_known_is_refused(client: TestClient, served_traces: list[Trace], part: str) -> None:
    output = served_traces[1].outputs[1]
    answer = client.get(f"/api/outputs/{output.output_id}{part}", params={"k": 2, "secret words": "1"})
    assert answer.status_code == 422
    assert "limit" in answer.text or part == ""
    assert "secret" not in answer.text
    assert client.get(f"/api/traces/{served_traces[1].trace_id}", params={"k": 2}).status_code == 422


def test_heads_and_paths(client: TestClient, served_traces: list[Trace]) -> None:
    trace = served_traces[0]
    output = trace.outputs[0]
    heads = got(client, f"/api/outputs/{output.output_id}/heads")["rows"]
    stored = [row for row in trace.table("HeadSummary").to_pylist() if row["output_uid"] == output.row["local"]]
    assert {(h["layer"], h["head"]): h["share"] for h in heads} == {(h["layer"], h["head"]): h["share"] for h in stored}
    answer = got(client, f"/api/outputs/{output.output_id}/paths")
    assert [row["hops"] for row in answer["rows"]] == [">".join(row["hops"]) for row in trace.table("Path").to_pylist()]
    assert got(client, f"/api/outputs/{output.output_id}/paths", limit=1)["truncated"] is True
    assert answer["path_mass_open"] is None
    assert got(client, f"/api/outputs/{served_traces[2].outputs[0].output_id}/paths")["rows"] == []


def names_of(trace: Trace) -> dict[int, str]:
    """Name every node of a trace's mechanism by its local number."""
    patterns = {"Token": "emb", "State": "L{layer}.{site}", "Head": "L{layer}.h{head}", "Mlp": "L{layer}.mlp", "Output": "out"}
    rows = ((pattern, row) for label, pattern in patterns.items() for row in trace.table(label).to_pylist())
    return {row["local"]: f"{pattern.format(**row)}@{row['pos']}" for pattern, row in rows}


def test_the_graph_holds_every_edge_when_there_is_room(client: TestClient, served_traces: list[Trace]) -> None:
    trace = served_traces[2]
    (output,) = trace.outputs
    names = names_of(trace)
    tables = [(edge.type, table) for table, (edge, _, _) in schema.EDGE_TABLES.items() if edge.level == "mechanism"]
    expected = {(kind, names[r["src"]], names[r["dst"]]): r["weight"] for kind, table in tables for r in trace.table(table).to_pylist()}
    answer = got(client, f"/api/outputs/{output.output_id}/graph")
    assert {(e["type"], e["source"], e["target"]): e["mainstat"] for e in answer["edges"]} == pytest.approx(expected)
    assert {"id", "title", "mainstat"} <= set(answer["nodes"][0])
    assert {node["id"] for node in answer["nodes"]} == {name for edge in answer["edges"] for name in (edge["source"], edge["target"])}
    assert (answer["truncated"], answer["edges_stored"], answer["attention_share"]) == (False, len(expected), pytest.approx(1.0))

    few = got(client, f"/api/outputs/{output.output_id}/graph", limit=20)
    assert (len(few["edges"]), few["truncated"], few["edges_stored"]) == (20, True, len(expected))
    attention = sorted((abs(w) for (kind, _, _), w in expected.items() if kind == "VALUE"), reverse=True)
    shown = sorted((abs(e["mainstat"]) for e in few["edges"] if e["type"] == "VALUE"), reverse=True)
    assert shown == pytest.approx(attention[: len(shown)])
    assert len(shown) >= 10
    assert few["attention_share"] == pytest.approx(sum(shown) / sum(attention))

    node = next(name for kind, _, name in expected if kind == "VALUE")
    more = got(client, f"/api/outputs/{output.output_id}/graph", expand=node)
    touching = {key: weight for key, weight in expected.items() if node in key[1:]}
    assert {(e["type"], e["source"], e["target"]): e["mainstat"] for e in more["edges"]} == pytest.approx(touching)


def test_a_graph_that_is_not_there_says_why(client: TestClient, served_traces: list[Trace]) -> None:
    bare = client.get(f"/api/outputs/{served_traces[3].outputs[0].output_id}/graph")
    assert (bare.status_code, bare.json()["type"]) == (404, "urn:tracestore:no-mechanism")
    path = f"/api/outputs/{served_traces[2].outputs[0].output_id}/graph"
    assert client.get(path, params={"expand": "L99.h0@0"}).status_code == 404
    assert client.get(path, params={"expand": "the cat"}).status_code == 422
    assert client.get(path, params={"limit": 2001}).status_code == 422
    assert client.get(path, headers={"Accept": "text/csv"}).status_code == 406


def test_named_queries_by_string_and_by_body(client: TestClient, graph: GraphStore) -> None:
    expected = graph.query("drivers_across", text=" the", k=3).to_pylist()
    assert len(expected) == 3
    assert got(client, "/api/queries/drivers_across", text=" the", k="3")["rows"] == expected
    posted = client.post("/api/queries/drivers_across", json={"text": " the", "k": 3})
    assert posted.json() == {"rows": expected, "truncated": False}
    listed = {query["name"] for query in got(client, "/api/queries")["queries"]}
    assert {"drivers", "heads_across", "outputs_of_head"} <= listed
    for wrong in (
        {"text": " the", "k": 0},
        {"text": " the", "colour": 1},
        {"text": "\ud800"},
        {"text": "a\x00b"},
        {"text": " c", "k": 2**70},
    ):
        answer = client.post("/api/queries/drivers_across", content=json.dumps(wrong), headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, answer.text
    assert client.get("/api/queries/drivers_across?text=a&text=b").status_code == 422
    assert client.get("/api/queries/nothing").json()["type"] == "urn:tracestore:unknown-query"


def test_ad_hoc_cypher_reads_and_says_when_it_was_cut(client: TestClient) -> None:
    statement = {"statement": "MATCH (t:Token) WHERE t.pos >= $low RETURN t.pos AS pos ORDER BY pos", "params": {"low": 1}, "limit": 2}
    assert client.post("/api/cypher", json=statement).json() == {"rows": [{"pos": 1}, {"pos": 1}], "truncated": True}
    for refused in ("CREATE (n:Token)", "MATCH (n) DETACH DELETE n", "RETURN 1; RETURN 2", "nonsense"):
        assert client.post("/api/cypher", json={"statement": refused}).status_code == 422
    deep: Any = 1
    for _ in range(20):
        deep = [deep]
    assert client.post("/api/cypher", json={"statement": "RETURN $x AS x", "params": {"x": deep}}).status_code == 422


def test_unknown_ids_are_problems(client: TestClient) -> None:
    for path in ("traces/nope", "outputs/nope", "outputs/nope/drivers", "outputs/nope/heads", "outputs/nope/paths", "outputs/nope/graph"):
        answer = client.get(f"/api/{path}")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        assert set(answer.json()) == {"type", "title", "status", "detail"}


def test_it_is_alive_ready_and_counts(client: TestClient) -> None:
    assert client.get("/healthz").text == "ok"
    assert client.get("/readyz").text == "ready"
    client.get("/api/outputs/secret-name/heads")
    text = client.get("/metrics").text
    assert 'tracestore_http_requests_total{method="GET",route="/api/outputs/{output_id}/heads",status="404"}' in text
    assert "secret-name" not in text

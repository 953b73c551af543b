"""Every form holds what the archive holds: read back by other tools (duckdb, networkx, csv, a JSON schema) and compared."""

from __future__ import annotations

import csv
import json
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import jsonschema_rs
import networkx as nx
import pyarrow.parquet as pq
import pytest

from tests.support.command_line import ok, run
from tests.support.synthetic import make_trace, make_traces
from tracestore import schema
from tracestore.archive import Archive
from tracestore.model import Trace

TRACES = make_traces(3, extras=True)
SPAN = {"item_id": "called", "otel_trace_id": "a" * 32, "otel_span_id": "b" * 16}

GRAPH_SCHEMA = {
    "type": "object",
    "required": ["metadata", "qParams", "nodes", "links"],
    "properties": {
        "metadata": {
            "type": "object",
            "required": ["slug", "scan", "prompt_tokens", "prompt"],
            "properties": {
                "slug": {"type": "string"},
                "scan": {"type": "string"},
                "prompt": {"type": "string"},
                "prompt_tokens": {"type": "array", "items": {"type": "string"}},
            },
        },
        "qParams": {
            "type": "object",
            "properties": {"pinnedIds": {"type": "array"}, "supernodes": {"type": "array"}, "clickedId": {"type": "string"}},
        },
        "nodes": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp"],
                "properties": {
                    "node_id": {"type": "string"},
                    "feature": {"type": ["integer", "null"]},
                    "layer": {"type": ["string", "integer"]},
                    "ctx_idx": {"type": "integer"},
                    "feature_type": {"type": "string"},
                    "jsNodeId": {"type": "string"},
                    "clerp": {"type": "string"},
                    "influence": {"type": ["number", "null"]},
                    "activation": {"type": ["number", "null"]},
                },
            },
        },
        "links": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["source", "target", "weight"],
                "properties": {"source": {"type": "string"}, "target": {"type": "string"}, "weight": {"type": "number"}},
            },
        },
    },
}
"""The fields that Neuronpedia's published schema of attribution graphs (1.0.0) requires, and their types."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    found = Archive(tmp_path_factory.mktemp("export") / "archive")
    found.write([*TRACES, make_trace(9, items=[SPAN])])
    return found


def export(archive: Archive, form: str, target: Path, *more: object) -> dict[str, Any]:
    report: dict[str, Any] = ok("export", "--archive", archive.path, "--format", form, "--output", target, "--json", *more).json
    return report


def rows_of(traces: list[Trace]) -> Counter[str]:
    return Counter({name: sum(trace.table(name).num_rows for trace in traces) for name in schema.ARCHIVE_TABLES})


def test_parquet_is_a_star_schema_that_joins_by_uid(archive: Archive, tmp_path: Path) -> None:
    report = export(archive, "parquet", tmp_path / "out")
    traces = list(archive.read_traces())
    found = Counter({path.stem: pq.read_metadata(path).num_rows for path in (tmp_path / "out").glob("*.parquet")})
    assert +found == +rows_of(traces)
    assert report["traces"] == len(traces) == 4
    assert oct((tmp_path / "out" / "Token.parquet").stat().st_mode & 0o777) == "0o600"
    joined = duckdb.execute(
        f"SELECT x.trace_id, o.output_id, t.pos, i.score FROM '{tmp_path}/out/INFLUENCES.Token.Output.parquet' i "
        f"JOIN '{tmp_path}/out/Token.parquet' t ON t.uid = i.src JOIN '{tmp_path}/out/Output.parquet' o ON o.uid = i.dst "
        f"JOIN '{tmp_path}/out/Trace.parquet' x ON x.trace_no = o.trace_no"
    ).fetchall()
    expected = [
        (trace.trace_id, output.output_id, row["pos"], row["score"])
        for trace in traces
        for output in trace.outputs
        for row in output.influences().to_pylist()
    ]
    assert sorted(joined) == sorted(expected)


def test_csv_holds_the_same_rows_lists_as_json(archive: Archive, tmp_path: Path) -> None:
    export(archive, "csv", tmp_path / "out")
    with (tmp_path / "out" / "Output.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["output_id"]: row for row in csv.DictReader(file)}
    for trace in archive.read_traces():
        for output in trace.outputs:
            row = rows[output.output_id]
            assert float(row["explained"]) == pytest.approx(output.row["explained"])
            assert json.loads(row["head_vector"]) == pytest.approx(output.row["head_vector"])


def test_ndjson_has_a_line_for_each_prediction_with_all_its_drivers(archive: Archive, tmp_path: Path) -> None:
    export(archive, "ndjson", tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.ndjson").read_text(encoding="utf-8").splitlines()]
    traces = list(archive.read_traces())
    assert [line["output_id"] for line in lines] == [output.output_id for trace in traces for output in trace.outputs]
    for line in lines:
        assert sum(driver["score"] for driver in line["drivers"]) + line["bias"] == pytest.approx(line["explained"], abs=1e-3)
        assert [driver["rank_drive"] for driver in line["drivers"]] == list(range(1, len(line["drivers"]) + 1))
        assert line["heads"] == sorted(line["heads"], key=lambda head: -head["share"])


@pytest.mark.parametrize("form", ["graphml", "node-link"])
def test_graphs_come_back_through_networkx(archive: Archive, tmp_path: Path, form: str) -> None:
    export(archive, form, tmp_path / "out")
    for trace in archive.read_traces():
        if form == "graphml":
            graph = nx.read_graphml(tmp_path / "out" / f"{trace.trace_id}.graphml", force_multigraph=True)
        else:
            data = json.loads((tmp_path / "out" / f"{trace.trace_id}.json").read_text(encoding="utf-8"))
            graph = nx.node_link_graph(data, edges="edges")
        assert graph.number_of_nodes() == sum(trace.table(node.label).num_rows for node in schema.NODES)
        assert graph.number_of_edges() == sum(table.num_rows for name, table in trace.tables.items() if "." in name)
        weights: list[float] = sorted(data["weight"] for _, _, data in graph.edges(data=True) if data["type"] == "VALUE")
        assert weights == pytest.approx(sorted(float(w) for w in trace.table("VALUE.State.Head")["weight"].to_numpy()))
        texts = {graph.nodes[name]["text"] for name in graph if graph.nodes[name]["label"] == "Token"}
        assert texts == set(trace.table("Token")["text"].to_pylist())


def test_neuronpedia_graphs_have_the_published_fields_and_add_up(archive: Archive, tmp_path: Path) -> None:
    export(archive, "neuronpedia", tmp_path / "out")
    for trace in archive.read_traces():
        for output in trace.outputs:
            path = tmp_path / "out" / f"{output.output_id.replace(':', '_')}.json"
            graph = json.loads(path.read_text(encoding="utf-8"))
            jsonschema_rs.validate(GRAPH_SCHEMA, graph)
            ids = [node["node_id"] for node in graph["nodes"]]
            assert len(ids) == len(set(ids))
            assert {end for link in graph["links"] for end in (link["source"], link["target"])} <= set(ids)
            heads = [head for head in trace.table("Head").to_pylist() if head["output_uid"] == output.row["local"]]
            for head in heads:  # what enters a head, its bias and what was dropped are its relevance, which is its link to the logit
                name = f"{head['layer']}_{head['head']}_{head['pos']}"
                entering = sum(link["weight"] for link in graph["links"] if link["target"] == name)
                (leaving,) = [link["weight"] for link in graph["links"] if link["source"] == name]
                assert entering + head["bias"] + head["dropped_in"] == pytest.approx(leaving, abs=1e-4)


def test_span_annotations_are_for_the_spans_that_asked(archive: Archive, tmp_path: Path) -> None:
    export(archive, "span-annotations", tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "annotations.ndjson").read_text(encoding="utf-8").splitlines()]
    (trace,) = [trace for trace in archive.read_traces() if any(row["otel_span_id"] for row in trace.table("Item").to_pylist())]
    assert [line["span_id"] for line in lines] == [SPAN["otel_span_id"]] * len(trace.outputs)
    for line, output in zip(lines, trace.outputs, strict=True):
        first = output.influences().to_pylist()[0]
        assert (line["result"]["label"], line["result"]["score"]) == (first["text"], first["share"])
        assert line["metadata"]["trace_id"] == SPAN["otel_trace_id"]
        assert line["annotator_kind"] == "CODE"


def test_since_gives_increments(archive: Archive, tmp_path: Path) -> None:
    tomorrow = (datetime.now() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S")
    yesterday = (datetime.now() - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S")
    assert export(archive, "ndjson", tmp_path / "none", "--since", tomorrow)["traces"] == 0
    assert export(archive, "ndjson", tmp_path / "all", "--since", yesterday)["traces"] == 4
    assert export(archive, "parquet", tmp_path / "tables", "--since", yesterday)["traces"] == 4
    refused = run("export", "--archive", archive.path, "--format", "neo4j-import", "--output", tmp_path / "x", "--since", yesterday)
    assert refused.code == 3
    assert "leave --since out" in refused.err

"""Traces of the method `secant`: their tables, what distinguishes them from `frozen`, and the command line."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import ok
from tests.support.conservation import conservation_errors
from tests.support.tiny_text_model import save_tiny, tiny_loaded
from tracestore import schema
from tracestore.extract.loading import LoadedModel
from tracestore.extract.plan import plan_trace
from tracestore.extract.trace import trace
from tracestore.model import Item, PruningOptions, Trace, TraceOptions

ITEM = Item(prompt="It is in Paris. Where is the tower?", completion=" It is in Paris.", id="tower")
ADDRESS = ("KEY.State.Head", "QUERY.State.Head")


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return tiny_loaded()


@pytest.fixture(scope="module")
def found(loaded: LoadedModel) -> Trace:
    return trace(loaded, ITEM, TraceOptions(method="secant", pruning=PruningOptions(0.7, 300)))


def test_stored_graphs_conserve_with_their_address_edges(found: Trace) -> None:
    assert found.header["method"] == "secant"
    assert all(found.table(name).num_rows > 0 for name in ADDRESS)
    assert conservation_errors(found) < 2e-4
    for name, table in found.tables.items():
        assert table.schema == schema.arrow_schema(name)


def test_address_edges_are_ranked_together_with_values(found: Trace) -> None:
    edges = [row for name in ("VALUE.State.Head", *ADDRESS) for row in found.table(name).to_pylist()]
    heads = {row["dst"] for row in edges}
    for head in heads:
        mine = sorted((row for row in edges if row["dst"] == head), key=lambda row: row["rank"])
        assert [row["rank"] for row in mine] == list(range(1, len(mine) + 1))
        assert [abs(row["weight"]) for row in mine] == sorted((abs(row["weight"]) for row in mine), reverse=True)


def test_direct_and_total_are_the_sum_of_both_channels(found: Trace) -> None:
    for row in found.table("INFLUENCES.Token.Output").to_pylist():
        assert row["direct"] == pytest.approx(row["direct_value"] + row["direct_address"], rel=1e-5)
        assert row["total"] == pytest.approx(row["total_value"] + row["total_address"], rel=1e-5)
        assert row["total_address"] >= row["direct_address"] > 0


def test_address_sums_are_those_of_all_key_edges(loaded: LoadedModel) -> None:
    whole = trace(loaded, "Paris is in", TraceOptions(method="secant", pruning=PruningOptions(1.0, 1 << 30)))
    states = {row["local"]: row for row in whole.table("State").to_pylist()}
    heads = {row["local"]: row for row in whole.table("Head").to_pylist()}
    positions = {row["local"]: row["pos"] for row in whole.table("Token").to_pylist()}
    total, direct = np.zeros(len(positions)), np.zeros(len(positions))
    for edge in whole.table("KEY.State.Head").to_pylist():
        total[states[edge["src"]]["pos"]] += abs(edge["weight"])
        if heads[edge["dst"]]["pos"] == whole.outputs[0].row["pos"]:
            direct[states[edge["src"]]["pos"]] += abs(edge["weight"])
    for edge in whole.table("QUERY.State.Head").to_pylist():
        assert states[edge["src"]]["pos"] == heads[edge["dst"]]["pos"]
    for row in whole.table("INFLUENCES.Token.Output").to_pylist():
        assert row["total_address"] == pytest.approx(total[positions[row["src"]]], rel=1e-3, abs=1e-6)
        assert row["direct_address"] == pytest.approx(direct[positions[row["src"]]], rel=1e-3, abs=1e-6)


def test_compositions_and_paths_go_through_values_keys_and_queries(found: Trace) -> None:
    n_heads = found.header["n_heads"]
    for output in found.outputs:
        into: dict[str, float] = defaultdict(float)
        for row in found.table("Composition").to_pylist():
            if row["output_uid"] == output.row["local"]:
                into[row["dst"] if row["via"] not in "VKQ" else f"{row['dst']}:{row['via']}"] += row["weight"]
        assert output.row["compositions_rest_abs"] == 0  # the model is so small that all are stored
        assert into["out"] == pytest.approx(output.row["explained"], abs=1e-5)
        for number, relevance in enumerate(output.row["head_vector"]):
            name = f"L{number // n_heads}.h{number % n_heads}"
            assert sum(into[f"{name}:{via}"] for via in "VKQ") == pytest.approx(relevance, abs=1e-5)
            assert abs(into[f"{name}:K"]) + abs(into[f"{name}:Q"]) > 0
    motifs = {path["motif"] for path in found.table("Path").to_pylist()}
    assert all(any(f":{via}>" in motif for motif in motifs) for via in "VKQ")


def test_the_method_is_part_of_the_name_of_a_trace(loaded: LoadedModel) -> None:
    names = {plan_trace(loaded, ITEM, TraceOptions(method=method)).trace_id for method in ("frozen", "secant")}
    assert len(names) == 2


def test_both_methods_explain_the_same_quantity(loaded: LoadedModel, found: Trace) -> None:
    frozen = trace(loaded, ITEM, TraceOptions(method="frozen"))
    assert frozen.table(ADDRESS[0]).num_rows == 0
    for one, other in zip(frozen.outputs, found.outputs, strict=True):
        assert one.row["explained"] == pytest.approx(other.row["explained"], abs=1e-5)
    scores = [t.table("INFLUENCES.Token.Output")["score"].to_numpy() for t in (frozen, found)]
    assert np.abs(scores[0] - scores[1]).max() > 1e-3


def test_the_command_line_traces_loads_and_answers_by_secant(tmp_path: Path) -> None:
    model, archive, store = save_tiny(tmp_path / "tiny"), tmp_path / "traces", tmp_path / "graph.lbug"
    ok("ingest", "It is in Paris. Where", "--model", model, "--archive", archive, "--store", store, "--method", "secant", "--json")
    (listed,) = ok("query", "list_traces", "--store", store, "--format", "json").json
    assert listed["method"] == "secant"
    why = ok("why", "--trace", listed["trace_id"], "--store", store, "--json").json
    assert why["method"] == "secant"
    now = ok("why", "It is in Paris. Where", "--model", model, "--method", "secant", "--json").json
    assert now["trace_id"] == why["trace_id"]
    assert now["outputs"][0]["drivers"][0]["text"] == why["outputs"][0]["drivers"][0]["text"]
    assert ok("query", "check_conservation", "--store", store, "--format", "json").json == []
    paths = ok("paths", now["outputs"][0]["output_id"], "--archive", archive, "-k", "5", "--json").json
    stored_paths = ok(
        "query", "driver_paths", "--store", store, "-p", f"output_id={now['outputs'][0]['output_id']}", "-p", "k=5", "--format", "json"
    ).json
    assert [">".join(path["hops"]) for path in paths["outputs"][0]["paths"]] == [row["hops"] for row in stored_paths]
    motifs = {row["motif"] for row in ok("query", "motifs_across", "--store", store, "-p", "k=500", "--format", "json").json}
    assert any(":K>" in motif for motif in motifs)
    for via in "KQ":
        rows = ok("query", "compositions_across", "--store", store, "-p", f"via={via}", "--format", "json").json
        assert {row["via"] for row in rows} == {via}
    count = "MATCH (:State)-[e:KEY|QUERY]->(:Head) RETURN label(e) AS kind, count(*) AS n ORDER BY kind"
    stored = {row["kind"]: row["n"] for row in ok("query", count, "--store", store, "--format", "json").json}
    assert min(stored["KEY"], stored["QUERY"]) > 0


def test_why_shows_the_edges_that_matter_most_by_the_plain_gradient(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "tiny")
    given = ("why", "It is in Paris. Where", "--model", model, "--method", "secant")
    edges = ok(*given, "--sensitivity", "--json").json["outputs"][0]["sensitive_edges"]
    assert len(edges) == 10
    assert {edge["kind"] for edge in edges} <= {"VALUE", "KEY"}
    sizes = [abs(edge["sensitivity"]) for edge in edges]
    assert sizes == sorted(sizes, reverse=True)
    assert all(edge["source_pos"] <= edge["query_pos"] for edge in edges)
    first = edges[0]
    name = f"L{first['layer']}.H{first['head']}:{first['source_pos']}->{first['query_pos']}"
    assert name in ok(*given, "--sensitivity").out
    assert ok(*given, "--json").json["outputs"][0]["sensitive_edges"] == []
    assert "plain gradient" not in ok(*given).out


def test_sensitivity_is_stored_when_it_is_asked_for(loaded: LoadedModel, found: Trace) -> None:
    asked = trace(loaded, "Paris is in", TraceOptions(method="secant", sensitivity=True))
    for name in ("VALUE.State.Head", "KEY.State.Head"):
        assert asked.table(name)["sensitivity"].null_count == 0
        assert found.table(name)["sensitivity"].null_count == found.table(name).num_rows
    values = asked.table("VALUE.State.Head")
    agreement = np.corrcoef(values["weight"].to_numpy(), values["sensitivity"].to_numpy())[0, 1]
    assert 0.3 < agreement < 0.999
    assert asked.trace_id != trace(loaded, "Paris is in", TraceOptions(method="secant")).trace_id

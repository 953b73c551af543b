"""The tables of an Output: every column of the schema, ranks, completeness, and a conservation check that finds damage."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.support.tiny_models import tiny_model, tokens
from tracestore import schema
from tracestore.extract.attribute import Attributor
from tracestore.extract.attribution import OutputAttribution, TargetSpec
from tracestore.extract.output_tables import OutputNames, OutputTables, output_tables
from tracestore.extract.table_checks import conservation_error
from tracestore.model import PruningOptions

LENGTH, FIRST = 12, 40
FIRST_PLACE: dict[str, Any] = {"first_local": FIRST, "token_locals": np.arange(1, LENGTH + 1), "token_ids": tokens(LENGTH).numpy()}


@pytest.fixture(scope="module", params=["llama", "phi"])
def found(request: pytest.FixtureRequest) -> OutputAttribution:
    ids = tokens(LENGTH)
    ids[7], ids[3] = ids[9], ids[9]
    return Attributor(tiny_model(request.param)).run(ids).attribute(TargetSpec(9), PruningOptions(keep=0.7))


@pytest.fixture
def built(found: OutputAttribution) -> OutputTables:
    names = OutputNames("t:9:5", "tiny", text=" five", correct=True)
    return output_tables(found, names, **FIRST_PLACE)


def rows(table: pa.Table) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = table.to_pylist()
    return out


def test_tables_follow_the_schema_and_locals_are_handed_out_once(built: OutputTables, found: OutputAttribution) -> None:
    for name, table in built.tables.items():
        assert table.schema.equals(schema.arrow_schema(name)), name
        table.validate(full=True)
        assert table.num_rows > 0
    nodes = [name for name in built.tables if name in schema.NODE_BY_LABEL]
    handed = np.concatenate([built.tables[name]["local"].to_numpy() for name in nodes])
    np.testing.assert_array_equal(np.sort(handed), np.arange(FIRST, built.next_local))
    assert built.local == FIRST
    for name in ("HeadSummary", "State", "Head", "Mlp"):
        assert set(built.tables[name]["output_uid"].to_pylist()) == {FIRST}
    sites = set(built.tables["State"]["site"].to_pylist())
    assert sites == ({"pre"} if found.flows.parallel else {"pre", "mid"})
    every = {name for name, (edge, _, _) in schema.EDGE_TABLES.items() if edge.archived}
    later = {name for name in every if name.split(".")[0] in {"KNOCKOUT", "SUPPORTS", "EMITS", "KEY", "QUERY"}} | {"INFLUENCES.Span.Output"}
    assert set(built.tables) - set(schema.NODE_BY_LABEL) == every - later


def test_the_output_row_says_what_was_found(built: OutputTables, found: OutputAttribution) -> None:
    (row,) = rows(built.tables["Output"])
    assert (row["output_id"], row["model_id"], row["pos"], row["text"], row["correct"]) == ("t:9:5", "tiny", 9, " five", True)
    assert (row["token_id"], row["foil_token_id"], row["gauge"], row["vocab_rank"]) == (found.token_id, None, "centred", 1)
    assert row["explained"] == pytest.approx(found.explained)
    assert row["bias"] + sum(r["score"] for r in rows(built.tables["INFLUENCES.Token.Output"])) == pytest.approx(found.explained, abs=1e-5)
    assert len(row["head_vector"]) == 12
    assert sum(row["head_vector"]) == pytest.approx(float(found.flows.head_relevance.sum()), abs=1e-5)


def test_influences_are_complete_up_to_the_position_and_sinks_come_last(built: OutputTables, found: OutputAttribution) -> None:
    influences = rows(built.tables["INFLUENCES.Token.Output"])
    assert [r["src"] for r in influences] == list(range(1, 11))
    assert {r["dst"] for r in influences} == {FIRST}
    assert influences[0]["rank_direct"] == influences[0]["rank_total"] == 10
    assert influences[0]["share"] == 0
    assert sum(r["share"] for r in influences) == pytest.approx(1)
    others = influences[1:]
    assert sorted(r["rank_direct"] for r in others) == list(range(1, 10))
    by_rank = sorted(others, key=lambda r: r["rank_direct"])
    assert all(a["direct"] >= b["direct"] for a, b in pairwise(by_rank))
    assert all(r["direct"] == r["direct_value"] and r["total"] == r["total_value"] >= r["direct"] for r in influences)
    assert [r["removal"] for r in influences] == pytest.approx(found.removal[:10].tolist())
    assert [r["drive"] for r in influences] == pytest.approx(found.drive[:10].tolist())
    by_drive = sorted(influences, key=lambda r: r["rank_drive"])
    assert [r["rank_drive"] for r in by_drive] == list(range(1, 11))
    assert by_drive[-1] is influences[0]  # the sink, though it is the largest
    assert all(a["drive"] >= b["drive"] for a, b in pairwise(by_drive[:-1]))
    assert found.sink_mass == pytest.approx(influences[0]["direct"] / sum(r["direct"] for r in influences))


def test_a_token_whose_hiding_raises_what_is_explained_comes_last_before_the_sink(found: OutputAttribution) -> None:
    removal = found.removal.copy()
    removal[4] = -10 * np.abs(removal).sum()  # the largest by size
    built = output_tables(replace(found, removal=removal), OutputNames("t:9:5", "tiny"), **FIRST_PLACE)
    influences = rows(built.tables["INFLUENCES.Token.Output"])
    assert influences[4]["drive"] < 0
    assert (influences[4]["rank_drive"], influences[0]["rank_drive"]) == (9, 10)


def test_edges_are_ranked_among_all_that_enter_the_same_node(built: OutputTables) -> None:
    entering: dict[int, list[tuple[float, int]]] = {}
    for name, table in built.tables.items():
        if name.split(".")[0] in {"EMBEDS", "VALUE", "WRITES", "READS", "RESIDUAL", "UNEMBEDS"}:
            for row in rows(table):
                entering.setdefault(row["dst"], []).append((abs(row["weight"]), row["rank"]))
    assert max(len(edges) for edges in entering.values()) > 3
    for edges in entering.values():
        assert sorted(rank for _, rank in edges) == list(range(1, len(edges) + 1))
        ranked = [weight for weight, _ in sorted(edges, key=lambda e: e[1])]
        assert ranked == sorted(ranked, reverse=True)


def test_edges_join_what_they_say(built: OutputTables, found: OutputAttribution) -> None:
    states = {r["local"]: r for r in rows(built.tables["State"])}
    heads = {r["local"]: r for r in rows(built.tables["Head"])}
    for edge in rows(built.tables["VALUE.State.Head"]):
        state, head = states[edge["src"]], heads[edge["dst"]]
        assert (state["site"], state["layer"]) == ("pre", head["layer"])
        assert state["pos"] <= head["pos"]
        assert 0 < edge["attention"] <= 1
    for edge in rows(built.tables["WRITES.Head.State"]):
        head, state = heads[edge["src"]], states[edge["dst"]]
        assert head["pos"] == state["pos"]
        assert (state["site"], state["layer"]) == (("pre", head["layer"] + 1) if found.flows.parallel else ("mid", head["layer"]))
    for edge in rows(built.tables["EMBEDS.Token.State"]):
        assert (states[edge["dst"]]["layer"], states[edge["dst"]]["pos"] + 1) == (0, edge["src"])
    (final,) = rows(built.tables["UNEMBEDS.State.Output"])
    assert (states[final["src"]]["layer"], states[final["src"]]["pos"], final["dst"]) == (3, 9, FIRST)


def test_conservation_holds_on_the_tables_and_damage_is_found(built: OutputTables) -> None:
    assert conservation_error(built.tables) < 1e-6
    value = built.tables["VALUE.State.Head"]
    weights = value["weight"].to_numpy().copy()
    weights[len(weights) // 2] += 0.01
    broken = {**built.tables, "VALUE.State.Head": value.set_column(2, value.schema.field("weight"), pa.array(weights))}
    assert conservation_error(broken) == pytest.approx(0.01, rel=1e-3)
    final = built.tables["UNEMBEDS.State.Output"]
    raised = final.set_column(2, final.schema.field("weight"), pa.array([final["weight"][0].as_py() + 0.02], pa.float32()))
    assert conservation_error({**built.tables, "UNEMBEDS.State.Output": raised}) == pytest.approx(0.02, rel=1e-3)
    assert conservation_error({**built.tables, "WRITES.Mlp.State": built.tables["WRITES.Mlp.State"].slice(1)}) > 1e-5


def test_head_summaries_are_the_largest_and_know_induction(built: OutputTables, found: OutputAttribution) -> None:
    summary = rows(built.tables["HeadSummary"])
    assert [s["abs_relevance"] for s in summary] == sorted((s["abs_relevance"] for s in summary), reverse=True)
    assert sum(s["share"] for s in summary) == pytest.approx(1)
    ids = tokens(LENGTH).tolist()
    for s in summary:
        source, query = s["top_source_pos"], s["top_query_pos"]
        assert s["offset"] == query - source >= 0
        assert s["induction"] == (source > 0 and ids[source - 1] == ids[query] and source - 1 < query)
        assert s["relevance"] == pytest.approx(found.head_vector[s["layer"] * 4 + s["head"]], abs=1e-6)


def test_keyed_ids_stand_in_the_tables_when_text_is_not_kept(found: OutputAttribution) -> None:
    names = OutputNames("t", "tiny", shown_token_id=123456789)
    built = output_tables(found, names, first_local=1, token_locals=np.arange(20, 40), token_ids=tokens(LENGTH).numpy())
    (row,) = rows(built.tables["Output"])
    assert (row["token_id"], row["text"]) == (123456789, None)

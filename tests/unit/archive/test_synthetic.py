"""The made-up traces must themselves be right: everything else is tested with them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.support.synthetic import conservation_errors, make_trace, make_traces, token_id_of
from tracestore import schema
from tracestore.model import Trace

SHAPES: list[dict[str, Any]] = [
    {},
    {"parallel": True},
    {"n_tokens": 1},
    {"n_tokens": 2, "n_outputs": 5},
    {"n_outputs": 3, "keep": 0.4, "parallel": True},
    {"n_tokens": 12, "max_edges": 7, "extras": True},
    {"n_layers": 1, "n_heads": 1},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_made_traces_conserve_exactly_and_fit_the_schema(shape: dict[str, Any]) -> None:
    for seed in range(3):
        trace = make_trace(seed, **shape)
        assert conservation_errors(trace) == 0.0
        assert all(table.schema.equals(schema.arrow_schema(name)) for name, table in trace.tables.items())
        assert trace.closure == 0.0


@pytest.mark.parametrize("table", ["VALUE.State.Head", "RESIDUAL.State.State", "EMBEDS.Token.State", "INFLUENCES.Token.Output"])
def test_the_checker_sees_a_changed_weight(table: str) -> None:
    trace = make_trace(1)
    column = "score" if table.startswith("INFLUENCES") else "weight"
    values: list[Any] = trace.tables[table][column].to_pylist()
    values[0] += 0.25
    changed = trace.tables[table].set_column(
        trace.tables[table].column_names.index(column), schema.arrow_schema(table).field(column), pa.array(values, pa.float32())
    )
    assert conservation_errors(Trace(trace.trace_id, {**trace.tables, table: changed})) == pytest.approx(0.25)


def test_the_checker_sees_an_edge_without_its_node_and_a_missing_influence() -> None:
    trace = make_trace(2)
    assert conservation_errors(Trace(trace.trace_id, {**trace.tables, "Mlp": trace.tables["Mlp"].slice(1)})) == float("inf")
    influences = trace.tables["INFLUENCES.Token.Output"].slice(1)
    assert conservation_errors(Trace(trace.trace_id, {**trace.tables, "INFLUENCES.Token.Output": influences})) == float("inf")


def test_pruning_drops_edges_and_counts_them() -> None:
    kept = make_trace(3, n_tokens=10, keep=0.5)
    everything = make_trace(3, n_tokens=10, keep=1.0)
    assert kept.table("VALUE.State.Head").num_rows < everything.table("VALUE.State.Head").num_rows / 2
    assert max(row["dropped_in_abs"] for row in kept.table("Head").to_pylist()) > 0
    assert max(row["dropped_in_abs"] for row in everything.table("Head").to_pylist()) == 0
    assert kept.table("INFLUENCES.Token.Output").equals(everything.table("INFLUENCES.Token.Output"))


def test_equal_arguments_give_equal_traces_and_seeds_differ() -> None:
    first, again, other = make_trace(4), make_trace(4), make_trace(5)
    assert first.trace_id == again.trace_id != other.trace_id
    assert all(first.tables[name].equals(again.tables[name]) for name in schema.ARCHIVE_TABLES if name in first.tables)
    assert len({trace.trace_id for trace in make_traces(20)}) == 20


def test_text_target_and_emits_agree_with_the_tokens() -> None:
    trace = make_trace(6, text="The capital of France is", positions=[2, 4], target_text=" Paris")
    assert trace.text == "The capital of France is"
    assert trace.table("Token")["text"].to_pylist() == ["The", " capital", " of", " France", " is"]
    assert [row["text"] for row in trace.table("Output").to_pylist()] == [" France", " Paris"]
    assert trace.table("Output")["token_id"].to_pylist() == [token_id_of(" France"), token_id_of(" Paris")]
    emitted = trace.table("EMITS.Output.Token")
    by_local = {row["local"]: row for row in trace.table("Token").to_pylist()}
    assert [by_local[local]["text"] for local in emitted["dst"].to_pylist()] == [" France"]
    token = by_local[emitted["dst"][0].as_py()]
    assert str(trace.text)[token["char_from"] : token["char_to"]] == " France"


def test_ranks_put_the_sink_last_and_shares_add_up() -> None:
    rows = make_trace(7, n_tokens=9).outputs[0].influences().to_pylist()
    assert [row["rank_drive"] for row in rows] == list(range(1, 10))
    drive = [row["drive"] for row in rows[:-1]]
    assert drive == sorted(drive, reverse=True)
    assert sum(drive) != pytest.approx(1.0)
    rows.sort(key=lambda row: row["rank_direct"])
    assert rows[-1]["sink"] is True
    assert rows[-1]["share"] == 0.0
    assert sum(row["share"] for row in rows) == pytest.approx(1.0)
    direct = [row["direct"] for row in rows[:-1]]
    assert direct == sorted(direct, reverse=True)

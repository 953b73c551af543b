"""Rows appended to visible traces: once, with their OF edges, and only where they belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.support.store_graph import APPENDED, ask, bundle_of, differences, expected_graph, stored_graph
from tests.support.synthetic import make_trace, make_traces
from tracestore import schema
from tracestore.errors import IntegrityError
from tracestore.model import Trace
from tracestore.store import open_engine
from tracestore.store.base import TraceBundle


def rows(name: str, *given: dict[str, Any]) -> pa.Table:
    """Make rows of a package table; what is not given is null."""
    target = schema.package_schema(name)
    return pa.Table.from_pylist([{field.name: row.get(field.name) for field in target} for row in given], schema=target)


def item(local: int, item_id: str, trace: int = 0) -> dict[str, Any]:
    return {"trace": trace, "local": APPENDED | local, "item_id": item_id, "tags": ["late"], "turn": 3, "correct": None}


def with_item(trace: Trace, local: int, item_id: str) -> Trace:
    extra = rows("Item", item(local, item_id)).drop_columns(["trace"])
    return Trace(trace.trace_id, {**trace.tables, "Item": pa.concat_tables([trace.table("Item"), extra])})


def test_items_are_appended_once(tmp_path: Path) -> None:
    traces = make_traces(2)
    bundle = TraceBundle((traces[1].trace_id, "not loaded"), {"Item": rows("Item", item(5, "again"), item(6, "elsewhere", trace=1))})
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        store.load(bundle_of(traces))
        first = store.annotate(bundle)
        assert (first.loaded, first.skipped, first.nodes, first.edges) == ((traces[1].trace_id,), ("not loaded",), 1, 1)
        again = store.annotate(bundle)
        assert (again.loaded, again.nodes, again.edges) == ((), 0, 0)
        assert differences(stored_graph(store), expected_graph([traces[0], with_item(traces[1], 5, "again")], ())) == []
        assert store.check().problems == ()


def test_knockouts_are_appended_once_and_differ_by_their_properties(tmp_path: Path) -> None:
    trace = make_trace(1)
    token, output = trace.table("Token")["local"][2].as_py(), trace.table("Output")["local"][0].as_py()
    common = {"trace": 0, "src": token, "dst": output, "kind": "column", "effect_logp": -0.25, "created_at": 7}
    name = "KNOCKOUT.Token.Output"
    bundle = TraceBundle((trace.trace_id,), {name: rows(name, {**common, "effect": 0.1}, {**common, "effect": 0.2, "layer": 3})})
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        store.load(bundle_of([trace]))
        assert store.annotate(bundle).edges == 2
        assert store.annotate(bundle).edges == 0
        found = ask(
            store, "MATCH (t:Token)-[r:KNOCKOUT]->(o:Output) RETURN t.pos AS pos, r.kind AS kind, r.layer AS layer ORDER BY r.effect"
        )
        assert found == [{"pos": 2, "kind": "column", "layer": None}, {"pos": 2, "kind": "column", "layer": 3}]
        assert store.check().problems == ()


def test_a_reference_to_nothing_is_refused_and_nothing_stays(tmp_path: Path) -> None:
    trace = make_trace(1)
    name = "KNOCKOUT.Token.Output"
    bad = {"trace": 0, "src": 999_999, "dst": 999_998, "kind": "column", "effect": 0.1, "effect_logp": 0.1, "created_at": 7}
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        store.load(bundle_of([trace]))
        with pytest.raises(IntegrityError, match="KNOCKOUT refers to a node"):
            store.annotate(TraceBundle((trace.trace_id,), {"Item": rows("Item", item(1, "x")), name: rows(name, bad)}))
        assert differences(stored_graph(store), expected_graph([trace], ())) == []

"""The mechanism level of single outputs, added later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.store_graph import bundle_of, differences, expected_graph, stored_graph
from tests.support.synthetic import make_trace, make_traces
from tracestore.errors import BadInputError
from tracestore.store import open_engine
from tracestore.store.ladybug import ledger


def test_attach_adds_one_output_and_nothing_else(tmp_path: Path) -> None:
    traces = make_traces(2, n_tokens=8, n_outputs=3)
    chosen = traces[1].outputs[1].output_id
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        store.load(bundle_of(traces))
        report = store.attach(bundle_of(traces), chosen)
        assert report.loaded == (traces[1].trace_id,)
        found = stored_graph(store)
        assert differences(found, expected_graph(traces, [chosen])) == []
        assert report.nodes == sum(len(found[label]) for label in ("State", "Head", "Mlp")) > 0
        again = store.attach(bundle_of(traces), chosen)
        assert (again.loaded, again.skipped, again.edges) == ((), (traces[1].trace_id,), 0)
        assert store.check().problems == ()
        for output in [*traces[0].outputs, *traces[1].outputs]:
            store.attach(bundle_of(traces), output.output_id)
        assert differences(stored_graph(store), expected_graph(traces)) == []
        assert store.check().problems == ()


def test_attach_names_what_is_missing(tmp_path: Path) -> None:
    trace, other, flat = make_trace(1), make_trace(2), make_trace(3, mechanism=False)
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        store.load(bundle_of([trace, flat]))
        with pytest.raises(BadInputError, match="archive's package does not hold"):
            store.attach(bundle_of([trace]), other.outputs[0].output_id)
        with pytest.raises(BadInputError, match="load its trace first"):
            store.attach(bundle_of([other]), other.outputs[0].output_id)
        with pytest.raises(BadInputError, match="has no mechanism"):
            store.attach(bundle_of([flat]), flat.outputs[0].output_id)


def test_a_broken_attach_is_cleaned_on_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = make_trace(1, n_outputs=2)
    output_id = trace.outputs[0].output_id

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with open_engine(str(tmp_path / "graph.lbug")) as store:
        store.load(bundle_of([trace]))
        monkeypatch.setattr(ledger, "flip_attached", die)
        with pytest.raises(KeyboardInterrupt):
            store.attach(bundle_of([trace]), output_id)
        assert store.status().nodes["State"] > 0
        monkeypatch.undo()
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        assert differences(stored_graph(store), expected_graph([trace], ())) == []
        store.attach(bundle_of([trace]), output_id)
        assert differences(stored_graph(store), expected_graph([trace], [output_id])) == []
